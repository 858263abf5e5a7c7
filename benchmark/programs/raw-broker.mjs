// In the place of a broker: lets one client in, then writes prepared deliveries to it, or counts what it publishes.
import net from 'node:net'
import { acknowledgement, delivery, GREETING, opFrames } from '../peers/raw-wire.mjs'
import { fail, Meter, order, payloads, settings, tell } from './stage.mjs'

const { path, topic, payload } = settings
const bytes = payloads(payload)
// Two rounds of the payloads are about 64 KiB, which a socket takes in one write.
const block = Buffer.concat([...bytes, ...bytes].map((data) => delivery('publisher', topic, data)))
const perBlock = 2 * bytes.length

let received = 0
const meter = new Meter(() => received)
let client
let stopped = false

function accept(socket) {
  client = socket
  socket.write(GREETING)
  const nameAt = GREETING.length + 2
  let head = Buffer.alloc(0)
  let frames
  socket.on('error', () => socket.destroy())
  socket.on('data', (chunk) => {
    if (frames !== undefined) {
      frames(chunk)
      return
    }
    const before = head.length
    head = Buffer.concat([head, chunk])
    if (before < GREETING.length && head.length >= GREETING.length) socket.write(Buffer.from([1]))
    if (head.length < nameAt || head.length < nameAt + head.readUInt16LE(GREETING.length)) return
    socket.write(Buffer.from([1]))
    frames = opFrames(take)
    frames(head.subarray(nameAt + head.readUInt16LE(GREETING.length)))
  })
}

function take(from, at, end) {
  const flags = from[at + 4]
  if ((flags & 0x40) !== 0) client.write(acknowledgement(from, at))
  if ((flags & 0x3f) !== 0x01) return
  if (from[end - payload] !== (received & 0xff) || end - at !== 9 + topic.length + 1 + payload) {
    fail(`frame ${received} is lost or spoilt`)
  }
  received += 1
  if (received === 1) meter.begin()
}

order('go').then(() => {
  let sent = 0
  const pump = () => {
    while (!stopped) {
      sent += perBlock
      if (!client.write(block)) return
    }
    client.off('drain', pump)
    tell('sent', sent)
  }
  client.on('drain', pump)
  pump()
})
order('stop').then(() => {
  stopped = true
})
order('watch').then((processes) => meter.watch(processes))
// Only what counts is told: how many came.
order('count').then(() => {
  client.on('close', () => tell('received', received))
  if (client.destroyed) tell('received', received)
})

net.createServer(accept).listen(path, () => tell('ready'))

// Publishes prepared frames through a real broker, with next to no work of its own, as far as the receiver's credits go.
import net from 'node:net'
import { eventFrames, login, publication, subscription } from '../peers/raw-wire.mjs'
import { order, payloads, settings, tell } from './stage.mjs'

const { path, topic, payload, window } = settings
const bytes = payloads(payload)
const block = Buffer.concat(bytes.map((data) => publication(topic, data)))

const socket = net.connect(path)
let credit = 0
let sent = 0
let stopped = false
let isGoing = false
let isFull = false

function pump() {
  while (!stopped && !isFull && sent + bytes.length <= credit + window) {
    sent += bytes.length
    isFull = !socket.write(block)
  }
}

const frames = eventFrames((from, _at, end) => {
  // All that is published to us are credits: eight bytes at the end.
  if (from[_at] !== 0x01) return
  credit = from.readDoubleBE(end - 8)
  if (isGoing) pump()
})
let head = 0
socket.on('data', (chunk) => {
  // A greeting and two answers come first.
  const skipped = Math.min(chunk.length, 5 - head)
  head += skipped
  if (skipped > 0 && head === 5) {
    socket.write(subscription('credit/0'))
    tell('ready')
  }
  if (skipped < chunk.length) frames(chunk.subarray(skipped))
})
socket.on('drain', () => {
  isFull = false
  if (isGoing) pump()
})
socket.write(login('publisher'))

order('go').then(() => {
  isGoing = true
  pump()
})
order('stop').then(() => {
  stopped = true
  tell('sent', sent)
})

// A client of the hand-written hub, as somebody would write it: what is published in one turn leaves in one write.
import net from 'node:net'
import { Outgoing, PUBLISH, readFrames, SUBSCRIBE, SUBSCRIBED } from './hub-wire.mjs'

/** A path or host and port, of an address as ours. */
export function socketAddress(address) {
  if (address.startsWith('unix:')) return { path: address.slice(5) }
  const { hostname, port } = new URL(address)
  return { host: hostname, port: Number(port) }
}

/** A connection. */
export async function open(address, name) {
  const socket = net.connect({ ...socketAddress(address), noDelay: true })
  await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject))
  const outgoing = new Outgoing(socket)
  const callbacks = new Map()
  const subscribed = new Map()
  const calls = new Map()
  let lastCall = 0
  let scheduled = false
  let goesOn = true
  let drained = []

  socket.on('drain', () => {
    goesOn = true
    const waiting = drained
    drained = []
    for (const resolve of waiting) resolve()
  })
  readFrames(socket, (bytes, _from, to, operation, topic, payloadAt) => {
    if (operation === PUBLISH) callbacks.get(topic)?.({ topic, data: bytes.subarray(payloadAt, to) })
    else if (operation === SUBSCRIBED) subscribed.get(topic)?.()
  })

  const flush = () => {
    scheduled = false
    if (!outgoing.flush()) goesOn = false
  }
  const send = (operation, topic, payload) => {
    outgoing.frame(operation, topic, payload)
    if (!scheduled) {
      scheduled = true
      queueMicrotask(flush)
    }
    return goesOn
  }
  const subscribe = (topic, callback) =>
    new Promise((resolve) => {
      callbacks.set(topic, callback)
      subscribed.set(topic, resolve)
      send(SUBSCRIBE, topic, new Uint8Array(0))
    })

  // Calls are messages that begin with a number and say where the answer goes.
  const replyTopic = `reply/${name}`
  const request = (target, params) =>
    new Promise((resolve) => {
      lastCall += 1
      calls.set(lastCall, resolve)
      const head = Buffer.from(`\0\0\0\0\0${replyTopic}`)
      head.writeUInt32LE(lastCall)
      head[4] = replyTopic.length
      send(PUBLISH, `call/${target}`, Buffer.concat([head, params]))
    })

  await subscribe(replyTopic, ({ data }) => {
    const number = data.readUInt32LE(0)
    const resolve = calls.get(number)
    calls.delete(number)
    resolve?.(data.subarray(4))
  })
  return {
    subscribe: (topic, taken) =>
      subscribe(topic, (message) => {
        taken(message.topic.length, 0, message.data.length, message.data[0], message.data)
      }),
    publish: (topic, payload) => send(PUBLISH, topic, payload),
    drained: () => (goesOn ? undefined : new Promise((resolve) => drained.push(resolve))),
    call: request,
    serve: () =>
      subscribe(`call/${name}`, ({ data }) => {
        const bodyAt = 5 + data[4]
        const reply = data.latin1Slice(5, bodyAt)
        send(PUBLISH, reply, Buffer.concat([data.subarray(0, 4), data.subarray(bodyAt)]))
      }),
    async flush() {
      flush()
      if (!goesOn) await new Promise((resolve) => drained.push(resolve))
    },
    close: () => void socket.destroy(),
  }
}

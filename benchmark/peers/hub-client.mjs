// A client of the hand-written hub, as somebody would write it: what is published in one turn leaves in one write.
import net from 'node:net'
import { Outgoing, PUBLISH, readFrames, SUBSCRIBE, SUBSCRIBED } from './hub-wire.mjs'
import { overTopics } from './messages.mjs'

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

  const publish = (topic, payload) => send(PUBLISH, topic, payload)
  const messages = overTopics(name, {
    subscribe: (topic, callback) => subscribe(topic, ({ data }) => callback(data)),
    publish,
  })
  return {
    subscribe: (topic, taken) =>
      subscribe(topic, (message) => {
        taken(message.topic.length, 0, message.data.length, message.data[0], message.data)
      }),
    publish,
    ready: messages.open,
    listen: messages.listen,
    send: messages.send,
    drained: () => (goesOn ? undefined : new Promise((resolve) => drained.push(resolve))),
    call: messages.call,
    serve: messages.serve,
    async flush() {
      flush()
      if (!goesOn) await new Promise((resolve) => drained.push(resolve))
    },
    close: () => void socket.destroy(),
  }
}

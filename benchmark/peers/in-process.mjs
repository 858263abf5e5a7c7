// Buses within one process: two clients of our broker, and what Node brings along, with as much of a client's interface
// as the loads in one process use.
import { EventEmitter } from 'node:events'
import { MessageChannel } from 'node:worker_threads'
import { Broker } from 'elbus-node'

async function clients(one, other) {
  const broker = await Broker.start()
  const first = await broker.client(one)
  const second = await broker.client(other)
  const close = async () => {
    await first.close()
    await second.close()
    await broker.close()
  }
  return { first, second, close }
}

/** What a message is, where there is no broker to say who sent it. */
const messageOf = (topic, data) => ({ topic, sender: 'publisher', data })

const drained = () => undefined

const buses = {
  async 'in process'() {
    const { first, second, close } = await clients('publisher', 'subscriber')
    return { publisher: first, subscriber: second, close }
  },
  // Delivers within `emit`, the sender's own bytes.
  EventEmitter() {
    const emitter = new EventEmitter()
    const publish = (topic, data) => emitter.emit(topic, messageOf(topic, data))
    const subscribe = (topic, { callback }) => emitter.on(topic, callback)
    return { publisher: { publish, drained }, subscriber: { subscribe }, close: drained }
  },
  // Delivers in another turn of the event loop, a copy.
  MessageChannel() {
    const { port1, port2 } = new MessageChannel()
    const publish = (topic, data) => {
      port1.postMessage(messageOf(topic, data))
      return true
    }
    const subscribe = (topic, { callback }) =>
      port2.on('message', (message) => {
        if (message.topic === topic) callback(message)
      })
    return { publisher: { publish, drained }, subscriber: { subscribe }, close: () => port1.close() }
  },
}

/** Calls by messages with a number, over something that emits both ways. */
function numbered(send, onReply) {
  const calls = new Map()
  let last = 0
  onReply(({ number, result }) => {
    const resolve = calls.get(number)
    calls.delete(number)
    resolve(result)
  })
  const call = (_target, _method, params) =>
    new Promise((resolve) => {
      last += 1
      calls.set(last, resolve)
      send({ number: last, params })
    })
  return { call }
}

const callers = {
  async 'in process'(raw) {
    const { first, second, close } = await clients('caller', 'callee')
    second.serve({ echo: (params) => params }, { raw })
    return { caller: first, close }
  },
  EventEmitter() {
    const emitter = new EventEmitter()
    emitter.on('call', ({ number, params }) => emitter.emit('reply', { number, result: params }))
    const caller = numbered(
      (message) => emitter.emit('call', message),
      (callback) => emitter.on('reply', callback),
    )
    return { caller, close: drained }
  },
  MessageChannel() {
    const { port1, port2 } = new MessageChannel()
    port2.on('message', ({ number, params }) => port2.postMessage({ number, result: params }))
    const caller = numbered(
      (message) => port1.postMessage(message),
      (callback) => port1.on('message', callback),
    )
    return { caller, close: () => port1.close() }
  },
}

/** `publisher` and `subscriber` of a bus, and `close`. */
export const openBus = (name) => buses[name]()

/** A `caller` whose calls are answered with what they bring; `raw`: with bytes as they are. */
export const openCalls = (name, raw) => callers[name](raw)

// ZeroMQ.js as a peer of a measurement. Publications go through its proxy; messages go directly from a PUSH to a PULL
// socket, calls from a DEALER to a ROUTER socket, as its users have them. All its sockets are opened when needed.
import { Dealer, Publisher, Pull, Push, Router, Subscriber } from 'zeromq'

// Without a bound, as a publisher would drop what is above: the flow control of the measurement bounds it.
const sends = { sendHighWaterMark: 0, linger: 0 }
const receives = { receiveHighWaterMark: 0, linger: 0 }
/** How long nothing is published after a subscription, in milliseconds: nobody tells when it is in force. */
const SETTLE = 100

/** How many messages may wait for their turn before the sender is asked to wait. */
const ENOUGH = 1_024

/** Sends one after the other, as a socket takes no second message while it is at one. */
function sender(socket, fatal) {
  let queue = []
  let running
  const run = async () => {
    while (queue.length > 0) {
      const messages = queue
      queue = []
      for (const message of messages) await socket.send(message)
    }
    running = undefined
  }
  return {
    send(message) {
      queue.push(message)
      running ??= run().catch(fatal)
      return queue.length < ENOUGH
    },
    sent: () => running,
  }
}

/** A client. */
export async function open(address, _name, { verb }) {
  const [publishers, subscribers, direct] = address.split(' ')
  const sockets = []
  const opened = (socket) => {
    sockets.push(socket)
    return socket
  }
  let isClosing = false
  const fatal = (error) => {
    if (!isClosing) throw error
  }
  const connected = (socket, to) => {
    opened(socket).connect(to)
    return socket
  }
  const publications = sender(connected(new Publisher(sends), publishers), fatal)
  const messages = verb === 'send' ? sender(connected(new Push(sends), direct), fatal) : undefined

  const subscriptions = new Map()
  let subscriber
  const receive = async () => {
    for await (const [topic, data] of subscriber)
      subscriptions.get(topic.toString())?.(topic.length, 0, data.length, data[0], data)
  }
  const subscribe = async (topic, taken) => {
    subscriptions.set(topic, taken)
    if (subscriber === undefined) {
      subscriber = opened(new Subscriber(receives))
      subscriber.connect(subscribers)
      receive().catch(fatal)
    }
    subscriber.subscribe(topic)
  }
  const pull = async (taken) => {
    const puller = opened(new Pull(receives))
    await puller.bind(direct)
    const receiveMessages = async () => {
      for await (const [data] of puller) taken(undefined, 0, data.length, data[0], data)
    }
    receiveMessages().catch(fatal)
  }

  let dealer
  let requests
  const calls = new Map()
  let lastCall = 0
  const receiveReplies = async () => {
    for await (const [number, data] of dealer) {
      const key = number.readUInt32LE(0)
      const resolve = calls.get(key)
      calls.delete(key)
      resolve?.(data)
    }
  }
  const call = (_target, params) =>
    new Promise((resolve) => {
      if (dealer === undefined) {
        dealer = connected(new Dealer({ ...sends, ...receives }), direct)
        requests = sender(dealer, fatal)
        receiveReplies().catch(fatal)
      }
      lastCall += 1
      calls.set(lastCall, resolve)
      const number = Buffer.allocUnsafe(4)
      number.writeUInt32LE(lastCall)
      requests.send([number, params])
    })
  const serve = async () => {
    const router = opened(new Router({ ...sends, ...receives }))
    await router.bind(direct)
    const replies = sender(router, fatal)
    const answer = async () => {
      for await (const parts of router) replies.send(parts)
    }
    answer().catch(fatal)
  }

  return {
    subscribe,
    publish: (topic, payload) => publications.send([topic, payload]),
    listen: pull,
    send: (_target, payload) => messages.send(payload),
    settled: () => new Promise((resolve) => setTimeout(resolve, SETTLE)),
    drained: () => (messages ?? publications).sent(),
    call,
    serve,
    flush: () => (messages ?? publications).sent(),
    close() {
      isClosing = true
      for (const socket of sockets) socket.close()
    },
  }
}

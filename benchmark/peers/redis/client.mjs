// node-redis as a peer of a measurement: publications, and what can be made of them. One connection takes commands, the
// other is subscribed, each opened when it is needed, as its documentation has it.
import { createClient } from 'redis'
import { overTopics } from '../messages.mjs'

/** A client. */
export async function open(address, name) {
  const [host, port] = address.replace('tcp://', '').split(':')
  const connect = async () => {
    const client = createClient({
      socket: { host, port: Number(port), reconnectStrategy: false },
      // By default each command has a deadline with an AbortSignal of its own, which costs more than the command.
      commandOptions: { timeout: undefined },
    })
    client.on('error', fatal)
    return client.connect()
  }
  let isClosing = false
  const fatal = (error) => {
    if (!isClosing) throw error
  }
  let commands
  let subscriptions
  let last

  const subscribe = async (topic, callback) => {
    subscriptions ??= connect()
    // True: topic and message come as bytes.
    await (await subscriptions).subscribe(topic, callback, true)
  }
  const publish = (topic, payload) => {
    // It takes text and Buffers only, and nothing tells of back-pressure but the Promise.
    last = commands.publish(topic, Buffer.from(payload.buffer, payload.byteOffset, payload.length))
    last.catch(fatal)
    return true
  }
  const ready = async () => {
    commands ??= await connect()
  }
  const messages = overTopics(name, { subscribe, publish })
  return {
    ready: async () => {
      await ready()
      await messages.open()
    },
    subscribe: (topic, taken) =>
      subscribe(topic, (data, channel) => taken(channel.length, 0, data.length, data[0], data)),
    publish,
    listen: messages.listen,
    send: messages.send,
    drained: () => undefined,
    call: messages.call,
    serve: messages.serve,
    flush: () => last,
    async close() {
      isClosing = true
      commands?.destroy()
      const subscribed = await subscriptions
      subscribed?.destroy()
    },
  }
}

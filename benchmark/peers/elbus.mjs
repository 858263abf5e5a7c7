// This package as a peer of a measurement.
import { connect } from 'elbus-node'

/** A registered client. */
export async function open(address, name, { verb }) {
  // Payloads begin with any byte, so messages are to be taken as they are.
  const client = await connect(address, { name, rpc: verb !== 'send' })
  return {
    async subscribe(topic, taken) {
      const callback = (message) =>
        taken(message.topic.length, message.sender.length, message.data.length, message.data[0], message.data)
      await client.subscribe(topic, { callback }).ready
    },
    publish: (topic, payload) => client.publish(topic, payload),
    async listen(taken) {
      const callback = (message) =>
        taken(undefined, message.sender.length, message.data.length, message.data[0], message.data)
      await client.messages({ callback }).ready
    },
    send: (target, payload) => client.send(target, payload),
    drained: () => client.drained(),
    call: (target, params) => client.call(target, 'echo', params, { raw: true }),
    async serve() {
      client.serve({ echo: (params) => params }, { raw: true })
    },
    flush: () => client.flush(),
    close: () => client.close(),
  }
}

// This package as a peer of a measurement: what `publisher.mjs` and its like do with any of them.
import { connect } from 'elbus-node'

/** A registered client. */
export async function open(address, name) {
  const client = await connect(address, { name })
  return {
    /** `taken` is given what was read of each message. */
    async subscribe(topic, taken) {
      const callback = (message) =>
        taken(message.topic.length, message.sender.length, message.data.length, message.data[0], message.data)
      await client.subscribe(topic, { callback }).ready
    },
    publish: (topic, payload) => client.publish(topic, payload),
    drained: () => client.drained(),
    call: (target, params) => client.call(target, 'echo', params, { raw: true }),
    async serve() {
      client.serve({ echo: (params) => params }, { raw: true })
    },
    flush: () => client.flush(),
    close: () => client.close(),
  }
}

// nats.js as a peer of a measurement.
import { connect } from '@nats-io/transport-node'

/** A connection. */
export async function open(address, name) {
  const nats = await connect({
    servers: address.replace('tcp://', ''),
    name,
    reconnect: false,
    noAsyncTraces: true,
  })
  nats.closed().then((error) => {
    if (error) throw error
  })
  return {
    async subscribe(topic, taken) {
      const callback = (error, message) => {
        if (error) throw error
        const { subject, sid, data } = message
        taken(subject.length, sid, data.length, data[0], data)
      }
      nats.subscribe(topic, { callback })
      await nats.flush()
    },
    // It has no back-pressure to tell of.
    publish(topic, payload) {
      nats.publish(topic, payload)
      return true
    },
    drained: () => undefined,
    call: async (target, params) => (await nats.request(target, params, { timeout: 5_000 })).data,
    async serve() {
      nats.subscribe(name, { callback: (_, message) => void message.respond(message.data) })
      await nats.flush()
    },
    flush: () => nats.flush(),
    close: () => nats.close(),
  }
}

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
  const subscribe = async (topic, callback) => {
    nats.subscribe(topic, {
      callback: (error, message) => {
        if (error) throw error
        callback(message)
      },
    })
    await nats.flush()
  }
  // It has no back-pressure to tell of.
  const publish = (topic, payload) => {
    nats.publish(topic, payload)
    return true
  }
  return {
    subscribe: (topic, taken) =>
      subscribe(topic, ({ subject, sid, data }) => taken(subject.length, sid, data.length, data[0], data)),
    publish,
    // A message to one client is a publication nobody else is subscribed to.
    listen: (taken) => subscribe(name, ({ sid, data }) => taken(undefined, sid, data.length, data[0], data)),
    send: publish,
    drained: () => undefined,
    call: async (target, params) => (await nats.request(target, params, { timeout: 5_000 })).data,
    serve: () => subscribe(name, (message) => void message.respond(message.data)),
    flush: () => nats.flush(),
    close: () => nats.close(),
  }
}

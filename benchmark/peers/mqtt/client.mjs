// MQTT.js as a peer of a measurement, at Mosquitto and at Aedes. Quality of service 0: what the others give.
import { connectAsync } from 'mqtt'
import { overTopics } from '../messages.mjs'

/** A connection. */
export async function open(address, name) {
  const client = await connectAsync(address.replace('tcp:', 'mqtt:'), {
    clientId: name,
    protocolVersion: 4,
    reconnectPeriod: 0,
  })
  client.on('error', (error) => {
    throw error
  })
  client.stream.setNoDelay?.(true)
  const callbacks = new Map()
  client.on('message', (topic, data) => callbacks.get(topic)?.(data, topic))
  const subscribe = async (topic, callback) => {
    callbacks.set(topic, callback)
    await client.subscribeAsync(topic, { qos: 0 })
  }
  const publish = (topic, payload) => {
    // It takes text and Buffers only, and tells nothing of back-pressure.
    client.publish(topic, Buffer.from(payload.buffer, payload.byteOffset, payload.length))
    return true
  }
  const messages = overTopics(name, { subscribe, publish })
  return {
    ready: messages.open,
    subscribe: (topic, taken) =>
      subscribe(topic, (data, name) => taken(name.length, 0, data.length, data[0], data)),
    publish,
    listen: messages.listen,
    send: messages.send,
    drained: () => undefined,
    call: messages.call,
    serve: messages.serve,
    flush: () => client.publishAsync('flush', ''),
    close: () => client.endAsync(true),
  }
}

// Messages to one client, and calls, on a bus that has topics only: a topic for each client that nobody else subscribes
// to, and messages that begin with a number and say where the answer goes.

/**
 * `subscribe(topic, callback)` gives each message's bytes as a `Buffer`, `publish(topic, bytes)` takes one. What is
 * returned has `open()`, which comes first, and the verbs of a client.
 */
export function overTopics(name, { subscribe, publish }) {
  const replyTopic = `reply/${name}`
  const calls = new Map()
  const topics = new Map()
  let lastCall = 0
  let isOpen

  const topicOf = (target) => {
    let topic = topics.get(target)
    if (topic === undefined) {
      topic = `inbox/${target}`
      topics.set(target, topic)
    }
    return topic
  }
  const open = () => {
    isOpen ??= subscribe(replyTopic, (data) => {
      const number = data.readUInt32LE(0)
      const resolve = calls.get(number)
      calls.delete(number)
      resolve?.(data.subarray(4))
    })
    return isOpen
  }
  return {
    open,
    send: (target, payload) => publish(topicOf(target), payload),
    listen: (taken) => subscribe(topicOf(name), (data) => taken(undefined, 0, data.length, data[0], data)),
    call: (target, params) =>
      new Promise((resolve) => {
        lastCall += 1
        calls.set(lastCall, resolve)
        const head = Buffer.from(`\0\0\0\0\0${replyTopic}`)
        head.writeUInt32LE(lastCall)
        head[4] = replyTopic.length
        publish(topicOf(target), Buffer.concat([head, params]))
      }),
    serve: () =>
      subscribe(topicOf(name), (data) => {
        const bodyAt = 5 + data[4]
        const reply = data.latin1Slice(5, bodyAt)
        publish(reply, Buffer.concat([data.subarray(0, 4), data.subarray(bodyAt)]))
      }),
  }
}

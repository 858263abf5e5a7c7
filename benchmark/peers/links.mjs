// A client of what is directly at the other end: child processes or worker threads, or whoever started this one.
// Messages are objects, copied as Node copies them.

/**
 * `links` have `send(message)` and `listen(taken)`. A publication goes to all of them, a message or call to the first.
 */
export function overLinks(links, close) {
  const callbacks = new Map()
  const calls = new Map()
  let lastCall = 0
  let listener
  let isServing = false

  for (const link of links) {
    link.listen((message) => {
      const { topic, data, call, reply } = message
      if (topic !== undefined) callbacks.get(topic)?.(topic.length, 0, data.length, data[0], data)
      else if (call !== undefined) {
        if (isServing) link.send({ reply: call, data })
      } else if (reply !== undefined) {
        const resolve = calls.get(reply)
        calls.delete(reply)
        resolve?.(data)
      } else listener?.(undefined, 0, data.length, data[0], data)
    })
  }
  return {
    async subscribe(topic, taken) {
      callbacks.set(topic, taken)
    },
    publish(topic, data) {
      const message = { topic, data }
      for (const link of links) link.send(message)
      return true
    },
    async listen(taken) {
      listener = taken
    },
    send(_target, data) {
      links[0].send({ data })
      return true
    },
    drained: () => undefined,
    call: (_target, data) =>
      new Promise((resolve) => {
        lastCall += 1
        calls.set(lastCall, resolve)
        links[0].send({ call: lastCall, data })
      }),
    async serve() {
      isServing = true
    },
    flush: () => undefined,
    close,
  }
}

// Run by hazards.spec.ts in a process of its own: much of one thing, and what it costs.

import { readFileSync } from 'node:fs'
import { Broker, type Client, connect } from 'elbus-node'

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

/** Bytes of a field of /proc/self/status. */
function memory(field: 'VmHWM' | 'VmRSS'): number {
  const text = readFileSync('/proc/self/status', 'utf8')
  return Number(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(text)?.[1]) * 1024
}

/** Clients that reach the broker in the wanted way. */
async function clients(broker: Broker, path: string, way: string, names: string[]): Promise<Client[]> {
  if (way === 'socket') await broker.listen(path)
  return Promise.all(names.map((name) => (way === 'socket' ? connect(path, { name }) : broker.client(name))))
}

/** Sends `count` messages of 100 B through one subscription as fast as it takes them. */
async function pass(sender: Client, count: number): Promise<void> {
  const payload = new Uint8Array(100).fill(120)
  for (let sent = 0; sent < count; ) {
    let isFree = true
    for (let index = 0; index < 1_000 && isFree && sent < count; index += 1) {
      isFree = sender.publish('t/1', payload)
      sent += 1
    }
    if (!isFree) await sender.drained()
    await turn()
  }
}

/** Peak memory after each tenth of the messages. */
async function messages(path: string, way: string, count: number): Promise<unknown> {
  const broker = await Broker.start()
  const [sender, receiver] = (await clients(broker, path, way, ['sender', 'receiver'])) as [Client, Client]
  let refused = 0
  sender.on('refused', () => (refused += 1))
  let received = 0
  let bytes = 0
  const callback = way !== 'iterator'
  const subscription = receiver.subscribe('t/#', {
    callback: callback
      ? ({ data, topic, sender: from }) => {
          received += 1
          bytes += data.length + (topic as string).length + from.length
        }
      : undefined,
  })
  await subscription.ready
  if (!callback) {
    void (async () => {
      for await (const { data, topic, sender: from } of subscription) {
        received += 1
        bytes += data.length + (topic as string).length + from.length
      }
    })()
  }
  const peaks: number[] = []
  for (let tenth = 1; tenth <= 10; tenth += 1) {
    await pass(sender, count / 10)
    while (received + refused + subscription.dropped + broker.stats().refused < (tenth * count) / 10)
      await turn()
    peaks.push(memory('VmHWM'))
  }
  const lost = refused + subscription.dropped + broker.stats().refused
  return { received, lost, complete: bytes === received * (100 + 3 + 6), peaks }
}

/** Clients that come and go. */
async function coming(path: string, way: string, count: number): Promise<unknown> {
  const broker = await Broker.start({ connections: 100_000 })
  const [main] = (await clients(broker, path, way, ['main'])) as [Client]
  main.serve({ echo: (params: unknown) => params })
  const peaks: number[] = []
  for (let index = 0; index < count; index += 1) {
    const name = `client${index}`
    const client = way === 'socket' ? await connect(path, { name }) : await broker.client(name)
    client.subscribe(`a/${index}`, { callback: () => undefined })
    await client.call('main', 'echo', index)
    await client.close()
    if (index % Math.ceil(count / 10) > 0) continue
    // Twice, because what a finalizer lets go of is collected by the next.
    globalThis.gc?.()
    await turn()
    globalThis.gc?.()
    peaks.push(memory('VmRSS'))
  }
  return { left: broker.clients('client').length, peaks }
}

/** Everything unreachable is collected in the middle of its traffic. */
async function garbage(path: string, _way: string, count: number): Promise<unknown> {
  const collect = globalThis.gc as () => void
  const main = await Broker.start({ listen: [path] })
  const kept = await main.client('kept')
  let received = 0
  await kept.subscribe('#', { callback: () => (received += 1) }).ready
  for (let round = 0; round < count; round += 1) {
    // Nobody keeps any of these.
    await (async () => {
      const broker = await Broker.start({ workers: 1 })
      const [one, two] = [await broker.client('one'), await connect(path, { name: `socket${round}` })]
      const three = await main.client(`local${round}`)
      for (const client of [one, two, three]) {
        client.serve({ echo: (params: unknown) => params, never: () => new Promise(() => undefined) })
        client.subscribe(['a/#', 'b'], { callback: () => undefined })
        void client.call(client.name, 'echo', 'x'.repeat(10_000)).catch(() => undefined)
        void client.call(client.name, 'never', null, { timeout: 10 }).catch(() => undefined)
        for (let index = 0; index < 20; index += 1) client.publish('a/b', new Uint8Array(index * 500))
        void client.messages()[Symbol.asyncIterator]()
      }
      if (round % 3 === 0) void broker.close({ drain: 0 })
      if (round % 3 === 1) void two.close()
    })()
    collect()
    await turn()
    if (round % 5 === 0) collect()
  }
  const before = received
  await kept.publish('x', 'y', { ack: true })
  while (received === before) await turn()
  return { alive: kept.connected, received: received > count }
}

const [scenario, path = '', way = '', count] = process.argv.slice(2)
const run = { messages, coming, garbage }[scenario as 'messages']
void run(path, way, Number(count)).then((result) => {
  console.log(JSON.stringify(result))
  process.exit(0)
})

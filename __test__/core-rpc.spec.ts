// What `.broker` answers and announces, asked through the public API.

import test from 'ava'
import { AaaMap, connect, RpcError } from 'elbus-node'
import { reasonOf, rejectsBus } from './support/bus-error'
import { next } from './support/messages'
import { socketPath } from './support/temp'
import { ALL, closing, overEach, startBroker, startBus } from './support/transports'
import { until } from './support/within'

interface Listed {
  name: string
  kind: string
  source: string | null
  port: string | null
  r_frames: number
  r_bytes: number
  w_frames: number
  w_bytes: number
  queue: number
  instances: number
}

interface Announcement {
  s: string
  d?: string
  t: number | bigint
}

overEach(ALL, 'test and info', async (t, bus) => {
  const client = await bus.open('one')
  t.deepEqual(await client.call('.broker', 'test'), { ok: true })
  t.deepEqual(await client.call('.broker', 'info'), bus.broker.info())
})

overEach(ALL, 'stats are those of the broker', async (t, bus) => {
  const client = await bus.open('one')
  await client.publish('a/b', 'x'.repeat(1_000), { ack: true })
  const stats = await client.call<Record<string, number>>('.broker', 'stats')
  t.deepEqual(Object.keys(stats), ['uptime', 'r_frames', 'r_bytes', 'w_frames', 'w_bytes'])
  t.true(Object.values(stats).every((value) => Number.isInteger(value) && value >= 0))
  t.true((stats.r_frames as number) >= 2)
  t.true((stats.r_bytes as number) >= 1_000)
  const { received, sent, uptime } = bus.broker.stats()
  t.true(received.frames >= (stats.r_frames as number))
  t.true(sent.bytes >= (stats.w_bytes as number))
  // The wire counts in seconds, the API in milliseconds.
  t.true(uptime + 1 >= (stats.uptime as number) * 1_000)
})

overEach(ALL, 'client.list tells who is there, by name', async (t, bus) => {
  const one = await bus.open('one')
  await bus.open('a.two')
  closing(t, await one.secondary())
  const { clients } = await one.call<{ clients: Listed[] }>('.broker', 'client.list')
  t.deepEqual(
    clients.map(({ name, instances }) => [name, instances]),
    [
      ['.broker', 1],
      ['a.two', 1],
      ['one', 2],
    ],
  )
  const entry = clients[2] as Listed
  t.deepEqual(Object.keys(entry), [
    ...['name', 'kind', 'source', 'port', 'r_frames', 'r_bytes', 'w_frames', 'w_bytes', 'queue', 'instances'],
  ])
  t.is(
    entry.kind,
    { unix: 'local_ipc', tcp: 'tcp', inproc: 'internal', 'broker.client': 'internal' }[bus.transport],
  )
  t.is(entry.source === null, bus.transport !== 'tcp')
  t.is(entry.port === null, bus.transport === 'inproc' || bus.transport === 'broker.client')
  const [same] = bus.broker.clients('one')
  t.is(same?.kind as string | undefined, entry.kind)
  t.is(same?.source ?? null, entry.source)
  t.is(same?.port ?? null, entry.port)
  t.is(same?.instances, 2)
  t.true((same?.received.frames ?? 0) >= entry.r_frames)
})

overEach(ALL, 'client.list with a filter', async (t, bus) => {
  const client = await bus.open('one')
  for (const name of ['two', 'on.three', 'ONE']) await bus.open(name)
  const names = async (filter: unknown): Promise<string[]> => {
    const { clients } = await client.call<{ clients: Listed[] }>('.broker', 'client.list', { filter })
    return clients.map(({ name }) => name)
  }
  t.deepEqual(await names('on'), ['on.three', 'one'])
  t.deepEqual(await names('^on'), ['on.three', 'one'])
  t.deepEqual(await names('(?i)^one$'), ['ONE', 'one'])
  t.deepEqual(await names('nobody'), [])
  t.deepEqual(await names('^.broker$'), ['.broker'])
  t.deepEqual(await names(null), ['.broker', 'ONE', 'on.three', 'one', 'two'])
  t.is((await names('')).length, 5)
  for (const filter of ['(', 7, ['a'], 'x'.repeat(257), '(a{1000}){1000}']) {
    const error = (await reasonOf(names(filter))) as RpcError
    t.is(error.rpcCode, -32700, String(filter).slice(0, 20))
    t.is(typeof error.data, 'string')
  }
})

overEach(ALL, 'benchmark.test gives back what it was given', async (t, bus) => {
  const client = await bus.open('one')
  for (const size of [0, 1, 100, 70_000, 1_000_000]) {
    const bytes = new Uint8Array(size).map((_, index) => index * 7 + size)
    const result = await client.call<Uint8Array>('.broker', 'benchmark.test', bytes, { raw: true })
    t.is(Buffer.compare(result, bytes), 0, `${size} bytes`)
  }
  t.is(await client.call('.broker', 'benchmark.test'), undefined)
  t.deepEqual(await client.call('.broker', 'benchmark.test', { a: [1] }), { a: [1] })
})

overEach(ALL, 'unknown methods and params where none are expected', async (t, bus) => {
  const client = await bus.open('one')
  for (const method of ['', 'x', 'Test', 'client', 'client.list ']) {
    t.like(await reasonOf(client.call('.broker', method)), { rpcCode: -32601, data: undefined }, method)
  }
  for (const method of ['test', 'info', 'stats']) {
    for (const params of [{}, { a: 1 }, null, [], 'x', Uint8Array.of(0xc1)]) {
      t.like(await reasonOf(client.call('.broker', method, params)), { rpcCode: -32602 }, method)
    }
  }
})

/** Params that are no map with a filter, or would cost more than their bytes. */
const BOMBS: Readonly<Record<string, Buffer>> = {
  'an array of four thousand million': Buffer.from('ddffffffff', 'hex'),
  'a map of four thousand million': Buffer.from('dfffffffff', 'hex'),
  'a filter of 4 GiB': Buffer.from('81a666696c746572dbffffffff', 'hex'),
  'a hundred thousand arrays in each other': Buffer.alloc(100_000, 0x91),
  'a hundred thousand maps in each other': Buffer.concat(Array(100_000).fill(Buffer.from('81a161', 'hex'))),
  'a filter that is a hundred thousand arrays': Buffer.concat([
    Buffer.from('81a666696c746572', 'hex'),
    Buffer.alloc(100_000, 0x91),
    Buffer.from('c0', 'hex'),
  ]),
  'bytes behind the params': Buffer.from('81a666696c746572c001', 'hex'),
  'a byte that is no type': Buffer.from('c1', 'hex'),
  'half a map': Buffer.from('81a6', 'hex'),
  'a filter that is a number': Buffer.from('81a666696c74657201', 'hex'),
}

overEach(
  ALL,
  'C22: params of .broker that are bombs are answered -32700, and cost nothing',
  async (t, bus) => {
    const client = await bus.open('one')
    const before = process.memoryUsage().rss
    let sent = 0
    for (let round = 0; round < 20; round += 1) {
      for (const [title, bomb] of Object.entries(BOMBS)) {
        const error = await t.throwsAsync(
          client.call('.broker', 'client.list', bomb),
          { instanceOf: RpcError },
          title,
        )
        t.is(error.rpcCode, -32700, title)
        sent += 1
      }
    }
    t.is(sent, 200)
    // The bombs themselves are 400 KB, twenty times; memory of this process besides.
    t.true(process.memoryUsage().rss - before < 32 << 20)
    t.deepEqual(await client.call('.broker', 'test'), { ok: true })
  },
)

test('without the core RPC there is no .broker', async (t) => {
  const bus = await startBus(t, 'unix', { coreRpc: false })
  const client = await bus.open('one')
  await rejectsBus(t, () => client.call('.broker', 'test'), { code: 'ERR_BUS_NOT_REGISTERED' })
  t.deepEqual(
    bus.broker.clients().map(({ name }) => name),
    ['one'],
  )
  // What only `.broker` would tell is not told; everything else is as ever.
  const subscription = client.subscribe('.broker/info')
  await subscription.ready
  await bus.open('two')
  await client.flush()
  t.is(subscription.pending, 0)
})

test('client.list names only whom the caller may send to', async (t) => {
  const broker = await startBroker(t)
  const aaa = new AaaMap({ narrow: { p2p: ['.broker', 'a.*'] }, wide: {} })
  const address = await broker.listen({ url: `unix:${socketPath(t)}`, aaa })
  for (const name of ['a.b', 'b.a']) closing(t, await broker.client(name))
  const narrow = closing(t, await connect(address, { name: 'narrow' }))
  const wide = closing(t, await connect(address, { name: 'wide' }))
  const names = async (client: typeof wide): Promise<string[]> =>
    (await client.call<{ clients: Listed[] }>('.broker', 'client.list')).clients.map(({ name }) => name)
  t.deepEqual(await names(narrow), ['.broker', 'a.b'])
  t.deepEqual(await names(wide), ['.broker', 'a.b', 'b.a', 'narrow', 'wide'])
})

overEach(ALL, 'arrivals and departures of primaries are announced', async (t, bus) => {
  const watcher = await bus.open('watcher')
  const subscription = watcher.subscribe<Announcement>('.broker/info')
  await subscription.ready
  const one = await bus.open('one')
  const second = await one.secondary()
  await second.close()
  await one.close()
  for (const s of ['reg', 'unreg']) {
    const message = await next(subscription, s)
    t.like(message, { kind: 'publish', sender: '.broker', topic: '.broker/info' })
    const { t: time, ...rest } = message.decode()
    t.deepEqual(rest, { s, d: 'one' })
    // Nanoseconds since 1970.
    const seconds = Number(BigInt(time) / 1_000_000_000n)
    t.true(Math.abs(seconds - Date.now() / 1_000) < 60)
  }
  t.is(subscription.pending, 0)
})

overEach(ALL, 'the shutdown is announced to everybody who listens for it', async (t, bus) => {
  const client = await bus.open('one')
  const subscription = client.subscribe<Announcement>('.broker/warn')
  await subscription.ready
  const waiting = next(subscription, 'the announcement')
  const closed = bus.broker.close()
  const message = await waiting
  t.is(message.sender, '.broker')
  t.is(message.decode().s, 'shutdown')
  await closed
  await until(() => !client.connected, 'the client is disconnected')
})

overEach(ALL, 'topics of the broker are not published to by others', async (t, bus) => {
  const [eve, ann] = [await bus.open('eve'), await bus.open('ann')]
  const subscription = ann.subscribe('.broker/#')
  await subscription.ready
  for (const topic of ['.broker/info', '.broker/warn', '.broker/x']) {
    await rejectsBus(t, () => eve.publish(topic, 'forged', { ack: true }), {
      code: 'ERR_BUS_ACCESS',
      wireCode: 0x79,
    })
  }
  await ann.flush()
  t.is(subscription.pending, 0)
})

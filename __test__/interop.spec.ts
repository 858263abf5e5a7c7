// With the reference projects: their Python clients and command line tools on our brokers, our clients on their servers.

import type { ExecutionContext } from 'ava'
import { BusError, type Client, connect, type Message, RpcError, type Subscription } from 'elbus-node'
import { next } from './support/messages'
import { Program, programOf, startServer } from './support/program'
import { hex, PACKAGES, type Package, PythonPeer, python } from './support/python'
import { testIf } from './support/skip'
import { socketPath } from './support/temp'
import { closing, startBroker } from './support/transports'
import { soon, until } from './support/within'

const elbusd = programOf('ELBUSD')
const busrtd = programOf('BUSRTD')
const elbusdPeer = programOf('ELBUSD_PEER')
const busrtCli = programOf('BUSRT_CLI')
const elbusCli = programOf('ELBUS_CLI')

const DONE = 0x01
const NOT_REGISTERED = 0x71
const Op = { PUBLISH: 0x01, MESSAGE: 0x12, BROADCAST: 0x13, PUBLISH_FOR: 0x06 } as const

/** A broker in this process, at a socket. */
async function embedded(t: ExecutionContext): Promise<string> {
  return (await startBroker(t)).listen(`unix:${socketPath(t)}`)
}

async function join(t: ExecutionContext, address: string, name: string): Promise<Client> {
  return closing(t, await connect(address, { name }))
}

/** Kind, sender, topic and text of the next message. */
async function shown(subscription: Subscription): Promise<[string, string, string | undefined, string]> {
  const { kind, sender, topic, text } = await next(subscription).then((message: Message) => ({
    kind: message.kind,
    sender: message.sender,
    topic: message.topic,
    text: message.text(),
  }))
  return [kind, sender, topic, text]
}

/** Values and their MessagePack as every peer writes it: shortest form, 64 bits for what needs them. */
const VALUES: readonly (readonly [digits: string, value: unknown])[] = [
  ['c0', null],
  ['c2', false],
  ['c3', true],
  ['00', 0],
  ['7f', 127],
  ['cc80', 128],
  ['ccff', 255],
  ['cd0100', 256],
  ['cdffff', 65_535],
  ['ce00010000', 65_536],
  ['ceffffffff', 2 ** 32 - 1],
  ['cf0000000100000000', 2 ** 32],
  ['cf001fffffffffffff', Number.MAX_SAFE_INTEGER],
  ['cf0020000000000000', 2n ** 53n],
  ['cfffffffffffffffff', 2n ** 64n - 1n],
  ['ff', -1],
  ['e0', -32],
  ['d0df', -33],
  ['d080', -128],
  ['d1ff7f', -129],
  ['d18000', -32_768],
  ['d2ffff7fff', -32_769],
  ['d280000000', -(2 ** 31)],
  ['d3ffffffff7fffffff', -(2 ** 31) - 1],
  ['d3ffe0000000000001', Number.MIN_SAFE_INTEGER],
  ['d3ffe0000000000000', -(2n ** 53n)],
  ['d38000000000000000', -(2n ** 63n)],
  ['cb3ff8000000000000', 1.5],
  ['cbbfb999999999999a', -0.1],
  ['cb7fefffffffffffff', Number.MAX_VALUE],
  ['cb7ff0000000000000', Number.POSITIVE_INFINITY],
  ['cb7ff8000000000000', Number.NaN],
  ['a0', ''],
  ['a568656c6c6f', 'hello'],
  ['a56772c3bc6e', 'grün'],
  ['a4f09f9a80', '🚀'],
  [`d920${'61'.repeat(32)}`, 'a'.repeat(32)],
  [`da0100${'61'.repeat(256)}`, 'a'.repeat(256)],
  // In something, because bytes alone go as they are.
  ['91c400', [new Uint8Array(0)]],
  ['91c40300ff7f', [Uint8Array.of(0, 255, 127)]],
  [`91c50100${'07'.repeat(256)}`, [new Uint8Array(256).fill(7)]],
  ['90', []],
  ['9301a161c0', [1, 'a', null]],
  [`dc0010${'01'.repeat(16)}`, Array(16).fill(1)],
  ['80', {}],
  ['82a16101a16292c2c3', { a: 1, b: [false, true] }],
  ['81a16181a16281a163cb3ff8000000000000', { a: { b: { c: 1.5 } } }],
  // Integers stay integers beside a bigint.
  ['92cf0000010000000000cf1000000000000000', [2 ** 40, 2n ** 60n]],
  ['92d3ffffff0000000000cf1000000000000000', [-(2 ** 40), 2n ** 60n]],
  ['d6ff65000000', new Date(0x6500_0000 * 1_000)],
]

// ---- Python clients

/** Messages, publications and calls between our clients and one of Python, both ways. */
async function withPython(
  t: ExecutionContext,
  name: Package,
  address: string,
  knowsAll: boolean,
): Promise<void> {
  await withClient(t, name, address, await join(t, address, 'node.a'), knowsAll)
}

async function withClient(
  t: ExecutionContext,
  name: Package,
  address: string,
  client: Client,
  knowsAll: boolean,
): Promise<void> {
  const py = await PythonPeer.start(t, name, address, 'py.a', 'messages')
  await exchange(t, py, client)
  if (knowsAll) await narrowed(t, py, client)
  const called = await PythonPeer.start(t, name, address, 'py.rpc', 'rpc')
  await pythonCalls(t, called, client)
  await nodeCalls(t, called, client)
  await givenUp(t, called, client)
}

async function exchange(t: ExecutionContext, py: PythonPeer, client: Client): Promise<void> {
  const messages = client.messages()
  t.is(await py.send(Op.MESSAGE, 'node.a', 'to one\0client'), DONE)
  t.deepEqual(await shown(messages), ['message', 'py.a', undefined, 'to one\0client'])
  t.is(await py.send(Op.BROADCAST, 'node.*', 'to all'), DONE)
  t.deepEqual(await shown(messages), ['broadcast', 'py.a', undefined, 'to all'])
  t.is(await py.send(Op.MESSAGE, 'node.a', 'realtime', { qos: 3 }), DONE)
  t.true((await next(messages)).realtime)
  t.is(await py.send(Op.MESSAGE, 'node.b', 'nobody'), NOT_REGISTERED)

  const subscription = client.subscribe(['from/py/+', 'deep/#'])
  await subscription.ready
  t.is(await py.send(Op.PUBLISH, 'from/py', 'not this'), DONE)
  t.is(await py.send(Op.PUBLISH, 'from/py/1', 'news'), DONE)
  t.deepEqual(await shown(subscription), ['publish', 'py.a', 'from/py/1', 'news'])
  t.is(await py.send(Op.PUBLISH, 'deep/er/and/deeper', ''), DONE)
  t.deepEqual(await shown(subscription), ['publish', 'py.a', 'deep/er/and/deeper', ''])
  await subscription.unsubscribe()

  await client.send('py.a', 'to Python', { ack: true })
  t.deepEqual(await py.received(), frame(Op.MESSAGE, null, 'to Python'))
  await client.broadcast('py.?', 'to all of Python', { ack: true })
  t.deepEqual(await py.received(), frame(Op.BROADCAST, null, 'to all of Python'))
  t.is((await py.command({ do: 'subscribe', masks: ['to/py/+', 'more/#'] })).code, DONE)
  await client.publish('to/py/1', 'news', { ack: true })
  t.deepEqual(await py.received(), frame(Op.PUBLISH, 'to/py/1', 'news'))
  await client.publish('to/py', 'not this', { ack: true })
  await client.publish('more/and/more', '', { ack: true })
  t.deepEqual(await py.received(), frame(Op.PUBLISH, 'more/and/more', ''))
  t.is((await py.command({ do: 'unsubscribe', masks: ['to/py/+'] })).code, DONE)
  await client.publish('to/py/1', 'no more', { ack: true })
  await client.publish('more/x', 'the last', { ack: true })
  t.deepEqual(await py.received(), frame(Op.PUBLISH, 'more/x', 'the last'))

  const large = 'x'.repeat(1 << 20)
  t.is(await py.send(Op.MESSAGE, 'node.a', large), DONE)
  t.true((await next(messages)).text() === large)
  await client.send('py.a', large, { ack: true })
  t.true((await py.received()).payload === hex(large))
  await messages.unsubscribe()
}

/** What Python received from our client. */
function frame(kind: number, topic: string | null, payload: string): object {
  return { frame: kind, sender: 'node.a', topic, payload: hex(payload) }
}

/** Operations elbus 0.2 does not know. */
async function narrowed(t: ExecutionContext, py: PythonPeer, client: Client): Promise<void> {
  const subscription = client.subscribe('for/#')
  await subscription.ready
  const header = hex('node.a\0')
  t.is(await py.send(Op.PUBLISH_FOR, 'for/you', 'yours', { header }), DONE)
  t.deepEqual(await shown(subscription), ['publish', 'py.a', 'for/you', 'yours'])
  await client.exclude('for/none/#')
  t.is(await py.send(Op.PUBLISH, 'for/none/x', 'no'), DONE)
  await client.unexclude('for/none/#')
  t.is(await py.send(Op.PUBLISH, 'for/none/y', 'yes'), DONE)
  t.deepEqual(await shown(subscription), ['publish', 'py.a', 'for/none/y', 'yes'])
  await subscription.unsubscribe()
  t.is((await py.command({ do: 'subscribe', masks: ['for/#'] })).code, DONE)
  await client.publish('for/x', 'others', { for: 'node.a', ack: true })
  await client.publish('for/x', 'Python', { for: 'py.a', ack: true })
  t.deepEqual(await py.received(), frame(Op.PUBLISH, 'for/x', 'Python'))
  t.is((await py.command({ do: 'unsubscribe', masks: ['for/#'] })).code, DONE)
}

async function pythonCalls(t: ExecutionContext, py: PythonPeer, client: Client): Promise<void> {
  const told: unknown[] = []
  const noted: [string, string][] = []
  const server = client.serve(
    {
      echo: (params: unknown) => {
        told.push(params)
        return params
      },
      later: async () => ({ later: true }),
      nothing: () => undefined,
      fail: () => {
        throw new RpcError(-5, 'on purpose')
      },
      bug: () => {
        throw new Error('a bug')
      },
    },
    {
      onNotification: (data, { sender }) => {
        noted.push([sender, Buffer.from(data).toString()])
      },
    },
  )
  client.once('fault', () => undefined)
  const call = async (method: string, params = '') =>
    py.command({ do: 'call', target: 'node.a', method, params })
  for (const [digits, value] of VALUES) {
    t.deepEqual(await call('echo', digits), { did: 'call', result: digits })
    t.deepEqual(told.pop(), value)
  }
  t.deepEqual(await call('later'), { did: 'call', result: '81a56c61746572c3' })
  t.deepEqual(await call('nothing'), { did: 'call', result: '' })
  t.deepEqual(await call('fail'), { did: 'call', error: -5, data: hex('on purpose') })
  t.deepEqual(await call('bug'), { did: 'call', error: -32603, data: '' })
  t.deepEqual(await call('absent'), { did: 'call', error: -32601, data: '' })
  t.is((await call('echo', 'c1')).error, -32700)
  t.is(
    (await py.command({ do: 'call', target: 'node.b', method: 'echo', params: '' })).error,
    -32000 - NOT_REGISTERED,
  )
  t.is((await py.command({ do: 'call0', target: 'node.a', method: 'echo', params: '2a' })).code, DONE)
  await until(() => told.length > 0, 'a call that wants no answer')
  t.deepEqual(told, [42])
  t.is((await py.command({ do: 'notify', target: 'node.a', payload: hex('hear') })).code, DONE)
  await until(() => noted.length > 0, 'a notification')
  t.deepEqual(noted, [['py.rpc', 'hear']])
  server.close()
}

async function nodeCalls(t: ExecutionContext, py: PythonPeer, client: Client): Promise<void> {
  for (const [digits, value] of VALUES) {
    t.deepEqual(await client.call('py.rpc', 'echo', value), value)
    t.is((await py.received()).params, digits)
  }
  const bytes = Buffer.from([0xc1, 0x00, 0xff])
  t.deepEqual(Buffer.from(await client.call<Uint8Array>('py.rpc', 'echo', bytes, { raw: true })), bytes)
  t.is((await py.received()).params, 'c100ff')
  t.is(await client.call('py.rpc', 'nothing'), undefined)
  t.is((await py.received()).params, '')
  for (const [method, code, data] of [
    ['fail', -5, 'on purpose'],
    ['bug', -32603, 'a bug'],
    ['absent', -32601, 'no absent'],
  ] as const) {
    const error = await t.throwsAsync(client.call('py.rpc', method), { instanceOf: RpcError })
    t.is(error.rpcCode, code)
    t.is(error.data, data)
    t.is((await py.received()).call, method)
  }
  await client.call('py.rpc', 'nothing', 7, { reply: false })
  t.deepEqual(await py.received(), { call: 'nothing', sender: 'node.a', params: '07', id: 0 })
  t.true(client.notify('py.rpc', 'hear'))
  t.deepEqual(await py.received(), { notification: hex('hear'), sender: 'node.a' })
  const many = Array.from({ length: 100 }, (_, index) => client.call('py.rpc', 'echo', index))
  t.deepEqual(await soon(Promise.all(many), 'a hundred calls at once'), [...Array(100).keys()])
  for (let index = 0; index < 100; index += 1) t.is((await py.received()).call, 'echo')
}

/** A call that is given up makes our client ask whether the callee knows cancelling, which Python does not. */
async function givenUp(t: ExecutionContext, py: PythonPeer, client: Client): Promise<void> {
  const gone = new AbortController()
  const given = client.call('py.rpc', 'echo', 1, { signal: gone.signal })
  gone.abort(new Error('given up'))
  await t.throwsAsync(given, { message: 'given up' })
  t.is((await py.received()).params, '01')
  t.is(await client.call('py.rpc', 'echo', 2), 2)
  t.is((await py.received()).params, '02')
  t.false(/invalid/i.test(py.program.output), 'the package took offence at the question')
}

for (const name of PACKAGES) {
  testIf(python.reason)(`Python package ${name} with a broker in this process`, async (t) => {
    await withPython(t, name, await embedded(t), true)
  })

  testIf(python.reason ?? elbusd.reason)(`Python package ${name} with elbusd`, async (t) => {
    await withPython(t, name, await startServer(t, elbusd.path), true)
  })

  testIf(python.reason ?? busrtd.reason)(`Python package ${name} with our client on busrtd`, async (t) => {
    await withPython(t, name, await startServer(t, busrtd.path), true)
  })

  testIf(python.reason ?? elbusdPeer.reason)(
    `Python package ${name} with our client on elbusd 0.2`,
    async (t) => {
      await withPython(t, name, await startServer(t, elbusdPeer.path), false)
    },
  )
}

testIf(python.reason)('a Python client and a client in the process of the broker', async (t) => {
  const broker = await startBroker(t)
  const address = await broker.listen(`unix:${socketPath(t)}`)
  await withClient(t, 'busrt', address, closing(t, await broker.client('node.a')), true)
  t.deepEqual(
    broker.clients().map(({ name, kind }) => [name, kind]),
    [
      ['.broker', 'internal'],
      ['node.a', 'internal'],
      ['py.a', 'local_ipc'],
      ['py.rpc', 'local_ipc'],
    ],
  )
})

testIf(python.reason)('a Python client calls the broker itself', async (t) => {
  const address = await embedded(t)
  const py = await PythonPeer.start(t, 'busrt', address, 'py.a', 'rpc')
  const call = (method: string, params = '') => py.command({ do: 'call', target: '.broker', method, params })
  t.deepEqual(await call('test'), { did: 'call', result: '81a26f6bc3' })
  t.true((await call('client.list')).result?.includes(hex('py.a')))
  t.is((await call('info', '80')).error, -32602)
  t.is((await call('none')).error, -32601)
})

// ---- our clients on servers

/** Everything two of our clients do with each other over a server. */
async function betweenClients(t: ExecutionContext, address: string, knowsAll: boolean): Promise<void> {
  const [a, b] = [await join(t, address, 'node.a'), await join(t, address, 'node.b')]
  const messages = b.messages()
  await a.send('node.b', 'one', { ack: true })
  t.deepEqual(await shown(messages), ['message', 'node.a', undefined, 'one'])
  t.true(a.send('node.b', 'two'))
  t.deepEqual(await shown(messages), ['message', 'node.a', undefined, 'two'])
  await a.send('node.b', 'at once', { ack: true, realtime: true })
  t.true((await next(messages)).realtime)
  await a.broadcast('node.?', 'three', { ack: true })
  t.deepEqual(await shown(messages), ['broadcast', 'node.a', undefined, 'three'])
  const missing = await t.throwsAsync(a.send('node.c', 'x', { ack: true }), {
    code: 'ERR_BUS_NOT_REGISTERED',
  })
  t.is((missing as BusError).wireCode, NOT_REGISTERED)

  const subscription = b.subscribe(['t/+', 'deep/#'])
  await subscription.ready
  await a.publish('t', 'no', { ack: true })
  await a.publish('t/1', 'yes', { ack: true })
  t.deepEqual(await shown(subscription), ['publish', 'node.a', 't/1', 'yes'])
  const both = b.subscribe('t/1')
  await both.ready
  a.publish('t/1', 'to both')
  t.is((await next(subscription)).text(), 'to both')
  t.is((await next(both)).text(), 'to both')
  await subscription.unsubscribe()
  await a.publish('deep/x', 'no', { ack: true })
  await a.publish('t/1', 'still', { ack: true })
  t.is((await next(both)).text(), 'still')
  t.is(both.pending, 0)
  await both.unsubscribe()

  const handler = b.serve({
    echo: (params: unknown) => params,
    fail: () => {
      throw new RpcError(7, { why: 'on purpose' })
    },
    wait: (_params: unknown, { signal }) =>
      new Promise((_resolve, reject) => {
        signal.addEventListener('abort', () => reject(new RpcError(8, 'given up')))
      }),
  })
  for (const [, value] of VALUES) t.deepEqual(await a.call('node.b', 'echo', value), value)
  const failed = await t.throwsAsync(a.call('node.b', 'fail'), { instanceOf: RpcError })
  t.is(failed.rpcCode, 7)
  t.is((await t.throwsAsync(a.call('node.b', 'absent'), { instanceOf: RpcError })).rpcCode, -32601)
  await t.throwsAsync(a.call('node.c', 'echo'), { code: 'ERR_BUS_NOT_REGISTERED' })
  const large = Buffer.alloc(3 << 20, 7)
  const echoed = await soon(a.call<{ large: Uint8Array }>('node.b', 'echo', { large }), 'a large call')
  t.true(large.equals(echoed.large))
  // Cancelling is arranged between the two, over a server that knows nothing of it.
  const gone = new AbortController()
  const waiting = a.call('node.b', 'wait', undefined, { signal: gone.signal })
  await a.flush()
  await until(() => handler.active === 1, 'the call')
  gone.abort(new Error('given up'))
  await t.throwsAsync(waiting, { message: 'given up' })
  await until(() => handler.active === 0, 'the handler is told')
  t.true(a.connected && b.connected)
  t.true((await a.rtt()) >= 0)

  const info = await a.call<{ author: string; version: string }>('.broker', 'info')
  t.is(typeof info.version, 'string')
  const { clients } = await a.call<{ clients: { name: string }[] }>('.broker', 'client.list')
  t.true(['node.a', 'node.b'].every((name) => clients.some((client) => client.name === name)))

  const second = closing(t, await a.secondary())
  await second.send('node.b', 'from the second', { ack: true })
  const message = await next(messages)
  t.deepEqual([message.sender, message.primarySender], [second.name, 'node.a'])
  await t.throwsAsync(connect(address, { name: 'node.a' }), { code: 'ERR_BUS_BUSY' })
  if (knowsAll) await narrowedByClients(t, a, b)
}

async function narrowedByClients(t: ExecutionContext, a: Client, b: Client): Promise<void> {
  const subscription = b.subscribe('n/#')
  await subscription.ready
  await a.publish('n/1', 'not for b', { for: 'node.a', ack: true })
  await a.publish('n/1', 'for b', { for: 'node.b', ack: true })
  t.is((await next(subscription)).text(), 'for b')
  await b.exclude(['n/no', 'n/none/#'])
  for (const topic of ['n/no', 'n/none/x', 'n/yes']) await a.publish(topic, topic, { ack: true })
  t.is((await next(subscription)).text(), 'n/yes')
  await b.unexclude('n/no')
  for (const topic of ['n/none/x', 'n/no']) await a.publish(topic, topic, { ack: true })
  t.is((await next(subscription)).text(), 'n/no')
}

testIf(elbusd.reason)('our clients on elbusd', async (t) => {
  await betweenClients(t, await startServer(t, elbusd.path), true)
})

testIf(busrtd.reason)('our clients on busrtd', async (t) => {
  await betweenClients(t, await startServer(t, busrtd.path), true)
})

testIf(elbusdPeer.reason)('our clients on elbusd 0.2', async (t) => {
  await betweenClients(t, await startServer(t, elbusdPeer.path), false)
})

testIf(elbusdPeer.reason)(
  'what elbusd 0.2 does not know costs the connection, and the client says so',
  async (t) => {
    const address = await startServer(t, elbusdPeer.path)
    const operations: ((client: Client) => Promise<void>)[] = [
      (client) => client.publish('t', 'x', { for: 'somebody', ack: true }),
      (client) => client.exclude('t'),
      (client) => client.unexclude('t'),
    ]
    for (const [index, operation] of operations.entries()) {
      const client = await join(t, address, `node.${index}`)
      const error = await t.throwsAsync(soon(operation(client), 'an answer'), { instanceOf: BusError })
      t.is(error.code, 'ERR_BUS_DISCONNECTED', error.message)
      t.is(await soon(client.closed, 'the end'), error)
    }
    t.true((await join(t, address, 'node.a')).connected)
  },
)

for (const [title, server] of [
  ['elbusd', elbusd],
  ['busrtd', busrtd],
  ['elbusd 0.2', elbusdPeer],
] as const) {
  testIf(server.reason)(`our client over TCP on ${title}`, async (t) => {
    // A port that was free a moment ago: the servers of the reference cannot be asked which one they took.
    const probe = await startBroker(t)
    const address = await probe.listen('tcp://127.0.0.1:0')
    await probe.close()
    await startServer(t, server.path, '-B', address.replace('tcp://', ''))
    const [a, b] = [await join(t, address, 'node.a'), await join(t, address, 'node.b')]
    b.serve({ echo: (params: unknown) => params })
    t.deepEqual(await soon(a.call('node.b', 'echo', [1, 2n ** 64n - 1n]), 'a call'), [1, 2n ** 64n - 1n])
  })
}

// ---- command line tools

interface Tools {
  readonly title: string
  readonly cli: { path: string; reason: string | undefined }
  /** It may crash where it prints a table, so its status says nothing. */
  readonly tablesFail: boolean
}

const TOOLS: readonly Tools[] = [
  { title: 'the command line tool busrt', cli: busrtCli, tablesFail: false },
  { title: 'the command line tool elbus 0.2', cli: elbusCli, tablesFail: true },
]

for (const { title, cli, tablesFail } of TOOLS) {
  const start = (t: ExecutionContext, address: string, name: string, ...args: string[]): Program =>
    new Program(t, cli.path, ['-s', '-n', name, address.replace(/^unix:/, ''), ...args])
  /** Runs it to its end, which is to be a good one; what it printed, without white space. */
  const run = async (
    t: ExecutionContext,
    address: string,
    name: string,
    ...args: string[]
  ): Promise<string> => {
    const { status, output } = await start(t, address, name, ...args).finish()
    t.is(status, 0, `${args.join(' ')}:\n${output}`)
    return output.replace(/\s/g, '')
  }

  testIf(cli.reason)(`${title} listens to a broker in this process`, async (t) => {
    const address = await embedded(t)
    const client = await join(t, address, 'node.a')
    const listener = start(t, address, 'cli.a', 'listen', '-t', 'a/#', '-t', 'b/+')
    await listener.expect('Listening to ')
    await client.send('cli.a', 'hello', { ack: true })
    await listener.expect('Message from node.a', 'hello')
    await client.broadcast('cli.*', 'everyone', { ack: true })
    await listener.expect('Broadcast from node.a', 'everyone')
    await client.publish('b/c/d', 'not this', { ack: true })
    await client.publish('a/b/c', 'news', { ack: true })
    await listener.expect('Publish from node.a', 'topic: a/b/c', 'news')
    t.false(listener.output.includes('not this'))
    const calls = start(t, address, 'cli.b', 'rpc', 'listen')
    await calls.expect('Listening to ')
    t.true(client.notify('cli.b', 'a note'))
    await calls.expect('Notification from node.a', 'a note')
    t.is(await client.call('cli.b', 'method', { a: 1, b: 'x' }), undefined)
    await calls.expect('method: method', 'from node.a', '"a"', '"b"')
  })

  testIf(cli.reason)(`${title} sends, publishes and calls through a broker in this process`, async (t) => {
    const address = await embedded(t)
    const client = await join(t, address, 'node.a')
    const messages = client.messages()
    const subscription = client.subscribe('#')
    await subscription.ready
    t.is(await run(t, address, 'cli.a', 'send', 'node.a', 'hello'), 'OK')
    t.deepEqual(await shown(messages), ['message', 'cli.a', undefined, 'hello'])
    t.is(await run(t, address, 'cli.a', 'send', 'node.*', 'everyone'), 'OK')
    t.deepEqual(await shown(messages), ['broadcast', 'cli.a', undefined, 'everyone'])
    t.is(await run(t, address, 'cli.a', 'publish', 'a/b', 'news'), 'OK')
    for (;;) {
      const message = await next(subscription)
      // The broker announces the tool itself.
      if (message.topic === '.broker/info') continue
      t.deepEqual([message.sender, message.topic, message.text()], ['cli.a', 'a/b', 'news'])
      break
    }
    const noted: string[] = []
    const told: unknown[] = []
    client.serve(
      {
        method: (params: unknown) => {
          told.push(params)
          return { answer: [42, 2n ** 64n - 1n, 'text', null] }
        },
      },
      { onNotification: (data) => noted.push(Buffer.from(data).toString()) },
    )
    const answer = await run(t, address, 'cli.a', 'rpc', 'call', 'node.a', 'method', 'a=1', 'b=x', 'c=2.5')
    t.is(answer, '{"answer":[42,18446744073709551615,"text",null]}')
    t.deepEqual(told, [{ a: 1, b: 'x', c: 2.5 }])
    t.is(await run(t, address, 'cli.a', 'rpc', 'notify', 'node.a', 'note'), 'OK')
    await until(() => noted.length > 0, 'a notification')
    t.deepEqual(noted, ['note'])
    const failed = await start(t, address, 'cli.a', 'rpc', 'call', 'node.a', 'absent').finish()
    t.not(failed.status, 0, failed.output)
    t.true((await run(t, address, 'cli.a', 'rpc', 'call', '.broker', 'test')).includes('"ok":true'))
    t.true((await run(t, address, 'cli.a', 'broker', 'test')).includes('"ok":true'))
  })

  testIf(cli.reason)(`${title} measures a broker in this process`, async (t) => {
    // It connects again under a name it has just left, sometimes before the broker has seen it go.
    const broker = await startBroker(t, { forceRegister: true })
    const address = await broker.listen(`unix:${socketPath(t)}`)
    const args = ['benchmark', '-w', '2', '-i', '400', '--payload-size', '1000']
    const { status, output } = await start(t, address, 'bench', ...args).finish()
    for (const stage of [
      'rpc.call',
      'rpc.call+handle',
      'rpc.call0',
      'send+recv.qos.no',
      'send+recv.qos.processed',
      'send.qos.no',
      'send.qos.processed',
    ]) {
      t.true(output.includes(`stage completed: ${stage} `), `${stage}:\n${output}`)
    }
    t.true(output.includes('Benchmark results'), output)
    if (!tablesFail) t.is(status, 0)
  })
}

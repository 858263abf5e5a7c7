// A broker in the process: where it listens, whom it lists, what it counts, and how it ends.

import { spawnSync } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import net from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import {
  AaaMap,
  Broker,
  type BrokerOptions,
  BusError,
  type Client,
  type ClientEvent,
  connect,
  type DeniedEvent,
  type FaultEvent,
  type Listen,
  type ListenOptions,
  type SlowEvent,
} from 'elbus-node'
import { isBusError, rejectsBus, throwsBus } from './support/bus-error'
import { next, take, texts } from './support/messages'
import { Code, tryLogin } from './support/raw-client'
import { socketPath, tempFolder } from './support/temp'
import { ALL, closing, LOCAL, overEach, SOCKETS, startBroker, startBus } from './support/transports'
import { soon, until } from './support/within'

// ---- listening

test('listens from the start wherever it is told, and says where', async (t) => {
  const paths = [socketPath(t), socketPath(t), socketPath(t)] as const
  const listen: Listen[] = [
    `unix:${paths[0]}`,
    paths[1],
    { url: `unix:${paths[2]}` },
    'tcp://127.0.0.1:0',
    '127.0.0.1:0',
  ]
  const broker = await startBroker(t, { listen })
  for (const path of paths) {
    t.true(statSync(path).isSocket())
    closing(t, await connect(path, { name: `at${paths.indexOf(path)}` }))
  }
  const ports = broker.clients('at').map(({ port }) => port ?? '')
  t.is(ports.length, 3)
  for (const [index, path] of paths.entries()) t.true(ports[index]?.endsWith(path), ports[index])
})

test('one address to listen at needs no list', async (t) => {
  for (const listen of [socketPath(t), { url: socketPath(t) }]) {
    await startBroker(t, { listen })
    closing(t, await connect(typeof listen === 'string' ? listen : listen.url, { name: 'one' }))
  }
  t.pass()
})

test('listen resolves with the address as bound, and it can be connected to', async (t) => {
  const broker = await startBroker(t)
  const path = socketPath(t)
  t.is(await broker.listen(path), `unix:${path}`)
  const tcp = await broker.listen('tcp://127.0.0.1:0')
  t.regex(tcp, /^tcp:\/\/127\.0\.0\.1:[1-9]\d*$/)
  const plain = await broker.listen('localhost:0')
  t.regex(plain, /^tcp:\/\/(127\.0\.0\.1|\[::1\]):[1-9]\d*$/)
  for (const [index, address] of [`unix:${path}`, tcp, plain].entries()) {
    const client = closing(t, await connect(address, { name: `client${index}` }))
    t.deepEqual(await client.call('.broker', 'test'), { ok: true })
  }
})

test('listens at an IPv6 address', async (t) => {
  const broker = await startBroker(t)
  let address: string
  try {
    address = await broker.listen('tcp://[::1]:0')
  } catch (error) {
    // A machine without IPv6.
    isBusError(t, error, { code: 'ERR_BUS_ADDRESS' })
    return
  }
  t.regex(address, /^tcp:\/\/\[::1\]:\d+$/)
  const client = closing(t, await connect(address, { name: 'six' }))
  t.regex(broker.clients('six')[0]?.source ?? '', /^\[::1\]:\d+$/)
  t.true(client.connected)
})

test('listening twice at one address is refused, by the same broker and by another', async (t) => {
  const [first, second] = [await startBroker(t), await startBroker(t)]
  const path = socketPath(t)
  await first.listen(`unix:${path}`)
  const tcp = await first.listen('tcp://127.0.0.1:0')
  const client = closing(t, await connect(path, { name: 'early' }))
  for (const broker of [first, second]) {
    await rejectsBus(t, () => broker.listen(`unix:${path}`), { code: 'ERR_BUS_ADDRESS', says: [path] })
    await rejectsBus(t, () => broker.listen(tcp), { code: 'ERR_BUS_ADDRESS', says: [tcp.slice(6)] })
  }
  await rejectsBus(t, () => Broker.start({ listen: [path] }), { code: 'ERR_BUS_ADDRESS', says: [path] })
  // Whoever was there first is not harmed.
  await client.rtt()
  closing(t, await connect(path, { name: 'later' }))
  t.is(first.clients('').length, 3)
})

test('a path that is something else is refused and left alone', async (t) => {
  const broker = await startBroker(t)
  const folder = tempFolder(t)
  const at = (name: string): string => join(folder, name)
  writeFileSync(at('file'), 'mine')
  mkdirSync(at('folder'))
  symlinkSync(at('file'), at('link'))
  symlinkSync(at('nothing'), at('dangling'))
  for (const name of ['file', 'folder', 'link', 'dangling']) {
    await rejectsBus(t, () => broker.listen(at(name)), { code: 'ERR_BUS_ADDRESS', says: [at(name)] })
  }
  await rejectsBus(t, () => broker.listen(at('no/such/folder')), {
    code: 'ERR_BUS_ADDRESS',
    says: [at('no/such')],
  })
  await rejectsBus(t, () => broker.listen(at('x'.repeat(120))), { code: 'ERR_BUS_ADDRESS', says: ['xxx'] })
  t.is(readFileSync(at('file'), 'utf8'), 'mine')
  t.true(statSync(at('folder')).isDirectory())
  t.false(existsSync(at('nothing')))
})

test('a socket that a dead process left is replaced', async (t) => {
  const path = socketPath(t)
  const script = `require('node:net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`
  spawnSync(process.execPath, ['-e', script])
  t.true(statSync(path).isSocket())
  const broker = await startBroker(t, { listen: [path] })
  closing(t, await connect(path, { name: 'one' }))
  t.is(broker.clients('one').length, 1)
})

test('the file of a socket has the mode that was asked for, whatever the umask', async (t) => {
  const broker = await startBroker(t)
  const before = process.umask(0o077)
  t.teardown(() => process.umask(before))
  for (const [mask, mode] of [
    [0o077, undefined],
    [0o000, undefined],
    [0o077, 0o666],
    [0o777, 0o660],
    [0o000, 0o600],
    [0o022, 0o707],
  ] as const) {
    const path = socketPath(t)
    process.umask(mask)
    await broker.listen({ url: path, mode })
    process.umask(before)
    t.is(statSync(path).mode & 0o777, mode ?? 0o600, `umask ${mask.toString(8)}`)
  }
})

test('an address that is none is refused and named', async (t) => {
  const broker = await startBroker(t)
  for (const url of [
    '',
    'unix:',
    'nowhere',
    'tcp://',
    'tcp://127.0.0.1',
    'http://127.0.0.1:1',
    '127.0.0.1:70000',
    'inproc:1',
  ]) {
    const error = await rejectsBus(t, () => broker.listen(url), { code: 'ERR_BUS_ADDRESS' })
    t.true(error.message.includes(url), error.message)
  }
  await rejectsBus(t, () => broker.listen('tcp://no.such.host.invalid:1'), {
    code: 'ERR_BUS_ADDRESS',
    says: ['no.such.host'],
  })
  // An address of nobody on this machine.
  await rejectsBus(t, () => broker.listen('tcp://192.0.2.1:0'), {
    code: 'ERR_BUS_ADDRESS',
    says: ['192.0.2.1'],
  })
  for (const listen of [undefined, null, 7, {}, { url: 7 }]) {
    await rejectsBus(t, () => broker.listen(listen as unknown as Listen), {
      code: 'ERR_BUS_ARGUMENT',
      says: ['url'],
    })
  }
})

test('a start that fails leaves nothing behind', async (t) => {
  const [path, second] = [socketPath(t), socketPath(t)]
  await rejectsBus(t, () => Broker.start({ listen: [path, 'nowhere'] }), { code: 'ERR_BUS_ADDRESS' })
  t.false(existsSync(path))
  await rejectsBus(t, () => connect(path, { name: 'one' }), { code: 'ERR_BUS_ADDRESS' })
  await startBroker(t, { listen: [path, second] })
  t.true(existsSync(path))
})

test('its own rules hold at each listener', async (t) => {
  const broker = await startBroker(t)
  const [small, large] = [socketPath(t), socketPath(t)]
  await broker.listen({ url: small, payloadLimit: 1_000 })
  await broker.listen({ url: large })
  const [one, two] = await Promise.all([
    connect(small, { name: 'one', frameBytes: 1_000 }),
    connect(large, { name: 'two' }),
  ])
  closing(t, one)
  closing(t, two)
  const careless = closing(t, await connect(small, { name: 'three' }))
  await one.publish('a', 'x'.repeat(900), { ack: true })
  await two.publish('a', 'x'.repeat(100_000), { ack: true })
  await rejectsBus(t, () => careless.publish('a', 'x'.repeat(2_000), { ack: true }), { code: 'ERR_BUS_DATA' })
  // The rest of such a frame is not read, so its connection is of no use any more.
  await soon(careless.closed, 'it is disconnected')
  t.true(one.connected && two.connected)
})

test('a login may take as long as the timeout of its listener', async (t) => {
  const path = socketPath(t)
  await startBroker(t, { listen: [{ url: path, timeout: 100 }] })
  const socket = net.connect(path)
  t.teardown(() => socket.destroy())
  const received: Buffer[] = []
  socket.on('data', (chunk: Buffer) => received.push(chunk))
  await soon(new Promise((resolve) => socket.on('close', resolve)), 'the silent one is closed')
  t.deepEqual([...Buffer.concat(received)], [0xeb, 1, 0])
})

// ---- options

const WRONG: Record<string, [BrokerOptions, string]> = {
  'workers 0': [{ workers: 0 }, 'workers'],
  'workers 65': [{ workers: 65 }, 'workers'],
  'workers 1.5': [{ workers: 1.5 }, 'workers'],
  'workers as text': [{ workers: '2' as unknown as number }, 'workers'],
  'queue.frames': [{ queue: { frames: 0 } }, 'queue.frames'],
  'queue.bytes': [{ queue: { bytes: -1 } }, 'queue.bytes'],
  totalBytes: [{ totalBytes: 0 }, 'totalBytes'],
  subscriptions: [{ subscriptions: -1 }, 'subscriptions'],
  pause: [{ pause: 1_001 }, 'pause'],
  'pause NaN': [{ pause: Number.NaN }, 'pause'],
  busyPoll: [{ busyPoll: 10.1 }, 'busyPoll'],
  stallTimeout: [{ stallTimeout: 0 }, 'stallTimeout'],
  'stallTimeout Infinity': [{ stallTimeout: Number.POSITIVE_INFINITY }, 'stallTimeout'],
  connections: [{ connections: 0 }, 'connections'],
  connectionsPerPeer: [{ connectionsPerPeer: 2 ** 32 }, 'connectionsPerPeer'],
  logins: [{ logins: 0.5 }, 'logins'],
  aaa: [{ aaa: new Map() as unknown as AaaMap }, 'aaa'],
  listen: [{ listen: 7 as unknown as Listen[] }, 'url'],
}

for (const [what, [options, name]] of Object.entries(WRONG)) {
  test(`an option out of range is named: ${what}`, async (t) => {
    await rejectsBus(t, () => Broker.start(options), { code: 'ERR_BUS_ARGUMENT', says: [name] })
  })
}

test('an option that does not exist is named', async (t) => {
  const aaa = new AaaMap()
  const wrong: readonly (readonly [options: object, named: string])[] = [
    [{ AAA: aaa }, 'AAA'],
    [{ aa: aaa }, 'aa'],
    [{ queue: { frame: 1 } }, 'frame'],
    [{ listen: [{ url: `unix:${socketPath(t)}`, aa: aaa }] }, 'aa'],
    [{ listen: [{ url: `unix:${socketPath(t)}`, mod: 0o600 }] }, 'mod'],
  ]
  for (const [options, named] of wrong) {
    const started = Broker.start(options as BrokerOptions).then(async (broker) => {
      await broker.close({ drain: 0 })
      return broker
    })
    await rejectsBus(t, () => started, { code: 'ERR_BUS_ARGUMENT', says: [named] })
  }
})

test('options of a listener out of range are named', async (t) => {
  const broker = await startBroker(t)
  const wrong: Omit<ListenOptions, 'url'>[] = [
    { timeout: 0 },
    { timeout: Number.POSITIVE_INFINITY },
    { payloadLimit: 63 },
    { payloadLimit: 2 ** 32 },
    { mode: 0o1000 },
    { mode: -1 },
    { mode: '600' as unknown as number },
    { aaa: {} as unknown as AaaMap },
  ]
  for (const options of wrong) {
    const path = socketPath(t)
    const [name] = Object.keys(options) as [string]
    await rejectsBus(t, () => broker.listen({ url: path, ...options }), {
      code: 'ERR_BUS_ARGUMENT',
      says: [name],
    })
    t.false(existsSync(path))
  }
  await rejectsBus(t, () => broker.close({ drain: -1 }), { code: 'ERR_BUS_ARGUMENT', says: ['drain'] })
  // A refused close is none.
  t.true(broker.clients().length > 0)
  await broker.close({ drain: 0 })
})

test('limits are limits: connections, subscriptions', async (t) => {
  const path = socketPath(t)
  await startBroker(t, { listen: [path], connections: 2, subscriptions: 3 })
  const one = closing(t, await connect(path, { name: 'one' }))
  closing(t, await connect(path, { name: 'two' }))
  const error = await connect(path, { name: 'three' }).then(
    () => undefined,
    (reason: unknown) => reason,
  )
  t.true(['ERR_BUS_DISCONNECTED', 'ERR_BUS_ADDRESS'].includes(isBusCode(error)), String(error))
  await soon(one.subscribe(['a', 'b', 'c']).ready, 'three')
  await rejectsBus(t, () => one.subscribe('d').ready, { code: 'ERR_BUS_DATA', wireCode: 0x72 })
  t.true(one.connected)
})

function isBusCode(error: unknown): string {
  return (error as { code?: string } | undefined)?.code ?? ''
}

// ---- clients, stats, info

test('clients are listed by name, with how they are connected', async (t) => {
  const path = socketPath(t)
  const broker = await startBroker(t)
  const unix = await broker.listen(path)
  const tcp = await broker.listen('tcp://127.0.0.1:0')
  closing(t, await broker.client('z.local'))
  closing(t, await connect(broker.address, { name: 'in.process' }))
  const one = closing(t, await connect(unix, { name: 'b.unix' }))
  closing(t, await connect(tcp, { name: 'a.tcp' }))
  for (let index = 0; index < 2; index += 1) closing(t, await one.secondary())
  const clients = broker.clients()
  t.deepEqual(
    clients.map(({ name, kind, instances }) => [name, kind, instances]),
    [
      ['.broker', 'internal', 1],
      ['a.tcp', 'tcp', 1],
      ['b.unix', 'local_ipc', 3],
      ['in.process', 'internal', 1],
      ['z.local', 'internal', 1],
    ],
  )
  const [, network, local, inside] = clients
  t.regex(network?.source ?? '', /^127\.0\.0\.1:\d+$/)
  t.true(tcp.includes(network?.port?.replace(/:\d+$/, '') ?? 'none'))
  t.is(local?.source, undefined)
  t.true(unix.endsWith(local?.port ?? 'none'))
  t.deepEqual([inside?.source, inside?.port], [undefined, undefined])
})

test('clients are filtered by part of the name or by expression', async (t) => {
  const broker = await startBroker(t)
  for (const name of ['sensor.1', 'sensor.2', 'Sensor.3', 'other']) closing(t, await broker.client(name))
  const names = (filter?: string | RegExp): string[] => broker.clients(filter).map(({ name }) => name)
  t.deepEqual(names('ensor.'), ['Sensor.3', 'sensor.1', 'sensor.2'])
  t.deepEqual(names('.'), ['.broker', 'Sensor.3', 'sensor.1', 'sensor.2'])
  t.deepEqual(names(''), names())
  t.deepEqual(names(/^sensor/i), ['Sensor.3', 'sensor.1', 'sensor.2'])
  // A global expression has a memory; it must not show.
  t.deepEqual(names(/sensor/g), ['sensor.1', 'sensor.2'])
  t.deepEqual(names(/sensor/y), ['sensor.1', 'sensor.2'])
  t.deepEqual(names('none'), [])
})

test('what was sent and received is counted, per client and in all', async (t) => {
  const bus = await startBus(t, 'unix')
  const [one, two] = [await bus.open('one'), await bus.open('two')]
  const inbox = two.messages()
  const before = bus.broker.stats()
  for (let index = 0; index < 100; index += 1) one.send('two', 'x'.repeat(1_000))
  await one.send('two', 'end', { ack: true })
  await take(inbox, 101)
  const after = bus.broker.stats()
  t.is(after.received.frames - before.received.frames, 101)
  // Names and payloads: target, NUL and payload.
  t.is(after.received.bytes - before.received.bytes, 100 * 1_004 + 7)
  t.true(after.sent.frames - before.sent.frames >= 101)
  t.is(after.refused, 0)
  t.is(after.denied, 0)
  t.true(after.uptime >= before.uptime && Number.isFinite(after.uptime))
  const [sender, receiver] = [bus.broker.clients('one')[0], bus.broker.clients('two')[0]]
  t.true((sender?.received.frames ?? 0) >= 101)
  t.true((receiver?.sent.frames ?? 0) >= 101)
  t.true((receiver?.sent.bytes ?? 0) >= 100_000)
  t.is(receiver?.queue, 0)
})

test('info names the broker', async (t) => {
  const broker = await startBroker(t)
  const info = broker.info()
  t.deepEqual(Object.keys(info).sort(), ['author', 'version'])
  t.regex(info.version, /^\d+\.\d+\.\d+/)
  t.true(info.author.length > 0)
})

test('C48: several brokers of one process have nothing to do with each other', async (t) => {
  const brokers = await Promise.all(Array.from({ length: 5 }, () => startBroker(t)))
  t.is(new Set(brokers.map(({ address }) => address)).size, 5)
  const clients: Client[] = []
  for (const broker of brokers) {
    t.regex(broker.address, /^inproc:\d+$/)
    clients.push(closing(t, await broker.client('same')))
  }
  const inboxes = clients.map((client) => client.messages())
  for (const [index, client] of clients.entries()) {
    await client.broadcast('*', `broker ${index}`, { ack: true })
    t.deepEqual(
      brokers[index]?.clients().map(({ name }) => name),
      ['.broker', 'same'],
    )
  }
  for (const [index, inbox] of inboxes.entries()) {
    t.deepEqual(await texts(inbox, 1), [`broker ${index}`])
    t.is(inbox.pending, 0)
  }
  await brokers[0]?.close()
  await clients[1]?.rtt()
  await rejectsBus(t, () => connect(brokers[0]?.address as string, { name: 'late' }), {
    code: 'ERR_BUS_ADDRESS',
  })
})

test('C11: names of clients are checked, and taken once', async (t) => {
  const broker = await startBroker(t)
  const one = closing(t, await broker.client('one'))
  await rejectsBus(t, () => broker.client('one'), { code: 'ERR_BUS_BUSY', wireCode: 0x76, says: ['one'] })
  await rejectsBus(t, () => connect(broker.address, { name: 'one' }), { code: 'ERR_BUS_BUSY' })
  await rejectsBus(t, () => broker.client('.broker'), { code: 'ERR_BUS_BUSY', says: ['.broker'] })
  for (const name of ['', 'a\0b', 'x'.repeat(600), 'a\nb', 'a.*', '?']) {
    await rejectsBus(t, () => broker.client(name), { code: 'ERR_BUS_NAME' })
  }
  for (const name of [undefined, 7, null]) {
    await rejectsBus(t, () => broker.client(name as unknown as string), { code: 'ERR_BUS_ARGUMENT' })
  }
  await one.close()
  closing(t, await broker.client('one'))
})

/** Names, with what the broker answers on the wire: a code, or none where the connection just ends. */
const NAMES: readonly (readonly [name: string | Buffer, code: number | undefined])[] = [
  ['', 0x72],
  ['.x', 0x72],
  ['.', 0x72],
  ['.broker', 0x72],
  [Buffer.from('ff', 'hex'), undefined],
  [Buffer.from('61c328', 'hex'), undefined],
  ['%%', 0x71],
  ['nobody%%1', 0x71],
  ['here%%b%%c', Code.DONE],
  ['v.dot.', Code.DONE],
  ['grün.日本', Code.DONE],
  ['x'.repeat(512), Code.DONE],
  ['x'.repeat(513), 0x72],
  ['x'.repeat(65_535), 0x72],
  [Array(16).fill('p').join('.'), Code.DONE],
  [Array(17).fill('p').join('.'), 0x72],
  ['.'.repeat(40), 0x72],
  ['a.*', 0x72],
  ['a.?.b', 0x72],
  ['*', 0x72],
  ['a*', Code.DONE],
  ['a\0b', 0x72],
  ['a\nb', 0x72],
  ['a\rb', 0x72],
  ['\x1b[2Ja', 0x72],
  ['a\x7f', 0x72],
  ['a\u0085b', 0x72],
  ['taken', 0x76],
]

test('C11: bad names are answered on the wire, and what is told of them is short and has no control characters', async (t) => {
  const path = socketPath(t)
  const broker = await startBroker(t, { listen: [path] })
  const told: string[] = []
  broker.on('fault', (event) => told.push(event.reason, event.client ?? ''))
  broker.on('denied', (event) => told.push(event.client, event.target))
  for (const name of ['taken', 'here']) closing(t, await connect(path, { name }))
  for (const [name, code] of NAMES) {
    const [peer, answered] = await tryLogin(t, `unix:${path}`, name)
    t.is(answered, code, JSON.stringify(name.toString().slice(0, 40)))
    if (code !== Code.DONE) await soon(peer.ended, 'the end of the connection')
    peer.destroy()
  }
  // Bad ones again and again, to have them told.
  for (let round = 0; round < 50; round += 1) {
    const [peer] = await tryLogin(t, `unix:${path}`, `\x1b[2J\r\n${'x'.repeat(500)}`)
    peer.destroy()
  }
  t.true(told.length >= 32)
  for (const text of told) {
    t.true(Buffer.byteLength(text) <= 256, text)
    t.notRegex(text, /\p{Cc}/u)
  }
  t.log(
    `C11: ${NAMES.length} names answered as they should, ${told.length} texts told, the longest of ${Math.max(...told.map((text) => Buffer.byteLength(text)))} B`,
  )
})

test('C11: what is told of denied topics and targets has no control characters either', async (t) => {
  const path = socketPath(t)
  const aaa = new AaaMap({ liar: { publish: [], p2p: [], broadcast: [], subscribe: [] } })
  const broker = await startBroker(t, { listen: [path], aaa })
  const told: string[] = []
  broker.on('denied', ({ target }) => told.push(target))
  const liar = closing(t, await connect(path, { name: 'liar' }))
  const text = 'a\x1b[2J\r\n2026-01-01 forged line \u0085'
  for (const run of [
    () => liar.publish(text, 'x', { ack: true }),
    () => liar.send(text, 'x', { ack: true }),
    () => liar.broadcast(text, 'x', { ack: true }),
    () => liar.subscribe(text).ready,
  ]) {
    await rejectsBus(t, run, { code: 'ERR_BUS_ACCESS' })
  }
  await until(() => told.length >= 4, 'all are told')
  for (const target of told) t.notRegex(target, /\p{Cc}/u)
})

test('C11: bad names are refused by the API before anything is sent', async (t) => {
  const path = socketPath(t)
  const broker = await startBroker(t, { listen: [path] })
  closing(t, await connect(path, { name: 'taken' }))
  for (const [name, code] of NAMES) {
    if (typeof name !== 'string' || code === Code.DONE || code === 0x71) continue
    // Clients in the process may have names that begin with a dot.
    const inside = name.startsWith('.')
      ? []
      : [() => connect(broker.address, { name }), () => broker.client(name)]
    for (const open of [() => connect(path, { name }), ...inside]) {
      const error = await t.throwsAsync(async () => soon(open(), 'an answer'), { instanceOf: BusError })
      const known = ['ERR_BUS_NAME', 'ERR_BUS_DATA', 'ERR_BUS_BUSY']
      t.true(
        known.includes((error as BusError).code),
        `${JSON.stringify(name.slice(0, 40))}: ${error?.message}`,
      )
      t.true(Buffer.byteLength((error as BusError).message) <= 512)
    }
  }
  t.deepEqual(
    broker.clients().map(({ name }) => name),
    ['.broker', 'taken'],
  )
})

overEach(
  SOCKETS,
  'with forceRegister a new client takes the name from its holder',
  async (t, bus) => {
    const first = await bus.open('one')
    const second = await bus.open('one')
    isBusError(t, await soon(first.closed, 'the first is out'), { code: 'ERR_BUS_DISCONNECTED' })
    const sender = await bus.open('sender')
    const inbox = second.messages()
    await sender.send('one', 'to the second', { ack: true })
    t.deepEqual(await texts(inbox, 1), ['to the second'])
  },
  { forceRegister: true },
)

// ---- forceDisconnect

overEach(
  SOCKETS,
  'forceDisconnect ends a client and its secondaries, and it may come again',
  async (t, bus) => {
    const one = await bus.open('one')
    const [second, third] = [closing(t, await one.secondary()), closing(t, await one.secondary())]
    const other = await bus.open('one.other')
    const inbox = one.messages()
    // A secondary alone goes alone.
    t.true(bus.broker.forceDisconnect(second.name))
    isBusError(t, await soon(second.closed, 'a secondary is out'), { code: 'ERR_BUS_DISCONNECTED' })
    await one.rtt()
    await third.rtt()
    t.true(bus.broker.forceDisconnect('one'))
    for (const client of [one, third]) {
      isBusError(t, await soon(client.closed, `${client.name} is out`), {
        code: 'ERR_BUS_DISCONNECTED',
        says: [client.name],
      })
      t.false(client.connected)
      throwsBus(t, () => client.send('x', 'y'), { code: 'ERR_BUS_DISCONNECTED' })
    }
    await t.throwsAsync(next(inbox), { code: 'ERR_BUS_DISCONNECTED' })
    await other.rtt()
    const again = await bus.open('one')
    await again.rtt()
  },
)

test('forceDisconnect of nobody, and of a client in the process', async (t) => {
  const broker = await startBroker(t)
  const local = closing(t, await broker.client('local'))
  t.false(broker.forceDisconnect('nobody'))
  t.false(broker.forceDisconnect(''))
  throwsBus(t, () => broker.forceDisconnect('local'), { code: 'ERR_BUS_NOT_SUPPORTED', says: ['local'] })
  throwsBus(t, () => broker.forceDisconnect('.broker'), { code: 'ERR_BUS_NOT_SUPPORTED' })
  throwsBus(t, () => broker.forceDisconnect('a\0b'), { code: 'ERR_BUS_NAME' })
  throwsBus(t, () => broker.forceDisconnect(7 as unknown as string), { code: 'ERR_BUS_ARGUMENT' })
  await local.rtt()
})

// ---- events

overEach(ALL, 'arrivals and departures are told, secondaries included', async (t, bus) => {
  const events: ClientEvent[] = []
  bus.broker.on('client', (event) => events.push(event))
  const one = await bus.open('one')
  const second = await one.secondary()
  await second.close()
  await one.close()
  await until(() => events.length >= 4, 'four events')
  t.deepEqual(events, [
    { type: 'reg', client: 'one' },
    { type: 'reg', client: second.name },
    { type: 'unreg', client: second.name },
    { type: 'unreg', client: 'one' },
  ])
})

test('denials are told, one event for many, with a count', async (t) => {
  const path = socketPath(t)
  const aaa = new AaaMap({
    narrow: { publish: ['a/#'], subscribe: ['a/#'], p2p: [], broadcast: [], exclude: [] },
  })
  const broker = await startBroker(t, { listen: [path], aaa })
  const events: DeniedEvent[] = []
  broker.on('denied', (event) => events.push(event))
  const client = closing(t, await connect(path, { name: 'narrow' }))
  await rejectsBus(t, () => connect(path, { name: 'stranger' }), { code: 'ERR_BUS_ACCESS' })
  const started = performance.now()
  for (let index = 0; index < 10; index += 1) client.publish(`b/${index}`, 'x')
  client.send('somebody', 'x')
  client.broadcast('some.*', 'x')
  await client.subscribe('b/#').ready.catch(() => undefined)
  await client.exclude('b/1').catch(() => undefined)
  await client.close()
  const of = (operation: string): DeniedEvent[] => events.filter((event) => event.operation === operation)
  // The rest of a second is told when it is over or the client leaves.
  await until(() => of('publish').reduce((sum, { count }) => sum + count, 0) === 10, 'all denials are told')
  await until(() => of('exclude').length === 1, 'the last kind is told')
  t.true(of('publish').length <= 2 + (performance.now() - started) / 1_000)
  t.like(of('publish')[0], { client: 'narrow', operation: 'publish', target: 'b/0' })
  t.like(of('message'), [{ client: 'narrow', operation: 'message', target: 'somebody', count: 1 }])
  t.like(of('broadcast'), [{ client: 'narrow', operation: 'broadcast', target: 'some.*', count: 1 }])
  t.like(of('subscribe'), [{ client: 'narrow', operation: 'subscribe', target: 'b/#', count: 1 }])
  t.like(of('exclude'), [{ client: 'narrow', operation: 'exclude', target: 'b/1', count: 1 }])
  t.like(of('connect'), [{ client: 'stranger', operation: 'connect', count: 1 }])
  t.true(of('connect')[0]?.target.includes(path))
  // As `stats` counts them, logins apart.
  t.is(broker.stats().denied, 14)
})

test('a client that does not read is told of as slow, once for the stall', async (t) => {
  const path = socketPath(t)
  const broker = await startBroker(t, { listen: [path], queue: { frames: 10 } })
  const events: SlowEvent[] = []
  broker.on('slow', (event) => events.push(event))
  const mute = await rawLogin(t, path, 'mute')
  await until(() => broker.clients('mute').length === 1, 'it has logged in')
  const sender = closing(t, await broker.client('sender'))
  const chunk = new Uint8Array(100_000).fill(120)
  let refused = 0
  const started = performance.now()
  for (let index = 0; index < 100; index += 1) {
    await sender.send('mute', chunk, { ack: true }).catch((error: unknown) => {
      isBusError(t, error, { code: 'ERR_BUS_NOT_DELIVERED', wireCode: 0x77, says: ['mute'] })
      refused += 1
    })
  }
  t.true(refused > 50)
  await until(() => events.length > 0, 'the stall is told')
  mute.destroy()
  await until(() => (events.at(-1)?.refused ?? 0) === refused, 'and how much it cost')
  t.true(events.length <= 3 + (performance.now() - started) / 1_000, JSON.stringify(events))
  t.true(events.every(({ client }) => client === 'mute'))
  t.is(broker.stats().refused, refused)
})

test('a peer that breaks the protocol is told of, with what it did', async (t) => {
  const path = socketPath(t)
  const broker = await startBroker(t, { listen: [path] })
  const events: FaultEvent[] = []
  broker.on('fault', (event) => events.push(event))
  const stranger = net.connect(path)
  t.teardown(() => stranger.destroy())
  stranger.on('error', () => undefined)
  stranger.resume().write('GET / HTTP/1.1\r\n\r\n')
  await until(() => events.length === 1, 'the stranger is told of')
  const member = await rawLogin(t, path, 'member')
  await until(() => broker.clients('member').length === 1, 'it has logged in')
  member.write(Buffer.from([1, 0, 0, 0, 0x3f, 0, 0, 0, 0]))
  await until(() => events.length === 2, 'the member is told of')
  t.like(events[0], { source: 'local', client: undefined, omitted: 0 })
  t.like(events[1], { source: 'local', client: 'member', omitted: 0 })
  for (const { reason } of events) t.true(reason.length > 3, reason)
  // An end in good order is none.
  const client = await connect(path, { name: 'good' })
  await client.close()
  await until(() => broker.clients('good').length === 0, 'it has left')
  t.is(events.length, 2)
})

test('a listener that throws harms nothing', async (t) => {
  const bus = await startBus(t, 'unix')
  const warnings: Error[] = []
  const warned = (warning: Error): void => void warnings.push(warning)
  process.on('warning', warned)
  t.teardown(() => process.off('warning', warned))
  const seen: string[] = []
  bus.broker.on('client', ({ client }) => {
    seen.push(client)
    throw new Error(`thrown for ${client}`)
  })
  await bus.open('one')
  await bus.open('two')
  await until(() => seen.length === 2 && warnings.length > 0, 'both are told')
  t.deepEqual(seen, ['one', 'two'])
  t.regex(warnings[0]?.message ?? '', /thrown for/)
})

/** A socket that has sent its login and reads nothing. */
async function rawLogin(t: ExecutionContext, path: string, name: string): Promise<net.Socket> {
  const socket = net.connect(path)
  t.teardown(() => socket.destroy())
  socket.on('error', () => undefined)
  await soon(new Promise((resolve) => socket.on('connect', resolve)), 'the socket connects')
  socket.pause().write(Buffer.from([0xeb, 1, 0, name.length, 0, ...Buffer.from(name)]))
  return socket
}

// ---- closing

overEach(
  SOCKETS,
  '400 acknowledged messages for a client that reads all arrive, though the broker closes',
  async (t, bus) => {
    const [sender, receiver] = [await bus.open('sender'), await bus.open('receiver')]
    const inbox = receiver.messages()
    const payload = 'x'.repeat(1_000)
    await Promise.all(
      Array.from({ length: 400 }, (_, index) =>
        sender.send('receiver', `${index} ${payload}`, { ack: true }),
      ),
    )
    const closed = bus.broker.close()
    const received: string[] = []
    await t.throwsAsync(
      soon(
        (async () => {
          for await (const message of inbox) received.push(message.text().split(' ')[0] as string)
        })(),
        'the end',
      ),
      { code: 'ERR_BUS_DISCONNECTED' },
    )
    t.deepEqual(
      received,
      Array.from({ length: 400 }, (_, index) => String(index)),
    )
    await soon(closed, 'the broker is closed')
  },
)

test('400 acknowledged messages for a client in the process all arrive, though the broker closes', async (t) => {
  const bus = await startBus(t, 'unix')
  const sender = await bus.open('sender')
  const receiver = closing(t, await bus.broker.client('receiver'))
  const received: string[] = []
  receiver.messages({ callback: (message) => received.push(message.text()) })
  let acknowledged = 0
  const numbers = Array.from({ length: 400 }, (_, index) => String(index))
  const closed = Promise.all(
    numbers.map(async (number) => {
      await sender.send('receiver', number, { ack: true })
      acknowledged += 1
    }),
  ).then(() => bus.broker.close())
  await soon(closed, 'the broker is closed')
  await soon(receiver.closed, 'the receiver knows')
  t.is(acknowledged, 400)
  t.deepEqual(received, numbers)
})

test('what a client in the process sent to another in the same turn arrives, though the broker closes', async (t) => {
  const broker = await startBroker(t)
  const [sender, receiver] = [
    closing(t, await broker.client('sender')),
    closing(t, await broker.client('receiver')),
  ]
  const received: string[] = []
  receiver.messages({ callback: (message) => received.push(message.text()) })
  for (let index = 0; index < 400; index += 1) sender.send('receiver', String(index))
  await soon(broker.close(), 'the broker is closed')
  await soon(receiver.closed, 'the receiver knows')
  t.is(received.length, 400)
})

test('a client that does not read holds the broker for the drain at most', async (t) => {
  const path = socketPath(t)
  const broker = await startBroker(t, { listen: [path] })
  const sender = closing(t, await broker.client('sender'))
  await rawLogin(t, path, 'mute')
  await until(() => broker.clients('mute').length === 1, 'it has logged in')
  const chunk = new Uint8Array(100_000).fill(120)
  // More than any socket buffers.
  for (let index = 0; index < 100; index += 1) await sender.send('mute', chunk, { ack: true })
  t.true((broker.clients('mute')[0]?.queue ?? 0) > 0)
  await soon(broker.close({ drain: 50 }), 'the broker closes all the same')
  t.true(sender.connected === false)
})

overEach(ALL, 'closing tells everybody, frees the address, and can be repeated', async (t, bus) => {
  const one = await bus.open('one')
  const subscription = one.subscribe('a')
  await subscription.ready
  let closes = 0
  bus.broker.on('close', () => (closes += 1))
  const [first, second] = [bus.broker.close(), bus.broker.close({ drain: 0 })]
  t.is(first, second)
  await soon(first, 'it closes')
  await bus.broker.close()
  await bus.broker[Symbol.asyncDispose]()
  t.is(closes, 1)
  const isLocal = LOCAL.includes(bus.transport)
  const reason = await soon(one.closed, 'the client knows')
  t.false(one.connected)
  const iterator = subscription[Symbol.asyncIterator]()
  // Who closes a broker closes its clients of the same thread: no failure to them. To others it is one.
  if (isLocal) {
    t.is(reason, undefined)
    t.deepEqual(await iterator.next(), { done: true, value: undefined })
  } else {
    isBusError(t, reason, { code: 'ERR_BUS_DISCONNECTED' })
    await t.throwsAsync(iterator.next(), { code: 'ERR_BUS_DISCONNECTED' })
  }
  await rejectsBus(t, () => connect(bus.address, { name: 'late', timeout: 1_000 }), {
    code: 'ERR_BUS_ADDRESS',
  })
  if (bus.transport === 'unix') t.false(existsSync(bus.address.slice('unix:'.length)))
  if (bus.transport === 'unix' || bus.transport === 'tcp') await startBroker(t, { listen: [bus.address] })
})

test('after close everything says so', async (t) => {
  const broker = await Broker.start()
  const client = await broker.client('one')
  await broker.close()
  for (const ask of [
    () => broker.stats(),
    () => broker.info(),
    () => broker.clients(),
    () => broker.clients('x'),
    () => broker.forceDisconnect('one'),
  ]) {
    throwsBus(t, ask, { code: 'ERR_BUS_CLOSED' })
  }
  await rejectsBus(t, () => broker.listen(socketPath(t)), { code: 'ERR_BUS_CLOSED' })
  await rejectsBus(t, () => broker.client('two'), { code: 'ERR_BUS_CLOSED' })
  t.false(client.connected)
  await client.close()
})

test('closing while a listen or a connect is under way ends both', async (t) => {
  const broker = await Broker.start()
  const path = socketPath(t)
  await broker.listen(path)
  const logins = Array.from({ length: 20 }, (_, index) =>
    connect(path, { name: `c${index}`, timeout: 10_000 }).then(
      (client) => client.closed,
      (error: unknown) => error,
    ),
  )
  const late = socketPath(t)
  const listening = broker.listen(late).then(
    () => undefined,
    (error: unknown) => error,
  )
  await soon(broker.close({ drain: 100 }), 'it closes')
  for (const error of await soon(Promise.all(logins), 'every login is over')) t.true(error instanceof Error)
  await soon(listening, 'the listen is over')
  t.false(existsSync(late))
})

test('a hundred brokers, one after the other, leave no file and no descriptor', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'elbus-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const path = join(folder, 'bus.sock')
  const descriptors = (): number =>
    Number(spawnSync('sh', ['-c', `ls /proc/${process.pid}/fd | wc -l`]).stdout.toString())
  const round = async (): Promise<void> => {
    const broker = await Broker.start({ listen: [path], workers: 1 })
    const client = await connect(path, { name: 'one' })
    await client.rtt()
    await client.close()
    await broker.close()
  }
  for (let index = 0; index < 5; index += 1) await round()
  const before = descriptors()
  for (let index = 0; index < 100; index += 1) await round()
  t.false(existsSync(path))
  const threads = Number(/^Threads:\s+(\d+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1])
  if (process.platform === 'linux') {
    t.true(descriptors() <= before + 8, `${before} descriptors became ${descriptors()}`)
    t.true(threads < 60, `${threads} threads`)
  }
})

// Every code of BusErrorCode is reached once in earnest, and errors are what the documentation says of them.

import { readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { AaaMap, Broker, BusError, type BusErrorCode, type Client, connect, RpcError } from 'elbus-node'
import { isBusError, reasonOf, rejectsBus, throwsBus } from './support/bus-error'
import { FakeBroker } from './support/fake-broker'
import { packageCopy } from './support/package-copy'
import { socketPath } from './support/temp'
import { ALL, closing, overEach, startBroker, startBus } from './support/transports'
import { soon } from './support/within'

/** The codes, so that one that is new is missed here. */
const REACHED: Record<BusErrorCode, boolean> = {
  ERR_BUS_NOT_REGISTERED: false,
  ERR_BUS_DATA: false,
  ERR_BUS_IO: false,
  ERR_BUS_OTHER: false,
  ERR_BUS_NOT_SUPPORTED: false,
  ERR_BUS_BUSY: false,
  ERR_BUS_NOT_DELIVERED: false,
  ERR_BUS_TIMEOUT: false,
  ERR_BUS_ACCESS: false,
  ERR_BUS_DISCONNECTED: false,
  ERR_BUS_CLOSED: false,
  ERR_BUS_OVERFLOW: false,
  ERR_BUS_PAYLOAD: false,
  ERR_BUS_NAME: false,
  ERR_BUS_ADDRESS: false,
  ERR_BUS_ARGUMENT: false,
  ERR_BUS_PROTOCOL: false,
  ERR_BUS_RPC: false,
  ERR_BUS_INTERNAL: false,
}

function reach(
  code: BusErrorCode,
  wireCode: number | undefined,
  says: readonly string[],
  cause: (t: ExecutionContext) => Promise<unknown>,
): void {
  test.serial(`${code}`, async (t) => {
    const error = isBusError(t, await cause(t), { code, wireCode, says })
    t.true(error instanceof Error && error.name === (error instanceof RpcError ? 'RpcError' : 'BusError'))
    t.regex(error.stack ?? '', new RegExp(error.name))
    REACHED[code] = true
  })
}

async function alone(t: ExecutionContext): Promise<Client> {
  return (await startBus(t, 'broker.client')).open('me')
}

reach('ERR_BUS_NOT_REGISTERED', 0x71, ['message', 'nobody'], async (t) => {
  return reasonOf((await alone(t)).send('nobody', 'x', { ack: true }))
})

reach('ERR_BUS_DATA', 0x72, ['login', '.reserved'], async (t) => {
  return reasonOf((await startBus(t, 'unix')).open('.reserved'))
})

reach('ERR_BUS_NOT_SUPPORTED', undefined, ['rpc: false'], async (t) => {
  const client = await (await startBus(t, 'broker.client')).open('me', { rpc: false })
  return reasonOf(client.call('you', 'method'))
})

reach('ERR_BUS_BUSY', 0x76, ['me'], async (t) => {
  const bus = await startBus(t, 'tcp')
  await bus.open('me')
  return reasonOf(bus.open('me'))
})

reach('ERR_BUS_NOT_DELIVERED', 0x77, ['message', 'full'], async (t) => {
  const bus = await startBus(t, 'broker.client', { queue: { frames: 1 } })
  const [from] = await Promise.all([bus.open('from'), bus.open('full')])
  const sent = [1, 2, 3].map(() => from.send('full', Buffer.alloc(9_000, 'x'), { ack: true }))
  const [, ...reasons] = await Promise.all([sent[0], ...sent.slice(1).map(reasonOf)])
  return reasons[0]
})

reach('ERR_BUS_TIMEOUT', undefined, ['message', 'you'], async (t) => {
  const broker = await FakeBroker.listen(t)
  const client = closing(t, await connect(broker.address, { name: 'me' }))
  return reasonOf(client.send('you', 'x', { ack: true, timeout: 5 }))
})

reach('ERR_BUS_ACCESS', 0x79, ['publication', 'secret'], async (t) => {
  const bus = await startBus(t, 'unix', { aaa: new AaaMap({ me: { publish: false } }) })
  return reasonOf((await bus.open('me')).publish('secret', 'x', { ack: true }))
})

reach('ERR_BUS_DISCONNECTED', undefined, ['me', 'unix:'], async (t) => {
  const bus = await startBus(t, 'unix')
  const client = await bus.open('me')
  bus.broker.forceDisconnect('me')
  return soon(client.closed, 'closed')
})

reach('ERR_BUS_CLOSED', undefined, ['me'], async (t) => {
  const client = await alone(t)
  await client.close()
  return throwsBus(t, () => client.send('me', 'x'), { code: 'ERR_BUS_CLOSED' })
})

reach('ERR_BUS_OVERFLOW', 0x77, ['full'], async (t) => {
  const bus = await startBus(t, 'broker.client', { queue: { frames: 16 } })
  const [from] = await Promise.all([bus.open('from'), bus.open('full')])
  for (let count = 0; count < 100; count += 1) {
    try {
      from.send('full', 'x')
      // Hands it over without letting the receiver read.
      void from.flush()
    } catch (error) {
      return error
    }
  }
  return undefined
})

reach('ERR_BUS_PAYLOAD', undefined, ['0x11', 'raw'], async (t) => {
  const client = await alone(t)
  return throwsBus(t, () => client.send('me', Buffer.from([0x11])), { code: 'ERR_BUS_PAYLOAD' })
})

reach('ERR_BUS_NAME', undefined, ['5000', '4096'], async (t) => {
  const client = await alone(t)
  return throwsBus(t, () => client.publish('t'.repeat(5_000), 'x'), { code: 'ERR_BUS_NAME' })
})

reach('ERR_BUS_ADDRESS', undefined, ['cannot connect', 'unix:', 'ENOENT'], async (t) => {
  return reasonOf(connect(`unix:${socketPath(t)}`, { name: 'me' }))
})

reach('ERR_BUS_ARGUMENT', undefined, ['overflow', 'drop-oldest'], async (t) => {
  const client = await alone(t)
  return throwsBus(t, () => client.messages({ overflow: 'none' as 'drop-oldest' }), {
    code: 'ERR_BUS_ARGUMENT',
  })
})

reach('ERR_BUS_PROTOCOL', undefined, [], async (t) => {
  const broker = await FakeBroker.listen(t)
  const client = closing(t, await connect(broker.address, { name: 'me' }))
  broker.write(Buffer.from('HTTP/1.1'))
  return soon(client.closed, 'closed')
})

reach('ERR_BUS_RPC', undefined, ['my own text'], async (t) => {
  const client = await alone(t)
  client.serve({
    fail: () => {
      throw new RpcError(7, 'my own text')
    },
  })
  return reasonOf(client.call('me', 'fail'))
})

/** Codes a broker may answer with; those that ours does not send come by hand. */
const WIRE: [number, BusErrorCode, string][] = [
  [0x71, 'ERR_BUS_NOT_REGISTERED', 'not registered'],
  [0x72, 'ERR_BUS_DATA', 'refuses'],
  [0x73, 'ERR_BUS_IO', 'input or output'],
  [0x74, 'ERR_BUS_OTHER', 'failed'],
  [0x75, 'ERR_BUS_NOT_SUPPORTED', 'not supported'],
  [0x76, 'ERR_BUS_BUSY', 'busy'],
  [0x77, 'ERR_BUS_NOT_DELIVERED', 'not delivered'],
  [0x78, 'ERR_BUS_TIMEOUT', 'timed out'],
  [0x79, 'ERR_BUS_ACCESS', 'denied'],
  [0xff, 'ERR_BUS_DISCONNECTED', 'receiver'],
]

test.serial('all 256 codes of an acknowledgement have a meaning', async (t) => {
  const broker = await FakeBroker.listen(t)
  const client = closing(t, await connect(broker.address, { name: 'me' }))
  const known = new Map(WIRE.map(([wireCode, code, text]) => [wireCode, [code, text] as const]))
  for (let wireCode = 0; wireCode < 256; wireCode += 1) {
    const sent = client.send('target', 'x', { ack: true })
    broker.acknowledge((await broker.next()).id, wireCode)
    if (wireCode === 1) {
      t.is(await soon(sent, 'done'), undefined)
      continue
    }
    const [code, text] = known.get(wireCode) ?? (['ERR_BUS_OTHER', 'failed'] as const)
    isBusError(t, await reasonOf(sent), {
      code,
      // What is not known reads as "other".
      wireCode: known.has(wireCode) ? wireCode : 0x74,
      says: ['message to target', text],
    })
    if (known.has(wireCode)) REACHED[code] = true
  }
})

test.serial('a refusal names the operation and what it was about', async (t) => {
  const broker = await FakeBroker.listen(t)
  const client = closing(t, await connect(broker.address, { name: 'me' }))
  const verbs: [() => Promise<unknown>, string][] = [
    [() => client.send('target', 'x', { ack: true }), 'message to target is denied'],
    [() => client.broadcast('mask.*', 'x', { ack: true }), 'broadcast to mask.* is denied'],
    [() => client.publish('a/topic', 'x', { ack: true }), 'publication to a/topic is denied'],
    [() => client.publish('a/topic', 'x', { ack: true, for: 'you' }), 'publication to a/topic is denied'],
    [() => client.exclude('a/#'), 'exclusion of a/# is denied'],
    [() => client.unexclude('a/#'), 'unexclusion of a/# is denied'],
    [() => client.call('target', 'method'), 'call to target is denied'],
    [() => client.call('target', 'method', null, { reply: false }), 'call to target is denied'],
    [() => client.subscribe('a/+').ready, 'subscription to a/+ is denied'],
  ]
  for (const [run, message] of verbs) {
    const promise = run()
    broker.acknowledge((await broker.next()).id, 0x79)
    const error = isBusError(t, await reasonOf(promise), { code: 'ERR_BUS_ACCESS', wireCode: 0x79 })
    t.is(error.message, message)
  }
})

test.serial('ERR_BUS_INTERNAL: without its addon the package says so, and for which platform', async (t) => {
  const { folder, load } = packageCopy(t)
  writeFileSync(path.join(folder, 'npm', 'binding.js'), "throw new Error('no such addon')")
  const { name, code, message, cause } = await load()
  t.deepEqual([name, code, cause], ['BusError', 'ERR_BUS_INTERNAL', 'no such addon'])
  t.true(message?.includes(`elbus-node-${process.platform}-${process.arch}`), message)
  REACHED.ERR_BUS_INTERNAL = true
})

test.serial('every code was reached, and the documentation of the type has no other', (t) => {
  t.deepEqual(
    Object.entries(REACHED).filter(([, reached]) => !reached),
    [],
  )
  const types = readFileSync(path.join(path.dirname(require.resolve('elbus-node')), 'errors.d.ts'), 'utf8')
  const declared = new Set(types.match(/'ERR_BUS_[A-Z_]+'/g)?.map((text) => text.slice(1, -1)))
  t.deepEqual([...declared].sort(), Object.keys(REACHED).sort())
})

// ---- the classes

test('a BusError is made as it is documented', (t) => {
  const cause = new Error('cause')
  const error = new BusError('ERR_BUS_IO', 'text', { cause, wireCode: 0x73 })
  t.true(error instanceof Error)
  t.like(error, { name: 'BusError', code: 'ERR_BUS_IO', message: 'text', wireCode: 0x73, cause })
  const plain = new BusError('ERR_BUS_IO', 'text')
  t.is(plain.wireCode, undefined)
  t.false('cause' in plain)
  t.regex(String(plain), /^BusError: text$/)
})

test('an RpcError tells its code, and the bus code that is in it', (t) => {
  for (const [rpcCode, wireCode] of [
    [-32113, 0x71],
    [-32121, 0x79],
    [-32255, 0xff],
    [-32001, undefined],
    [-32601, undefined],
    [5, undefined],
  ] as const) {
    const error = new RpcError(rpcCode, { any: 1 })
    t.true(error instanceof BusError)
    t.like(error, { name: 'RpcError', code: 'ERR_BUS_RPC', rpcCode, wireCode, data: { any: 1 } })
    t.true(error.message.length > 0)
  }
  t.is(new RpcError(1, 'own text').message, 'own text')
  for (const code of [1.5, 32_768, -32_769, Number.NaN, '1' as unknown as number]) {
    throwsBus(t, () => new RpcError(code), { code: 'ERR_BUS_ARGUMENT', says: [String(code)] })
  }
})

overEach(ALL, 'a verb that returns a Promise never throws', async (t, bus) => {
  const client = await bus.open('me')
  const bytes = Buffer.from([0x01])
  const circle: unknown[] = []
  circle.push(circle)
  await rejectsBus(t, () => client.send('me', bytes, { ack: true }), { code: 'ERR_BUS_PAYLOAD' })
  await rejectsBus(t, () => client.send('me', circle, { ack: true }), { code: 'ERR_BUS_PAYLOAD' })
  await rejectsBus(t, () => client.broadcast('me', circle, { ack: true }), { code: 'ERR_BUS_PAYLOAD' })
  await rejectsBus(t, () => client.publish('me', circle, { ack: true }), { code: 'ERR_BUS_PAYLOAD' })
  await rejectsBus(t, () => client.publish('me', 'x', { ack: true, for: '' }), { code: 'ERR_BUS_ARGUMENT' })
  await rejectsBus(t, () => client.call('me', 'method', circle), { code: 'ERR_BUS_PAYLOAD' })
  await rejectsBus(t, () => client.call('me', 'method', circle, { reply: false }), {
    code: 'ERR_BUS_PAYLOAD',
  })
  await rejectsBus(t, () => client.call('a\0', 'method'), { code: 'ERR_BUS_NAME' })
  await rejectsBus(t, () => client.call('me', 'method', 1, { timeout: 0 }), { code: 'ERR_BUS_ARGUMENT' })
  await rejectsBus(t, () => client.exclude([]), { code: 'ERR_BUS_ARGUMENT' })
  await rejectsBus(t, () => client.unexclude([]), { code: 'ERR_BUS_ARGUMENT' })
  await rejectsBus(t, () => client.rtt({ timeout: 0 }), { code: 'ERR_BUS_ARGUMENT' })
  await rejectsBus(t, () => bus.broker.close({ drain: -1 }), { code: 'ERR_BUS_ARGUMENT', says: ['drain'] })
  // A refused option is no close: it can be done properly after it.
  t.true(client.connected)
})

test.serial('ERR_BUS_ADDRESS of a listener names it', async (t) => {
  const broker = await startBroker(t)
  const socket = socketPath(t)
  await broker.listen(`unix:${socket}`)
  await rejectsBus(t, () => broker.listen(`unix:${socket}`), { code: 'ERR_BUS_ADDRESS', says: [socket] })
  await rejectsBus(t, () => Broker.start({ listen: [`unix:${socket}`] }), {
    code: 'ERR_BUS_ADDRESS',
    says: [socket],
  })
  throwsBus(t, () => broker.forceDisconnect('a\0b'), { code: 'ERR_BUS_NAME' })
  const client = closing(t, await broker.client('inside'))
  throwsBus(t, () => broker.forceDisconnect('inside'), { code: 'ERR_BUS_NOT_SUPPORTED', says: ['inside'] })
  t.true(client.connected)
  await broker.close({ drain: 0 })
  throwsBus(t, () => broker.stats(), { code: 'ERR_BUS_CLOSED' })
  await rejectsBus(t, () => broker.client('late'), { code: 'ERR_BUS_CLOSED' })
})

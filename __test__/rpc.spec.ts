// Calls: what goes there and comes back, how they fail, and what becomes of those nobody waits for any more.

import { getEventListeners } from 'node:events'
import test from 'ava'
import { type BusError, type CallContext, type Client, connect, RpcError } from 'elbus-node'
import { isBusError, reasonOf, rejectsBus, throwsBus } from './support/bus-error'
import { FakeBroker } from './support/fake-broker'
import { texts } from './support/messages'
import { testIf } from './support/skip'
import { ALL, type Bus, closing, LOCAL, missing, overEach, SOCKETS, startBus } from './support/transports'
import { soon, until } from './support/within'

/** A promise and how to settle it. */
interface Deferred<T> {
  readonly promise: Promise<T>
  readonly resolve: (value: T) => void
  readonly reject: (error: unknown) => void
}

function deferred<T = void>(): Deferred<T> {
  let resolve!: (value: T) => void
  let reject!: (error: unknown) => void
  const promise = new Promise<T>((yes, no) => {
    resolve = yes
    reject = no
  })
  return { promise, resolve, reject }
}

async function pair(bus: Bus): Promise<[caller: Client, callee: Client]> {
  return [await bus.open('caller'), await bus.open('callee')]
}

/** What arrives at `fault` of a client. */
function faultsOf(client: Client): unknown[] {
  const faults: unknown[] = []
  client.on('fault', (error) => faults.push(error))
  return faults
}

// ---- what goes there and comes back

const VALUES: Record<string, unknown> = {
  null: null,
  true: true,
  false: false,
  zero: 0,
  'small integers': [1, 127, 128, 255, 256, 65_535, 65_536, 2 ** 32 - 1, 2 ** 32, Number.MAX_SAFE_INTEGER],
  'negative integers': [-1, -32, -33, -128, -129, -32_768, -32_769, -(2 ** 31), Number.MIN_SAFE_INTEGER],
  fractions: [0.1, -0.5, 1e300, 5e-324, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY],
  'big integers': [2n ** 63n, -(2n ** 63n), 2n ** 64n - 1n],
  'empty text': '',
  text: 'żółw 🐢 \u0000 end',
  'long text': 'ü'.repeat(70_000),
  'empty list': [],
  'empty object': {},
  nested: { a: [{ b: { c: [[], [null], 'x'] } }], 'key with spaces': 1, ' ': false },
  'bytes inside': { bytes: new Uint8Array([0, 1, 255]), none: new Uint8Array(0) },
  date: new Date(1_700_000_000_123),
}

overEach(ALL, 'params and results of every kind come through as they were', async (t, bus) => {
  const [caller, callee] = await pair(bus)
  callee.serve({ echo: (params: unknown) => params, later: async (params: unknown) => params })
  for (const [what, value] of Object.entries(VALUES)) {
    t.deepEqual(await soon(caller.call('callee', 'echo', value), what), value, what)
    t.deepEqual(await soon(caller.call('callee', 'later', value), what), value, what)
  }
  t.is(await caller.call('callee', 'echo', Number.NaN), Number.NaN)
})

overEach(ALL, 'no params are undefined, and so is no result', async (t, bus) => {
  const [caller, callee] = await pair(bus)
  const seen: unknown[] = []
  callee.serve({ note: (...given: unknown[]) => void seen.push(given[0], given.length) })
  t.is(await caller.call('callee', 'note'), undefined)
  t.is(await caller.call('callee', 'note', undefined), undefined)
  t.deepEqual(seen, [undefined, 2, undefined, 2])
})

overEach(ALL, 'params and results around every size limit', async (t, bus) => {
  const [caller, callee] = await pair(bus)
  callee.serve({ echo: (params: unknown) => params })
  for (const size of [
    1, 24, 8_180, 8_192, 8_200, 65_500, 65_536, 65_600, 262_100, 262_144, 262_200, 2_000_000,
  ]) {
    const bytes = new Uint8Array(size).map((_, index) => index * 31 + size)
    const { back } = await soon(
      caller.call<{ back: Uint8Array }>('callee', 'echo', { back: bytes }),
      `${size}`,
    )
    t.is(Buffer.compare(back, bytes), 0, `${size} bytes`)
  }
})

overEach(ALL, 'raw params and results are the bytes themselves, whatever they are', async (t, bus) => {
  const [caller, callee] = await pair(bus)
  callee.serve({ raw: (params: Uint8Array) => params }, { raw: true })
  callee.serve({ same: (params: unknown) => params })
  for (const bytes of [[], [0xc1], [0x00], [0x11, 0, 0, 0, 0], [0xff, 0xfe, 0x00]]) {
    const result = await caller.call<Uint8Array>('callee', 'raw', Uint8Array.from(bytes), { raw: true })
    t.true(result instanceof Uint8Array)
    t.deepEqual([...result], bytes)
  }
  // A Buffer is bytes too; without `raw` they are read as what they hold.
  t.is(await caller.call('callee', 'raw', Buffer.from([42])), 42)
  t.is(await caller.call('callee', 'same', Buffer.from([42])), 42)
  t.deepEqual([...(await caller.call<Uint8Array>('callee', 'same', 'é', { raw: true }))], [0xa2, 0xc3, 0xa9])
})

overEach(ALL, 'a result that is no MessagePack rejects, and the bytes can be had raw', async (t, bus) => {
  const [caller, callee] = await pair(bus)
  callee.serve({ junk: () => Uint8Array.of(0xc1) })
  const error = await rejectsBus(t, () => caller.call('callee', 'junk'), {
    code: 'ERR_BUS_PAYLOAD',
    says: ['callee'],
  })
  t.true(error.cause instanceof Error)
  t.deepEqual([...(await caller.call<Uint8Array>('callee', 'junk', undefined, { raw: true }))], [0xc1])
})

overEach(ALL, 'raw results stay as they are while others follow', async (t, bus) => {
  const [caller, callee] = await pair(bus)
  callee.serve({ fill: (byte: number) => new Uint8Array(1_000).fill(byte) })
  const kept: Uint8Array[] = []
  for (let byte = 0; byte < 250; byte += 1) {
    kept.push(await caller.call<Uint8Array>('callee', 'fill', byte, { raw: true }))
  }
  for (let round = 0; round < 1_000; round += 1) await caller.call('callee', 'fill', 255, { raw: true })
  t.true(kept.every((bytes, byte) => bytes.every((value) => value === byte)))
})

overEach(ALL, 'a handler is told who calls what, and whether realtime was asked', async (t, bus) => {
  const [caller, callee] = await pair(bus)
  const second = closing(t, await caller.secondary())
  callee.serve({
    who: (_params: unknown, { sender, method, realtime }: CallContext) => ({ sender, method, realtime }),
  })
  t.deepEqual(await caller.call('callee', 'who'), { sender: 'caller', method: 'who', realtime: false })
  t.deepEqual(await caller.call('callee', 'who', null, { realtime: true }), {
    sender: 'caller',
    method: 'who',
    realtime: true,
  })
  t.deepEqual(await second.call('callee', 'who'), { sender: second.name, method: 'who', realtime: false })
})

overEach(ALL, 'methods are found by their exact name', async (t, bus) => {
  const [caller, callee] = await pair(bus)
  const names = ['a', 'A', 'a.b', 'ä/ö', ' ', '', '__proto__', 'x'.repeat(1_000)]
  const handlers = Object.fromEntries(names.map((name) => [name, () => `<${name}>`]))
  const server = callee.serve(handlers)
  t.deepEqual(server.methods, Object.keys(handlers))
  for (const name of server.methods) t.is(await caller.call('callee', name), `<${name}>`)
  for (const name of ['b', 'a ', 'toString', 'constructor', 'hasOwnProperty', 'X'.repeat(1_000)]) {
    const error = await rejectsBus(t, () => caller.call('callee', name), { code: 'ERR_BUS_RPC' })
    t.is((error as RpcError).rpcCode, -32601, name)
  }
  await rejectsBus(t, () => caller.call('callee', 'a\0b'), { code: 'ERR_BUS_NAME' })
  await rejectsBus(t, () => caller.call('callee', 'x'.repeat(5_000)), { code: 'ERR_BUS_NAME' })
})

overEach(ALL, 'calls of one caller begin in the order they were made', async (t, bus) => {
  const [caller, callee] = await pair(bus)
  const seen: number[] = []
  callee.serve({ note: (number: number) => void seen.push(number) })
  const numbers = Array.from({ length: 3_000 }, (_, index) => index)
  await soon(Promise.all(numbers.map((number) => caller.call('callee', 'note', number))), 'all results')
  t.deepEqual(seen, numbers)
})

overEach(ALL, 'C45: a client calls itself, and a handler calls its caller back', async (t, bus) => {
  const [caller, callee] = await pair(bus)
  caller.serve({ name: () => 'the caller' })
  callee.serve({
    twice: async (_params: unknown, { sender }: CallContext) => `${await callee.call(sender, 'name')} twice`,
    own: () => callee.call('callee', 'twice'),
  })
  t.is(await soon(caller.call('caller', 'name'), 'a call to itself'), 'the caller')
  t.is(await soon(caller.call('callee', 'twice'), 'a call back'), 'the caller twice')
  // Its own handlers have no method `name`.
  const error = await rejectsBus(t, () => caller.call('callee', 'own'), { code: 'ERR_BUS_RPC' })
  t.is((error as RpcError).rpcCode, -32601)
})

overEach(ALL, '10,000 calls in flight are each given their own result, in whatever order', async (t, bus) => {
  const [caller, callee] = await pair(bus)
  const count = 10_000
  const waiting: (() => void)[] = []
  const all = deferred()
  callee.serve(
    {
      square: (number: number) =>
        new Promise((resolve) => {
          waiting.push(() => resolve(number * number))
          if (waiting.length === count) all.resolve()
        }),
    },
    { concurrency: count },
  )
  const numbers = Array.from({ length: count }, (_, index) => index)
  const results = Promise.all(
    numbers.map((number) => caller.call<number>('callee', 'square', number, { timeout: 60_000 })),
  )
  await soon(all.promise, 'all calls are at work')
  // Every third from the end first.
  for (let third = 2; third >= 0; third -= 1) {
    for (let index = count - 1; index >= 0; index -= 1) if (index % 3 === third) waiting[index]?.()
  }
  t.deepEqual(
    await soon(results, 'all results'),
    numbers.map((number) => number * number),
  )
})

test('as many calls as there are numbers can be awaited, one more is refused', async (t) => {
  const bus = await startBus(t, 'broker.client', { queue: { frames: 200_000, bytes: 64 << 20 } })
  const [caller, callee] = await pair(bus)
  const held = deferred()
  callee.serve({ hold: () => held.promise }, { concurrency: 100_000 })
  const calls = Array.from({ length: 65_536 }, () =>
    caller.call('callee', 'hold', undefined, { timeout: Number.POSITIVE_INFINITY }),
  )
  await rejectsBus(t, () => caller.call('callee', 'hold'), { code: 'ERR_BUS_OVERFLOW' })
  held.resolve()
  await soon(Promise.all(calls), 'all of them')
  t.is(await caller.call('callee', 'hold'), undefined)
})

// ---- failures

overEach(
  ALL,
  'C47: what a handler throws stays with its owner: the caller sees an internal error',
  async (t, bus) => {
    const [caller, callee] = await pair(bus)
    const faults = faultsOf(callee)
    const thrown: unknown[] = [new Error('a secret'), 'a string', null, undefined, 7, { toString: 1 }]
    callee.serve({
      throws: (index: number) => {
        throw thrown[index]
      },
      rejects: async (index: number) => {
        throw thrown[index]
      },
    })
    for (const method of ['throws', 'rejects']) {
      for (const index of thrown.keys()) {
        const error = await rejectsBus(t, () => caller.call('callee', method, index), {
          code: 'ERR_BUS_RPC',
          wireCode: undefined,
        })
        t.true(error instanceof RpcError)
        t.is((error as RpcError).rpcCode, -32603)
        t.is((error as RpcError).data, undefined)
        t.false(error.message.includes('secret'))
      }
    }
    t.deepEqual(faults, [...thrown, ...thrown])
    t.true(callee.connected)
  },
)

overEach(ALL, 'with exposeErrors the caller sees the text', async (t, bus) => {
  const [caller, callee] = await pair(bus)
  const faults = faultsOf(callee)
  callee.serve(
    {
      throws: () => {
        throw new TypeError('disk füll')
      },
      nothing: () => {
        throw new Error('')
      },
      odd: () => Promise.reject(7),
    },
    { exposeErrors: true },
  )
  const error = (await reasonOf(caller.call('callee', 'throws'))) as RpcError
  isBusError(t, error, { code: 'ERR_BUS_RPC', says: ['disk füll'] })
  t.is(error.rpcCode, -32603)
  t.is(error.data, 'disk füll')
  for (const method of ['nothing', 'odd']) {
    t.like(await reasonOf(caller.call('callee', method)), { rpcCode: -32603, data: undefined })
  }
  t.is(faults.length, 3)
})

const DATA: Record<string, unknown> = {
  nothing: undefined,
  text: 'no such röom',
  'a long text': 'ab'.repeat(10_000),
  null: null,
  true: true,
  false: false,
  object: { room: 'a/b', tries: [1, 2] },
  'empty object': {},
  list: [1, 'two'],
  'empty list': [],
  fraction: 0.25,
  bytes: Uint8Array.of(0xff, 0xfe, 0xfd),
}

overEach(ALL, 'an RpcError comes through with its code and data, and is no fault', async (t, bus) => {
  const [caller, callee] = await pair(bus)
  const faults = faultsOf(callee)
  callee.serve({
    fail: ([code, key]: [number, string]) => {
      throw new RpcError(code, DATA[key])
    },
    reject: async ([code, key]: [number, string]) => {
      throw new RpcError(code, DATA[key])
    },
  })
  for (const [key, data] of Object.entries(DATA)) {
    for (const method of ['fail', 'reject']) {
      const error = (await reasonOf(caller.call('callee', method, [42, key]))) as RpcError
      t.true(error instanceof RpcError, key)
      t.is(error.code, 'ERR_BUS_RPC')
      t.is(error.name, 'RpcError')
      t.is(error.rpcCode, 42)
      t.deepEqual(error.data, data, key)
    }
  }
  for (const code of [-32768, -32602, -1, 0, 1, 255, 32767]) {
    t.like(await reasonOf(caller.call('callee', 'fail', [code, 'nothing'])), {
      rpcCode: code,
      wireCode: undefined,
    })
  }
  t.like(await reasonOf(caller.call('callee', 'fail', [-32121, 'nothing'])), {
    rpcCode: -32121,
    wireCode: 0x79,
  })
  t.deepEqual(faults, [])
})

overEach(ALL, 'a number as the data of an RpcError comes through as a number', async (t, bus) => {
  const [caller, callee] = await pair(bus)
  callee.serve({
    fail: (data: unknown) => {
      throw new RpcError(1, data)
    },
  })
  for (const data of [
    0, 1, 65, 127, 128, 150, 191, 200, 32_768, 65_535, 65_536, -1, -32, -65, -100, -128, 1e10,
  ]) {
    t.like(await reasonOf(caller.call('callee', 'fail', data)), { data })
  }
})

test('an RpcError has a code of 16 bits', (t) => {
  for (const code of [-32769, 32768, 0.5, Number.NaN, Number.POSITIVE_INFINITY, '1' as unknown as number]) {
    throwsBus(t, () => new RpcError(code), { code: 'ERR_BUS_ARGUMENT', says: [String(code)] })
  }
  t.like(new RpcError(5, 'text'), { message: 'text', data: 'text', rpcCode: 5, code: 'ERR_BUS_RPC' })
})

overEach(ALL, 'nobody of that name, nobody who serves, no such method', async (t, bus) => {
  const [caller, callee] = await pair(bus)
  await rejectsBus(t, () => caller.call('nobody', 'x'), {
    code: 'ERR_BUS_NOT_REGISTERED',
    wireCode: 0x71,
    says: ['nobody'],
  })
  t.like(await reasonOf(caller.call('callee', 'x')), { rpcCode: -32601, code: 'ERR_BUS_RPC' })
  callee.serve({ y: () => 1 })
  t.like(await reasonOf(caller.call('callee', 'x')), { rpcCode: -32601, data: undefined })
  t.is(await caller.call('callee', 'y'), 1)
})

overEach(
  ALL,
  'params that are no MessagePack are answered with a parse error, and the handler does not run',
  async (t, bus) => {
    const [caller, callee] = await pair(bus)
    let runs = 0
    callee.serve({ count: () => (runs += 1) })
    for (const bytes of [[0xc1], [1, 2], [0xdd, 0xff, 0xff, 0xff, 0xff], [0xa5, 0x61]]) {
      t.like(await reasonOf(caller.call('callee', 'count', Uint8Array.from(bytes))), { rpcCode: -32700 })
    }
    t.is(runs, 0)
    t.is(await caller.call('callee', 'count', [1]), 1)
  },
)

overEach(ALL, 'C47: params and results that cannot be encoded are told at once', async (t, bus) => {
  const [caller, callee] = await pair(bus)
  const faults = faultsOf(callee)
  const circular: Record<string, unknown> = {}
  circular.self = circular
  const unsendable = { function: () => 1, symbol: Symbol('s'), circular }
  let runs = 0
  callee.serve({
    give: (key: keyof typeof unsendable) => {
      runs += 1
      return { inside: unsendable[key] }
    },
    late: async (key: keyof typeof unsendable) => ({ inside: unsendable[key] }),
  })
  for (const key of ['function', 'symbol', 'circular'] as const) {
    await rejectsBus(t, () => caller.call('callee', 'give', unsendable[key]), { code: 'ERR_BUS_PAYLOAD' })
    t.like(await reasonOf(caller.call('callee', 'give', key)), { rpcCode: -32603 })
    t.like(await reasonOf(caller.call('callee', 'late', key)), { rpcCode: -32603 })
  }
  t.is(runs, 3)
  t.is(faults.length, 6)
  t.true(faults.every((fault) => (fault as BusError).code === 'ERR_BUS_PAYLOAD'))
})

overEach(
  SOCKETS,
  'C47: params larger than a frame reject at once, and a result larger than a frame fails the call',
  async (t, bus) => {
    const options = { frameBytes: 100_000 }
    const caller = closing(t, await connect(bus.address, { name: 'caller', ...options }))
    const callee = closing(t, await connect(bus.address, { name: 'callee', ...options }))
    const faults = faultsOf(callee)
    callee.serve(
      { make: (size: number) => new Uint8Array(size), size: (bytes: Uint8Array) => bytes.length },
      { raw: false },
    )
    await rejectsBus(t, () => caller.call('callee', 'size', { bytes: new Uint8Array(200_000) }), {
      code: 'ERR_BUS_PAYLOAD',
    })
    t.like(await reasonOf(caller.call('callee', 'make', 200_000, { timeout: 10_000 })), { rpcCode: -32603 })
    t.is(faults.length, 1)
    t.true(callee.connected && caller.connected)
    t.is((await caller.call<Uint8Array>('callee', 'make', 50_000, { raw: true })).length, 50_000)
  },
)

testIf(missing('unix'))('a client with rpc: false neither calls nor serves', async (t) => {
  const bus = await startBus(t, 'unix')
  const plain = await bus.open('plain', { rpc: false })
  await rejectsBus(t, () => plain.call('x', 'y'), { code: 'ERR_BUS_NOT_SUPPORTED' })
  throwsBus(t, () => plain.notify('x', 'y'), { code: 'ERR_BUS_NOT_SUPPORTED' })
  throwsBus(t, () => plain.serve({ x: () => 1 }), { code: 'ERR_BUS_NOT_SUPPORTED' })
})

// ---- bounds of a call

overEach(
  ALL,
  'a handler that never resolves costs its caller the timeout, and nobody else anything',
  async (t, bus) => {
    const [caller, callee] = await pair(bus)
    const server = callee.serve({ never: () => new Promise(() => undefined), now: () => 'now' })
    const call = caller.call('callee', 'never', undefined, { timeout: 30 })
    t.is(await caller.call('callee', 'now'), 'now')
    isBusError(t, await reasonOf(call), { code: 'ERR_BUS_TIMEOUT', wireCode: undefined, says: ['callee'] })
    t.is(await caller.call('callee', 'now'), 'now')
    t.is(server.active, 1)
  },
)

overEach(ALL, 'timeouts fall due in their own order', async (t, bus) => {
  const [caller, callee] = await pair(bus)
  callee.serve({ never: () => new Promise(() => undefined) })
  const order: number[] = []
  const timeouts = [300, 20, 150, 80]
  await soon(
    Promise.all(
      timeouts.map((timeout) =>
        caller.call('callee', 'never', null, { timeout }).catch(() => order.push(timeout)),
      ),
    ),
    'all timeouts',
  )
  t.deepEqual(order, [20, 80, 150, 300])
})

overEach(ALL, 'C29: a reply that comes too late is nobody else’s', async (t, bus) => {
  const [caller, callee] = await pair(bus)
  const late = deferred<string>()
  callee.serve({ late: () => late.promise, echo: (params: unknown) => params })
  await rejectsBus(t, () => caller.call('callee', 'late', null, { timeout: 1 }), { code: 'ERR_BUS_TIMEOUT' })
  // These take the place of the one given up.
  const calls = Array.from({ length: 20 }, (_, index) => caller.call('callee', 'echo', index))
  late.resolve('too late')
  t.deepEqual(await Promise.all(calls), [...calls.keys()])
})

overEach(ALL, 'a timeout that is none is refused', async (t, bus) => {
  const [caller, callee] = await pair(bus)
  let runs = 0
  callee.serve({ x: () => (runs += 1) })
  for (const timeout of [0, -1, Number.NaN, '5' as unknown as number]) {
    await rejectsBus(t, () => caller.call('callee', 'x', null, { timeout }), {
      code: 'ERR_BUS_ARGUMENT',
      says: ['timeout', String(timeout)],
    })
  }
  for (const timeout of [0.5 + 60_000, 2 ** 31, 2 ** 53, Number.POSITIVE_INFINITY]) {
    await caller.call('callee', 'x', null, { timeout })
  }
  t.is(runs, 4)
})

overEach(ALL, 'a call is given up when its signal aborts, with the reason', async (t, bus) => {
  const [caller, callee] = await pair(bus)
  const begun = deferred()
  let runs = 0
  callee.serve({
    never: () => {
      runs += 1
      begun.resolve()
      return new Promise(() => undefined)
    },
    echo: (params: unknown) => params,
  })
  const gone = new AbortController()
  gone.abort('at once')
  t.is(await reasonOf(caller.call('callee', 'never', null, { signal: gone.signal })), 'at once')
  const control = new AbortController()
  const call = caller.call('callee', 'never', null, { signal: control.signal })
  await begun.promise
  const reason = new Error('changed my mind')
  control.abort(reason)
  t.is(await reasonOf(call), reason)
  t.is(runs, 1)
  // A signal for many calls keeps no trace of those that are over, and Node does not take it for a leak.
  const many = new AbortController()
  const warnings: Error[] = []
  const warned = (warning: Error): void => void warnings.push(warning)
  process.on('warning', warned)
  t.teardown(() => process.off('warning', warned))
  await Promise.all(
    Array.from({ length: 50 }, (_, n) => caller.call('callee', 'echo', n, { signal: many.signal })),
  )
  await rejectsBus(t, () => caller.call('callee', 'never', 1, { signal: many.signal, timeout: 5 }), {
    code: 'ERR_BUS_TIMEOUT',
  })
  t.is(getEventListeners(many.signal, 'abort').length, 0)
  t.deepEqual(
    warnings.filter(({ name }) => name === 'MaxListenersExceededWarning'),
    [],
  )
})

overEach(ALL, 'reply: false resolves when the call is delivered, and its handler runs', async (t, bus) => {
  const [caller, callee] = await pair(bus)
  const faults = faultsOf(callee)
  const seen: unknown[] = []
  const all = deferred()
  callee.serve({
    note: (params: unknown, { sender, method }: CallContext) => {
      seen.push([params, sender, method])
      if (seen.length === 2) all.resolve()
      return 'ignored'
    },
    throws: () => {
      throw new Error('told to nobody else')
    },
  })
  t.is(await caller.call('callee', 'note', { a: 1 }, { reply: false }), undefined)
  await caller.call('callee', 'throws', null, { reply: false })
  await caller.call('callee', 'missing', null, { reply: false })
  await caller.call('callee', 'note', null, { reply: false, realtime: true })
  await soon(all.promise, 'both run')
  t.deepEqual(seen, [
    [{ a: 1 }, 'caller', 'note'],
    [null, 'caller', 'note'],
  ])
  t.is(faults.length, 1)
  await rejectsBus(t, () => caller.call('nobody', 'note', null, { reply: false }), {
    code: 'ERR_BUS_NOT_REGISTERED',
    says: ['nobody'],
  })
})

test('a call without reply is bounded by its timeout and signal too', async (t) => {
  const broker = await FakeBroker.listen(t)
  const caller = closing(t, await connect(broker.address, { name: 'caller' }))
  await rejectsBus(t, () => caller.call('x', 'y', null, { reply: false, timeout: 5 }), {
    code: 'ERR_BUS_TIMEOUT',
  })
  const signal = AbortSignal.abort('no')
  t.is(await reasonOf(caller.call('x', 'y', null, { reply: false, signal })), 'no')
})

// ---- notifications

overEach(ALL, 'notifications reach every onNotification, and nothing else', async (t, bus) => {
  const [caller, callee] = await pair(bus)
  const inbox = callee.messages()
  const seen: unknown[] = []
  const done = deferred()
  const server = callee.serve({}, { onNotification: (data, context) => void seen.push([[...data], context]) })
  callee.serve(
    { x: () => 1 },
    {
      onNotification: (data) => {
        seen.push(Buffer.from(data).toString())
        if (data.length === 3) done.resolve()
      },
    },
  )
  const context = { sender: 'caller', realtime: false }
  t.true(caller.notify('callee', 'hi'))
  t.true(caller.notify('callee', Uint8Array.of(0x11)))
  t.true(caller.notify('callee'))
  t.true(caller.notify('callee', { a: 1 }))
  t.true(caller.notify('nobody', 'lost'))
  await caller.flush()
  await until(() => seen.length === 8, 'notifications arrive')
  server.close()
  caller.notify('callee', 'end')
  await soon(done.promise, 'the last one')
  t.deepEqual(seen, [
    [[0x68, 0x69], context],
    'hi',
    [[0x11], context],
    '\u0011',
    [[], context],
    '',
    [[0x81, 0xa1, 0x61, 0x01], context],
    '\ufffd\ufffda\u0001',
    'end',
  ])
  caller.send('callee', 'a message')
  t.deepEqual(await texts(inbox, 1), ['a message'])
})

overEach(ALL, 'what onNotification throws raises fault and costs no other notification', async (t, bus) => {
  const [caller, callee] = await pair(bus)
  const faults = faultsOf(callee)
  let seen = 0
  callee.serve(
    {},
    {
      onNotification: (data) => {
        if (data[0] === 1) throw new Error('thrown')
        if (data[0] === 2) return Promise.reject(new Error('rejected'))
        return undefined
      },
    },
  )
  callee.serve({}, { onNotification: () => (seen += 1) })
  for (let index = 0; index < 30; index += 1) caller.notify('callee', Uint8Array.of(index % 3))
  await until(() => seen === 30 && faults.length === 20, 'all are seen')
  t.is(faults.filter((fault) => (fault as Error).message === 'rejected').length, 10)
})

// ---- serving

overEach(ALL, 'beyond its concurrency a server says that it is busy', async (t, bus) => {
  const [caller, callee] = await pair(bus)
  const held = deferred<string>()
  const server = callee.serve({ hold: () => held.promise, now: () => 'now' }, { concurrency: 2 })
  callee.serve({ other: () => 'other' })
  const calls = [caller.call('callee', 'hold'), caller.call('callee', 'hold')]
  for (const method of ['hold', 'now']) {
    const error = await rejectsBus(t, () => caller.call('callee', method), {
      code: 'ERR_BUS_RPC',
      wireCode: 0x76,
    })
    t.is((error as RpcError).rpcCode, -32118)
  }
  t.is(server.active, 2)
  // Each server has a bound of its own.
  t.is(await caller.call('callee', 'other'), 'other')
  held.resolve('held')
  t.deepEqual(await Promise.all(calls), ['held', 'held'])
  t.is(server.active, 0)
  t.is(await caller.call('callee', 'now'), 'now')
})

test('options of serve are checked', async (t) => {
  const bus = await startBus(t, 'broker.client')
  const client = await bus.open('one')
  for (const concurrency of [0, -1, 1.5, Number.NaN, '2' as unknown as number]) {
    throwsBus(t, () => client.serve({ x: () => 1 }, { concurrency }), {
      code: 'ERR_BUS_ARGUMENT',
      says: ['concurrency'],
    })
  }
  throwsBus(t, () => client.serve({ x: 1 as unknown as () => void }), {
    code: 'ERR_BUS_ARGUMENT',
    says: ['"x"'],
  })
  throwsBus(t, () => client.serve({}, { onNotification: 1 as unknown as () => void }), {
    code: 'ERR_BUS_ARGUMENT',
    says: ['onNotification'],
  })
  // What was refused is not served in part.
  t.like(await reasonOf(client.call('one', 'x')), { rpcCode: -32601 })
  t.is(client.serve({ x: () => 1 }).methods.length, 1)
})

overEach(ALL, 'a method is served once; a refused serve serves nothing', async (t, bus) => {
  const [caller, callee] = await pair(bus)
  const first = callee.serve({ a: () => 'first' })
  throwsBus(t, () => callee.serve({ b: () => 'second', a: () => 'second' }), {
    code: 'ERR_BUS_ARGUMENT',
    says: ['"a"'],
  })
  t.like(await reasonOf(caller.call('callee', 'b')), { rpcCode: -32601 })
  t.is(await caller.call('callee', 'a'), 'first')
  first.close()
  callee.serve({ a: () => 'third' })
  // Closing again must not close whoever serves it now.
  first.close()
  t.is(await caller.call('callee', 'a'), 'third')
})

overEach(ALL, 'a closed server answers no further call and finishes those at work', async (t, bus) => {
  const [caller, callee] = await pair(bus)
  const held = deferred<string>()
  const server = callee.serve({ hold: () => held.promise, x: () => 1 })
  const call = caller.call('callee', 'hold')
  t.is(await caller.call('callee', 'x'), 1)
  server[Symbol.dispose]()
  t.like(await reasonOf(caller.call('callee', 'x')), { rpcCode: -32601 })
  held.resolve('finished')
  t.is(await soon(call, 'the call at work'), 'finished')
  t.is(server.active, 0)
})

overEach(ALL, 'a thenable is awaited like a Promise', async (t, bus) => {
  const [caller, callee] = await pair(bus)
  callee.serve({
    // biome-ignore lint/suspicious/noThenProperty: what is tested
    thenable: () => ({ then: (resolve: (value: string) => void) => resolve('resolved') }),
    // biome-ignore lint/suspicious/noThenProperty: what is tested
    data: () => ({ then: 'no function' }),
  })
  t.is(await caller.call('callee', 'thenable'), 'resolved')
  t.deepEqual(await caller.call('callee', 'data'), JSON.parse('{"then":"no function"}'))
})

// ---- callers who do not wait any more

interface Held {
  readonly context: CallContext
  readonly aborted: Promise<unknown>
}

/** Serves `hold`, which waits until its signal aborts; each call at work is given to `begun`. */
function holding(callee: Client, begun: (held: Held) => void): void {
  callee.serve({
    hold: (_params: unknown, context: CallContext) => {
      const { signal } = context
      const aborted = new Promise<unknown>((resolve) => {
        signal.addEventListener('abort', () => resolve(signal.reason), { once: true })
      })
      begun({ context, aborted })
      return aborted
    },
  })
}

overEach(ALL, 'a handler learns that its caller gave up: by timeout, and by abort', async (t, bus) => {
  const [caller, callee] = await pair(bus)
  const held: Held[] = []
  holding(callee, (one) => held.push(one))
  const first = caller.call('callee', 'hold', null, { timeout: 60 })
  const control = new AbortController()
  const second = caller.call('callee', 'hold', null, { signal: control.signal })
  const third = caller.call('callee', 'hold', null, { timeout: Number.POSITIVE_INFINITY })
  third.catch(() => undefined)
  await until(() => held.length === 3, 'all are at work')
  isBusError(t, await reasonOf(first), { code: 'ERR_BUS_TIMEOUT' })
  isBusError(t, await soon(held[0]?.aborted as Promise<unknown>, 'the first is told'), {
    code: 'ERR_BUS_TIMEOUT',
    says: ['caller'],
  })
  control.abort('enough')
  t.is(await reasonOf(second), 'enough')
  await soon(held[1]?.aborted as Promise<unknown>, 'the second is told')
  t.true(held[1]?.context.signal.aborted)
  t.false(held[2]?.context.signal.aborted)
})

overEach(ALL, 'a handler that asks for the signal late finds it aborted', async (t, bus) => {
  const [caller, callee] = await pair(bus)
  let context: CallContext | undefined
  let probe: Held | undefined
  callee.serve({
    hold: (_params: unknown, given: CallContext) => {
      context = given
      return new Promise(() => undefined)
    },
  })
  const other = await bus.open('other')
  holding(other, (one) => {
    probe = one
  })
  const control = new AbortController()
  const call = caller.call('callee', 'hold', null, { signal: control.signal })
  await until(() => context !== undefined, 'it is at work')
  control.abort('gone')
  await reasonOf(call)
  // The same again with somebody who listens tells when the cancelling has gone through; the first went before.
  const again = new AbortController()
  const second = caller.call('other', 'hold', null, { signal: again.signal })
  await until(() => probe !== undefined, 'the other is at work')
  again.abort('gone')
  await reasonOf(second)
  await soon((probe as unknown as Held).aborted, 'the other is told')
  await caller.call('callee', 'nothing').catch(() => undefined)
  t.true((context as CallContext | undefined)?.signal.aborted)
})

overEach(ALL, 'a handler learns that its caller has left', async (t, bus) => {
  const [caller, callee] = await pair(bus)
  const held: Held[] = []
  holding(callee, (one) => held.push(one))
  const other = await bus.open('other')
  const call = reasonOf(caller.call('callee', 'hold'))
  const kept = other.call('callee', 'hold', null, { timeout: Number.POSITIVE_INFINITY })
  kept.catch(() => undefined)
  await until(() => held.length === 2, 'both are at work')
  // What a handler asked for is in force once the broker has taken what its client sent.
  await callee.flush()
  await caller.close()
  isBusError(t, await call, { code: 'ERR_BUS_CLOSED' })
  const reason = await soon(
    held.find(({ context }) => context.sender === 'caller')?.aborted as Promise<unknown>,
    'it is told',
  )
  isBusError(t, reason, { code: 'ERR_BUS_DISCONNECTED', says: ['caller'] })
  t.false(held.find(({ context }) => context.sender === 'other')?.context.signal.aborted)
})

overEach(ALL, 'handlers learn that their own client is closed', async (t, bus) => {
  const [caller, callee] = await pair(bus)
  const held: Held[] = []
  holding(callee, (one) => held.push(one))
  const call = caller.call('callee', 'hold', null, { timeout: 60_000 })
  call.catch(() => undefined)
  await until(() => held.length === 1, 'it is at work')
  await callee.close()
  isBusError(t, await soon(held[0]?.aborted as Promise<unknown>, 'it is told'), { code: 'ERR_BUS_CLOSED' })
})

// ---- answers that are not

overEach(ALL, 'C29: replies and errors of others than the called are ignored', async (t, bus) => {
  const [caller, callee] = await pair(bus)
  const eve = await bus.open('eve')
  const held = deferred<string>()
  callee.serve({ hold: () => held.promise })
  const begun = reasonOf(caller.call('callee', 'missing'))
  const call = caller.call('callee', 'hold')
  await begun
  let settled = false
  void call.then(
    () => {
      settled = true
    },
    () => {
      settled = true
    },
  )
  // Numbers of the first calls of a client, and small ones.
  const ids = [1, 2, 3]
  for (let generation = 1; generation < 20; generation += 1) {
    for (let slot = 0; slot < 8; slot += 1) ids.push((generation << 16) | slot)
  }
  for (const id of ids) {
    const reply = Buffer.from([0x11, 0, 0, 0, 0, 0xa6, ...Buffer.from('forged')])
    reply.writeUInt32LE(id, 1)
    eve.send('caller', reply, { raw: true })
    const error = Buffer.from([0x12, 0, 0, 0, 0, 1, 0])
    error.writeUInt32LE(id, 1)
    eve.send('caller', error, { raw: true })
  }
  const inbox = caller.messages()
  eve.send('caller', 'all sent')
  t.deepEqual(await texts(inbox, 1), ['all sent'])
  t.false(settled)
  held.resolve('genuine')
  t.is(await soon(call, 'the genuine reply'), 'genuine')
})

overEach(ALL, 'a forged cancel does not reach somebody else’s call', async (t, bus) => {
  const [caller, callee] = await pair(bus)
  const eve = await bus.open('eve')
  const held: Held[] = []
  holding(callee, (one) => held.push(one))
  const call = caller.call('callee', 'hold', null, { timeout: 60_000 })
  call.catch(() => undefined)
  await until(() => held.length === 1, 'it is at work')
  for (let generation = 1; generation < 20; generation += 1) {
    const cancel = Buffer.from([0x13, 0, 0, 0, 0])
    cancel.writeUInt32LE(generation << 16, 1)
    eve.send('callee', cancel, { raw: true })
  }
  const inbox = callee.messages()
  eve.send('callee', 'all sent')
  t.deepEqual(await texts(inbox, 1), ['all sent'])
  t.false(held[0]?.context.signal.aborted)
})

// ---- the connection ends

overEach(ALL, 'calls pending when their own client is closed reject at once', async (t, bus) => {
  const [caller, callee] = await pair(bus)
  callee.serve({ never: () => new Promise(() => undefined) })
  const calls = Array.from({ length: 5 }, () =>
    reasonOf(caller.call('callee', 'never', null, { timeout: Number.POSITIVE_INFINITY })),
  )
  await caller.flush()
  await caller.close()
  for (const error of await Promise.all(calls))
    isBusError(t, error, { code: 'ERR_BUS_CLOSED', says: ['caller'] })
  await rejectsBus(t, () => caller.call('callee', 'never'), { code: 'ERR_BUS_CLOSED' })
  throwsBus(t, () => caller.notify('callee', 'x'), { code: 'ERR_BUS_CLOSED' })
  throwsBus(t, () => caller.serve({ x: () => 1 }), { code: 'ERR_BUS_CLOSED' })
})

overEach(
  SOCKETS,
  'calls pending when the broker ends the connection reject as disconnected',
  async (t, bus) => {
    const [caller, callee] = await pair(bus)
    callee.serve({ never: () => new Promise(() => undefined) })
    const call = reasonOf(caller.call('callee', 'never', null, { timeout: Number.POSITIVE_INFINITY }))
    await caller.flush()
    t.true(bus.broker.forceDisconnect('caller'))
    isBusError(t, await call, { code: 'ERR_BUS_DISCONNECTED', says: ['caller'] })
    await rejectsBus(t, () => caller.call('callee', 'never'), { code: 'ERR_BUS_DISCONNECTED' })
  },
)

overEach(ALL, 'calls pending when the broker closes reject at once', async (t, bus) => {
  const [caller, callee] = await pair(bus)
  callee.serve({ never: () => new Promise(() => undefined) })
  const call = reasonOf(caller.call('callee', 'never', null, { timeout: Number.POSITIVE_INFINITY }))
  await caller.flush()
  await soon(bus.broker.close({ drain: 0 }), 'the broker closes')
  // Who closes a broker closes its clients of the same thread.
  const code = LOCAL.includes(bus.transport) ? 'ERR_BUS_CLOSED' : 'ERR_BUS_DISCONNECTED'
  isBusError(t, await call, { code, says: ['caller'] })
})

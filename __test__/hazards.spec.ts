// What users' code may do to a client, and what it costs others: throwing, never yielding, keeping, leaving.

import { runInNewContext } from 'node:vm'
import test, { type ExecutionContext } from 'ava'
import { AaaMap, type BusError, type Client, connect, type Message, RpcError } from 'elbus-node'
import { start } from './support/child'
import { message, RawBroker } from './support/raw-broker'
import { isShortRun, testIf } from './support/skip'
import { socketPath } from './support/temp'
import { ALL, type Bus, overEach, SOCKETS, startBroker, startBus, type Transport } from './support/transports'
import { soon, until, within } from './support/within'

/** Set for a long run: 10 million messages instead of one. */
const isLongRun = process.env.ELBUS_LONG === '1'

async function pair(bus: Bus): Promise<[sender: Client, receiver: Client]> {
  return [await bus.open('sender'), await bus.open('receiver')]
}

function faultsOf(client: Client): unknown[] {
  const faults: unknown[] = []
  client.on('fault', (error) => faults.push(error))
  return faults
}

// ---- throwing

overEach(ALL, 'C47: a callback that throws loses no other message of its batch', async (t, bus) => {
  const [sender, receiver] = await pair(bus)
  const faults = faultsOf(receiver)
  const [seen, beside]: [string[], string[]] = [[], []]
  const throwing = receiver.subscribe('t/#', {
    callback: (message) => {
      seen.push(message.text())
      if (seen.length % 3 === 0) throw new Error(`thrown at ${message.text()}`)
    },
  })
  const well = receiver.subscribe('t/+', { callback: (message) => beside.push(message.text()) })
  receiver.messages({
    callback: () => {
      throw 'no error at all'
    },
  })
  await Promise.all([throwing.ready, well.ready])
  const numbers = Array.from({ length: 3_000 }, (_, index) => String(index))
  for (const number of numbers) sender.publish('t/1', number)
  sender.send('receiver', 'x')
  await until(() => beside.length === 3_000 && faults.length === 1_001, 'all are seen')
  t.deepEqual(seen, numbers)
  t.deepEqual(beside, numbers)
  t.is((faults[0] as Error).message, 'thrown at 2')
  t.is(faults.at(-1), 'no error at all')
  t.true(receiver.connected)
})

overEach(ALL, 'C47: a handler that throws costs no other call', async (t, bus) => {
  const [sender, receiver] = await pair(bus)
  const faults = faultsOf(receiver)
  receiver.serve({
    odd: (number: number) => {
      if (number % 2 === 1) throw new Error('odd')
      return number
    },
  })
  const results = await soon(
    Promise.allSettled(Array.from({ length: 1_000 }, (_, index) => sender.call('receiver', 'odd', index))),
    'all answers',
  )
  for (const [index, result] of results.entries())
    t.is(result.status, index % 2 === 1 ? 'rejected' : 'fulfilled')
  t.is(faults.length, 500)
})

overEach(ALL, 'a listener of fault, close or drain that throws ends nothing', async (t, bus) => {
  const [sender, receiver] = await pair(bus)
  const warnings: string[] = []
  const warned = (warning: Error): void => void warnings.push(warning.message)
  process.on('warning', warned)
  t.teardown(() => process.off('warning', warned))
  receiver.on('fault', () => {
    throw new Error('the listener of fault')
  })
  receiver.on('close', () => {
    throw new Error('the listener of close')
  })
  let seen = 0
  await receiver.subscribe('t', {
    callback: () => {
      seen += 1
      throw new Error('the callback')
    },
  }).ready
  for (let index = 0; index < 10; index += 1) await sender.publish('t', 'x', { ack: true })
  await until(() => seen === 10, 'all are seen')
  await receiver.close()
  t.is(await soon(receiver.closed, 'it is closed'), undefined)
  await sender.rtt()
})

test('an async callback that rejects is a fault, also one of another context of node:vm', async (t) => {
  const bus = await startBus(t, 'broker.client')
  const [sender, receiver] = await pair(bus)
  const faults = faultsOf(receiver)
  const callback: unknown = runInNewContext('async () => { throw new Error("of another context") }')
  for (const one of [callback, async () => Promise.reject(new Error('of this one'))]) {
    await receiver.subscribe('t', { callback: one as () => Promise<never> }).ready
  }
  await sender.publish('t', 'x', { ack: true })
  await until(() => faults.length === 2, 'both are told')
  t.deepEqual(faults.map((fault) => (fault as Error).message).sort(), ['of another context', 'of this one'])
})

test('a fault nobody listens for is a warning, and not one each', async (t) => {
  const bus = await startBus(t, 'broker.client')
  const [sender, receiver] = await pair(bus)
  const warnings: string[] = []
  const warned = (warning: Error): void => void warnings.push(warning.message)
  process.on('warning', warned)
  t.teardown(() => process.off('warning', warned))
  let seen = 0
  await receiver.subscribe('t', {
    callback: () => {
      seen += 1
      throw new Error('only once, please')
    },
  }).ready
  for (let index = 0; index < 1_000; index += 1) sender.publish('t', 'x')
  await until(() => seen === 1_000, 'all are seen')
  await new Promise((resolve) => setImmediate(resolve))
  t.true(warnings.filter((message) => message === 'only once, please').length <= 2)
})

overEach(ALL, 'C45: a callback may close its client, and then gets nothing more', async (t, bus) => {
  const [sender, receiver] = await pair(bus)
  let seen = 0
  let closing: Promise<void> | undefined
  await receiver.subscribe('t', {
    callback: () => {
      seen += 1
      closing = receiver.close()
    },
  }).ready
  for (let index = 0; index < 100; index += 1) sender.publish('t', 'x')
  await sender.flush()
  await until(() => closing !== undefined, 'the first is seen')
  await soon(closing as Promise<void>, 'it closes')
  await sender.rtt()
  t.is(seen, 1)
})

overEach(ALL, 'C45: a handler may close its client: its caller is told in time', async (t, bus) => {
  const [sender, receiver] = await pair(bus)
  receiver.serve({ close: async () => receiver.close() })
  const result = await sender.call('receiver', 'close', null, { timeout: 500 }).then(
    () => 'answered',
    (error: BusError) => error.code,
  )
  t.true(['answered', 'ERR_BUS_TIMEOUT', 'ERR_BUS_DISCONNECTED'].includes(result), result)
  t.false(receiver.connected)
})

overEach(
  ALL,
  'C45: a handler calls its own client, the broker, and itself a hundred deep',
  async (t, bus) => {
    const [sender, receiver] = await pair(bus)
    receiver.serve({
      echo: (params: unknown) => params,
      own: () => receiver.call('receiver', 'echo', 'own'),
      broker: () => receiver.call('.broker', 'test'),
      deep: (left: number): unknown => (left === 0 ? 'bottom' : receiver.call('receiver', 'deep', left - 1)),
    })
    t.is(await sender.call('receiver', 'own'), 'own')
    t.deepEqual(await sender.call('receiver', 'broker'), { ok: true })
    t.is(await sender.call('receiver', 'deep', 100), 'bottom')
  },
)

overEach(
  ALL,
  'C45: a broadcast to everybody reaches its sender, from a callback and a handler too',
  async (t, bus) => {
    const [sender, receiver] = await pair(bus)
    const seen: string[] = []
    receiver.messages({
      callback: (message) => {
        seen.push(`${message.sender} ${message.text()}`)
        if (message.text() === 'first') receiver.broadcast('*', 'from a callback')
      },
    })
    receiver.serve({ shout: () => receiver.broadcast('*', 'from a handler', { ack: true }) })
    await sender.broadcast('*', 'first', { ack: true })
    await sender.call('receiver', 'shout')
    await until(() => seen.length === 3, 'all are seen')
    t.deepEqual(seen.sort(), ['receiver from a callback', 'receiver from a handler', 'sender first'])
  },
)

overEach(
  ALL,
  'C45: a client that fills its own queue is told so in time, and goes on',
  async (t, bus) => {
    const client = await bus.open('self')
    let received = 0
    client.messages({ callback: () => (received += 1) })
    const payload = 'x'.repeat(1_000)
    const codes = new Map<string, number>()
    const count = (code: string): void => void codes.set(code, (codes.get(code) ?? 0) + 1)
    const sent: Promise<void>[] = []
    // In one turn, so that nobody reads meanwhile.
    for (let index = 0; index < 20_000; index += 1) {
      try {
        sent.push(
          client.send('self', payload, { ack: true }).then(
            () => count('done'),
            (error: BusError) => count(error.code),
          ),
        )
      } catch (error) {
        count((error as BusError).code)
      }
    }
    await within(Promise.all(sent), 10_000, 'every message has an answer')
    const done = codes.get('done') ?? 0
    t.is(
      [...codes.values()].reduce((sum, one) => sum + one),
      20_000,
    )
    const known = ['done', 'ERR_BUS_NOT_DELIVERED', 'ERR_BUS_OVERFLOW']
    t.deepEqual(
      [...codes.keys()].filter((code) => !known.includes(code)),
      [],
    )
    t.true(
      done > 0 && (bus.transport === 'tcp' || bus.transport === 'unix' || done < 20_000),
      `${[...codes]}`,
    )
    await until(() => received === done, 'all that was acknowledged arrives')
    await client.send('self', 'once more', { ack: true })
    await until(() => received === done + 1, 'it goes on')
    t.log(`C45: 20,000 messages to itself in one turn, queue of 1,000: ${[...codes].join(' ')}`)
  },
  { queue: { frames: 1_000 } },
)

overEach(
  ALL,
  'C47: whatever a handler gives back, its caller has an answer and the next call is served',
  async (t, bus) => {
    const [sender, receiver] = await pair(bus)
    const faults = faultsOf(receiver)
    const text = 'grün 日本語 \u{1f980}'
    const handlers: Record<string, [handler: () => unknown, expected: unknown]> = {
      'a code that is text': [
        () => Promise.reject(Object.assign(new Error('x'), { code: 'ENOENT' })),
        -32603,
      ],
      'an object as an error': [() => Promise.reject({ code: 'EFOO', rpcCode: 'none' }), -32603],
      'an RpcError by its look only': [() => Promise.reject({ name: 'RpcError', rpcCode: 7 }), -32603],
      'a text that is not ASCII': [() => text, text],
      'an error that is not ASCII': [() => Promise.reject(new RpcError(7, 'größer')), 7],
      'a code out of range': [() => new RpcError(40_000), -32603],
      'a frozen error': [() => Promise.reject(Object.freeze(new Error(text))), -32603],
      'a getter that throws': [
        () => ({
          get bad(): never {
            throw new Error('a getter')
          },
        }),
        -32603,
      ],
      'a then that throws': [
        () =>
          Object.defineProperty({}, 'then', {
            get: () => {
              throw new Error('a getter of then')
            },
          }),
        -32603,
      ],
      'a then that is called and throws': [
        () =>
          Object.defineProperty({}, 'then', {
            value: () => {
              throw new Error('a call of then')
            },
          }),
        -32603,
      ],
      'a map': [() => new Map([[1, 2]]), -32603],
      'a wide bigint': [() => 2n ** 70n, -32603],
      'a thousand deep': [
        () =>
          Array(1_000)
            .fill(0)
            .reduce((inner: unknown) => [inner], 1),
        -32603,
      ],
      'what throws as text': [
        () => {
          throw {
            toString() {
              throw new Error('no text')
            },
          }
        },
        -32603,
      ],
    }
    receiver.serve({
      ...Object.fromEntries(Object.entries(handlers).map(([name, [handler]]) => [name, handler])),
      echo: (params: unknown) => params,
    })
    let expectedFaults = 0
    for (const [name, [, expected]] of Object.entries(handlers)) {
      const answer: unknown = await soon(
        sender.call('receiver', name).catch((error: unknown) => (error as RpcError).rpcCode),
        name,
      )
      if (expected !== undefined) t.deepEqual(answer, expected, name)
      if (expected === -32603) expectedFaults += 1
      t.is(await sender.call('receiver', 'echo', name), name)
    }
    t.is(faults.length, expectedFaults)
    t.true(receiver.connected)
  },
)

overEach(SOCKETS, 'C47: a result of a GiB is an error reply, and costs no copy of it', async (t, bus) => {
  const [sender, receiver] = await pair(bus)
  const faults = faultsOf(receiver)
  receiver.serve({
    bytes: () => new Uint8Array(1 << 30),
    inside: () => ({ data: new Uint8Array(65 << 20) }),
    echo: (params: unknown) => params,
  })
  const before = process.memoryUsage().rss
  t.like(
    await soon(
      sender.call('receiver', 'bytes').catch((error: unknown) => error),
      'bytes',
    ),
    {
      rpcCode: -32603,
    },
  )
  t.true(process.memoryUsage().rss - before < 256 << 20)
  t.like(
    await soon(
      sender.call('receiver', 'inside').catch((error: unknown) => error),
      'inside',
    ),
    {
      rpcCode: -32603,
    },
  )
  t.deepEqual(
    faults.map((fault) => (fault as BusError).code),
    ['ERR_BUS_PAYLOAD', 'ERR_BUS_PAYLOAD'],
  )
  t.is(await sender.call('receiver', 'echo', 1), 1)
})

overEach(
  ALL,
  'C47: handlers that never settle cost their callers the timeout, and are bounded',
  async (t, bus) => {
    const [sender, receiver] = await pair(bus)
    const server = receiver.serve(
      { never: () => new Promise(() => undefined), echo: (params: unknown) => params },
      { concurrency: 1_000 },
    )
    const codes = new Map<string | number, number>()
    await soon(
      Promise.all(
        Array.from({ length: 2_000 }, () =>
          sender.call('receiver', 'never', null, { timeout: 2_000 }).catch((error: RpcError) => {
            const code = error.rpcCode ?? error.code
            codes.set(code, (codes.get(code) ?? 0) + 1)
          }),
        ),
      ),
      'all have an answer',
    )
    t.deepEqual([...codes].sort(), [
      [-32118, 1_000],
      ['ERR_BUS_TIMEOUT', 1_000],
    ])
    t.is(server.active, 1_000)
    // Others of this client are served.
    receiver.serve({ other: () => 'served' })
    t.is(await sender.call('receiver', 'other'), 'served')
  },
)

// ---- never yielding

/** As `overEach`, but with the thread to itself: other tests would stop what goes on by taking their turns. */
function alone(
  transports: readonly Transport[],
  title: string,
  body: (t: ExecutionContext, bus: Bus) => Promise<void>,
): void {
  for (const transport of transports) {
    test.serial(`${title} [${transport}]`, async (t) => body(t, await startBus(t, transport)))
  }
}

/** Passes if timers and immediates fire while something goes on that counts and never stops by itself. */
async function fires(what: string, count: () => number, stop: () => void): Promise<void> {
  await soon(new Promise((resolve) => setTimeout(resolve, 5)), `a timer fires beside ${what}`)
  await soon(new Promise((resolve) => setImmediate(resolve)), `an immediate fires beside ${what}`)
  await soon(new Promise((resolve) => setTimeout(resolve, 5)), `another timer fires beside ${what}`)
  await until(() => count() > 100, `${what} go on`)
  stop()
}

alone(ALL, 'calls one after the other, without end, let timers fire', async (t, bus) => {
  const [sender, receiver] = await pair(bus)
  receiver.serve({ echo: (params: unknown) => params })
  let going = true
  let calls = 0
  const loop = (async () => {
    // A bound, so that a failure is one and not a hang: many seconds of calls all the same.
    while (going && calls < 5_000_000) {
      await sender.call('receiver', 'echo', calls)
      calls += 1
    }
  })()
  await fires(
    'calls',
    () => calls,
    () => {
      going = false
    },
  )
  await soon(loop, 'the last call')
  t.true(calls > 0 && calls < 5_000_000)
})

alone(ALL, 'messages that answer each other without end let timers fire', async (t, bus) => {
  const [one, two] = await pair(bus)
  let going = true
  let messages = 0
  for (const [from, to] of [
    [one, 'receiver'],
    [two, 'sender'],
  ] as const) {
    from.messages({
      callback: (message) => {
        messages += 1
        if (going && messages < 5_000_000) from.send(to, message.data.slice())
      },
    })
  }
  for (let index = 0; index < 10; index += 1) one.send('receiver', `ball ${index}`)
  await fires(
    'messages',
    () => messages,
    () => {
      going = false
    },
  )
  t.true(messages > 0 && messages < 5_000_000)
})

alone(ALL, 'a loop over an iterator that feeds itself lets timers fire', async (t, bus) => {
  const [sender] = await pair(bus)
  const subscription = sender.subscribe('t')
  await subscription.ready
  let going = true
  let messages = 0
  sender.publish('t', 'x')
  const loop = (async () => {
    for await (const _ of subscription) {
      messages += 1
      if (!going || messages > 5_000_000) break
      sender.publish('t', 'x')
    }
  })()
  await fires(
    'messages of a loop',
    () => messages,
    () => {
      going = false
    },
  )
  await soon(loop, 'the loop ends')
  t.true(messages > 0 && messages < 5_000_000)
})

alone(
  ['broker.client'],
  'acknowledged messages one after the other, without end, let timers fire',
  async (t, bus) => {
    const [sender, receiver] = await pair(bus)
    receiver.messages({ callback: () => undefined })
    let going = true
    let acknowledged = 0
    const loop = (async () => {
      while (going && acknowledged < 5_000_000) {
        await sender.send('receiver', 'x', { ack: true })
        acknowledged += 1
      }
    })()
    await fires(
      'acknowledgements',
      () => acknowledged,
      () => {
        going = false
      },
    )
    await soon(loop, 'the last one')
    t.true(acknowledged > 0 && acknowledged < 5_000_000)
  },
)

alone(SOCKETS, 'a flood at one client lets another of its thread have its turn', async (t, bus) => {
  const [flooder, flooded] = await pair(bus)
  const beside = await bus.broker.client('beside')
  t.teardown(() => beside.close())
  await flooded.subscribe('t', { callback: () => undefined }).ready
  let going = true
  let turns = 0
  const flood = (async () => {
    while (going) {
      for (let index = 0; index < 2_000; index += 1) if (!flooder.publish('t', 'x'.repeat(100))) break
      turns += 1
      await new Promise((resolve) => setImmediate(resolve))
    }
  })()
  beside.serve({ echo: (params: unknown) => params })
  for (let index = 0; index < 200; index += 1)
    t.is(await soon(beside.call('beside', 'echo', index), 'a call'), index)
  await until(() => turns > 20, 'the flood goes on')
  going = false
  await flood
})

/** Keeps the thread busy with messages that never end, each of which takes a while. */
async function busy(t: ExecutionContext): Promise<() => void> {
  const { broker } = await startBus(t, 'broker.client')
  const self = await broker.client('self')
  let going = true
  self.messages({
    callback: () => {
      const end = performance.now() + 0.4
      while (performance.now() < end);
      if (going) self.send('self', 'x')
    },
  })
  for (let index = 0; index < 40; index += 1) self.send('self', 'x')
  return () => {
    going = false
  }
}

test.serial('a login that is refused says why, however busy the thread', async (t) => {
  const broker = await startBroker(t, { aaa: new AaaMap() })
  const address = await broker.listen(`unix:${socketPath(t)}`)
  const stop = await busy(t)
  const codes = new Map<string, number>()
  for (let round = 0; round < 3; round += 1) {
    await Promise.all(
      Array.from({ length: 20 }, async () => {
        const error = await connect(address, { name: 'one', timeout: 60_000 }).catch((reason) => reason)
        codes.set(error.code, (codes.get(error.code) ?? 0) + 1)
      }),
    )
  }
  stop()
  t.deepEqual([...codes], [['ERR_BUS_ACCESS', 60]])
})

test.serial(
  'what came before the end of a connection is delivered before it, however busy the thread',
  async (t) => {
    const broker = await RawBroker.listen(t)
    const stop = await busy(t)
    for (let round = 0; round < 5; round += 1) {
      const opened = await Promise.all(
        Array.from({ length: 5 }, async () => {
          const connecting = connect(broker.address, { name: 'one', timeout: 60_000 })
          const session = await broker.letIn()
          return { session, connecting }
        }),
      )
      await Promise.all(
        opened.map(async ({ session, connecting }) => {
          const client = await connecting
          let received = 0
          client.messages({ callback: () => (received += 1) })
          session.write(...Array(100).fill(message('other', 'one of a hundred')))
          session.peer.end()
          await soon(client.closed, 'the end')
          t.is(received, 100)
        }),
      )
    }
    stop()
  },
)

// ---- keeping

const KEPT = isShortRun ? 100_000 : 1_000_000

for (const transport of ['broker.client', 'unix'] as const) {
  test(`messages that are kept hold their bytes while ${KEPT} others pass [${transport}]`, async (t) => {
    t.timeout(120_000)
    const bus = await startBus(t, transport)
    const [sender, receiver] = await pair(bus)
    const kept: Message[] = []
    let received = 0
    let refused = 0
    sender.on('refused', () => (refused += 1))
    await receiver.subscribe('t/#', {
      callback: (message) => {
        if (received % (KEPT / 500) === 0) kept.push(message)
        received += 1
      },
    }).ready
    const bytes = new Uint8Array(120)
    const words = new Uint32Array(bytes.buffer)
    for (let sent = 0; sent < KEPT; ) {
      let isFree = true
      for (let index = 0; index < 500 && isFree; index += 1) {
        words.fill(sent)
        isFree = sender.publish(`t/${sent % 50}`, bytes)
        sent += 1
      }
      if (!isFree) await sender.drained()
      await new Promise((resolve) => setImmediate(resolve))
    }
    await until(() => received + refused + bus.broker.stats().refused >= KEPT, 'all have passed', 60_000)
    t.true(kept.length >= 450)
    let last = -1
    for (const { data, topic, sender: from } of kept) {
      const { buffer, byteOffset, length } = data
      const copy = new Uint32Array(buffer.slice(byteOffset, byteOffset + length))
      const number = copy[0] as number
      if (!copy.every((word) => word === number) || number <= last) t.fail(`${number} after ${last}`)
      if (topic !== `t/${number % 50}` || from !== 'sender') t.fail(`${topic} of ${from}`)
      last = number
    }
  })
}

const hasProc = process.platform === 'linux' ? undefined : 'memory is read from /proc'
const COUNT = isLongRun ? 10_000_000 : isShortRun ? 200_000 : 1_000_000
const MIB = 1 << 20

for (const way of ['inside', 'iterator', 'socket']) {
  testIf(hasProc)(
    `${COUNT} messages through one subscription take no more memory than a tenth of them: ${way}`,
    async (t) => {
      t.timeout(isLongRun ? 600_000 : 120_000)
      const args = ['messages', socketPath(t), way, String(COUNT)]
      const { code, stdout, stderr } = await start(t, 'hazards-program', args, {
        most: isLongRun ? 600_000 : 120_000,
      }).ended
      t.is(code, 0, stderr)
      const { received, lost, complete, peaks } = JSON.parse(stdout) as {
        received: number
        lost: number
        complete: boolean
        peaks: number[]
      }
      t.true(complete)
      t.is(received + lost, COUNT)
      t.is(lost, 0, 'a sender that waits for drained() loses nothing')
      t.true(Math.max(...peaks) <= 150 * MIB, stdout)
      // V8's heap finds its size in the first tenths; from there on nothing is added.
      t.true((peaks[9] as number) - (peaks[4] as number) <= 24 * MIB, stdout)
    },
  )
}

for (const way of ['inside', 'socket']) {
  testIf(hasProc)(`clients that come and go leave nothing behind: ${way}`, async (t) => {
    t.timeout(120_000)
    const args = ['coming', socketPath(t), way, way === 'inside' ? '20000' : '5000']
    const { code, stdout, stderr } = await start(t, 'hazards-program', args, { node: ['--expose-gc'] }).ended
    t.is(code, 0, stderr)
    const { left, peaks } = JSON.parse(stdout) as { left: number; peaks: number[] }
    t.is(left, 0)
    t.true((peaks.at(-1) as number) - (peaks[4] as number) < 24 * MIB, stdout)
  })
}

test('C48: clients and brokers that nobody keeps and nobody closed do no harm when they are collected', async (t) => {
  t.timeout(120_000)
  const args = ['garbage', socketPath(t), '', isShortRun ? '20' : '60']
  const { code, signal, stdout, stderr } = await start(t, 'hazards-program', args, { node: ['--expose-gc'] })
    .ended
  t.deepEqual([code, signal], [0, null], stderr)
  t.deepEqual(JSON.parse(stdout), { alive: true, received: true })
})

// Several environments of one process: worker threads, and copies of the package.

import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import test, { type ExecutionContext } from 'ava'
import { type Client, connect, type Message } from 'elbus-node'
import { rejectsBus } from './support/bus-error'
import { start } from './support/child'
import type { Job } from './support/environments-worker'
import { next } from './support/messages'
import { prepareForThreads, THREAD_OPTIONS } from './support/node-20'
import { isShortRun } from './support/skip'
import { socketPath } from './support/temp'
import { ALL, closing, overEach, startBroker, startBus } from './support/transports'
import { soon, until } from './support/within'

prepareForThreads()

/** Set for a long run: 1,000 threads are terminated instead of 50. */
const isLongRun = process.env.ELBUS_LONG === '1'

/** A thread, ended when the test is over; resolves with its first message. */
async function thread(t: ExecutionContext, workerData: Job): Promise<[Worker, unknown]> {
  const worker = new Worker(join(__dirname, 'support', 'environments-worker.js'), { workerData })
  t.teardown(() => worker.terminate())
  const [message] = (await soon(once(worker, 'message'), `${workerData.name} begins`)) as [unknown]
  return [worker, message]
}

overEach(ALL, 'a thread joins the broker of another, calls, is called, publishes', async (t, bus) => {
  const main = await bus.open('main')
  main.serve({ echo: (params: unknown) => params })
  const subscription = main.subscribe('flood/#')
  await subscription.ready
  const [worker] = await thread(t, { job: 'flood', address: bus.address, name: 'thread' })
  for (const value of ['text', { a: [1n << 60n] }, null, new Uint8Array(0), 'x'.repeat(100_000)]) {
    t.deepEqual(await soon(main.call('thread', 'echo', [value]), 'an answer'), [value])
  }
  const message = await next(subscription)
  t.is(message.sender, 'thread')
  t.true(message.topic?.startsWith('flood/'))
  t.is(bus.broker.clients('thread').length, 1)
  await subscription.unsubscribe()
  await worker.terminate()
  await until(() => bus.broker.clients('thread').length === 0, 'it is gone')
  await rejectsBus(t, () => main.call('thread', 'echo'), { code: 'ERR_BUS_NOT_REGISTERED' })
})

overEach(['inproc', 'unix'], 'eight threads and this one hear each other', async (t, bus) => {
  const main = await bus.open('main')
  const names = Array.from({ length: 8 }, (_, index) => `thread${index}`)
  await Promise.all(names.map((name) => thread(t, { job: 'serve', address: bus.address, name })))
  const calls = Array.from({ length: 2_000 }, async (_, index) => {
    const name = names[index % names.length] as string
    return main.call(name, 'echo', [name, index], { timeout: 30_000 })
  })
  t.deepEqual(
    await soon(Promise.all(calls), 'all answers'),
    calls.map((_, index) => [names[index % names.length], index]),
  )
})

test('a thread that serves stays, as it does with a socket', async (t) => {
  const bus = await startBus(t, 'inproc')
  const main = await bus.open('main')
  const [worker] = await thread(t, { job: 'serve', address: bus.address, name: 'thread' })
  let ended = false
  worker.on('exit', () => {
    ended = true
  })
  // Many turns of its event loop.
  for (let round = 0; round < 200; round += 1) await main.call('thread', 'echo', round)
  t.false(ended)
})

for (const job of ['end', 'exit', 'throw'] as const) {
  test(`a thread that ends without closing is unregistered: ${job}`, async (t) => {
    const bus = await startBus(t, 'inproc')
    const main = await bus.open('main')
    for (const address of [bus.address, await bus.broker.listen(socketPath(t))]) {
      const gone = new Promise<void>((resolve) => {
        bus.broker.on('client', ({ type, client }) => {
          if (type === 'unreg' && client === 'thread') resolve()
        })
      })
      const workerData: Job = { job, address, name: 'thread' }
      const worker = new Worker(join(__dirname, 'support', 'environments-worker.js'), { workerData })
      const errors: unknown[] = []
      worker.on('error', (error) => errors.push(error))
      const ended = new Promise<number>((resolve) => worker.on('exit', resolve))
      const code = await soon(ended, 'the thread ends')
      t.is(code, { end: 0, exit: 3, throw: 1 }[job])
      t.is(errors.length, job === 'throw' ? 1 : 0)
      await soon(gone, 'its client is gone')
      await rejectsBus(t, () => main.call('thread', 'echo'), { code: 'ERR_BUS_NOT_REGISTERED' })
    }
  })
}

const ROUNDS = isLongRun ? 1_000 : isShortRun ? 10 : 50

test(`C48: threads terminated in the middle of their traffic end nothing but themselves: ${ROUNDS} times`, async (t) => {
  t.timeout(isLongRun ? 1_800_000 : 180_000)
  const most = isLongRun ? 1_800_000 : 180_000
  const { code, signal, stdout, stderr } = await start(
    t,
    'environments-program',
    ['terminated', socketPath(t), String(ROUNDS)],
    { node: THREAD_OPTIONS, most },
  ).ended
  t.deepEqual([code, signal], [0, null], stderr)
  t.deepEqual(JSON.parse(stdout), { clients: ['.broker', 'main', 'second'], echo: 1 })
  t.is(stderr, '')
})

test('C48: a thread that owns a broker is terminated: its clients learn it, and its socket file is gone', async (t) => {
  t.timeout(120_000)
  const path = socketPath(t)
  const rounds = isShortRun ? 5 : 20
  const { code, signal, stdout, stderr } = await start(
    t,
    'environments-program',
    ['owners', path, String(rounds)],
    { node: THREAD_OPTIONS },
  ).ended
  t.deepEqual([code, signal], [0, null], stderr)
  t.deepEqual(JSON.parse(stdout), { ends: ['ERR_BUS_ADDRESS', 'ERR_BUS_DISCONNECTED'], count: 3 * rounds })
  t.false(existsSync(path))
})

test('C48: the package is loaded many times in one process, and each copy works', async (t) => {
  const rounds = isLongRun ? 1_000 : 20
  const most = isLongRun ? 600_000 : 60_000
  t.timeout(most)
  const { code, signal, stdout, stderr } = await start(
    t,
    'environments-program',
    ['reloaded', socketPath(t), String(rounds)],
    { most },
  ).ended
  t.deepEqual([code, signal], [0, null], stderr)
  t.deepEqual(JSON.parse(stdout), { received: 2 * rounds, clients: rounds / 2 })
  t.is(stderr, '')
})

overEach(
  ALL,
  'the memory of a message is not transferred to a thread, and trying to breaks nothing',
  async (t, bus) => {
    const [sender, receiver] = [await bus.open('sender'), await bus.open('receiver')]
    receiver.serve(
      { size: (params: Uint8Array) => params.length, same: (params: Uint8Array) => params },
      { raw: true },
    )
    const [worker] = await thread(t, { job: 'serve', address: bus.address, name: 'thread' })
    const transfers = (bytes: Uint8Array): void => {
      const buffer = bytes.buffer as ArrayBuffer
      for (const transfer of [
        () => worker.postMessage(bytes, [buffer]),
        () => structuredClone(bytes, { transfer: [buffer] }),
      ]) {
        // Node 20 copies what must not be transferred, later ones throw; it is not detached in either case.
        try {
          transfer()
        } catch (error) {
          t.is((error as Error).name, 'DataCloneError')
        }
        t.true(buffer.byteLength > 0)
      }
    }
    const received: Message[] = []
    await receiver.subscribe('t', {
      callback: (message) => {
        transfers(message.data)
        received.push(message)
      },
    }).ready
    const sizes = [1, 100, 9_000, 100_000, 1_000_000]
    for (const size of sizes) {
      await sender.publish('t', new Uint8Array(size).fill(7), { ack: true })
      const result = await sender.call<Uint8Array>('receiver', 'same', new Uint8Array(size).fill(8), {
        raw: true,
      })
      transfers(result)
      t.is(result.length, size)
      t.true(result.every((byte) => byte === 8))
    }
    await until(() => received.length === sizes.length, 'all messages arrive')
    t.deepEqual(
      received.map(({ data }) => data.length),
      sizes,
    )
    t.true(received.every(({ data }) => data.every((byte) => byte === 7)))
    // A copy is one's own, and goes.
    const copy = received[3]?.copy() as Uint8Array
    worker.postMessage(copy, [copy.buffer as ArrayBuffer])
    t.is(copy.length, 0)
    t.is(await sender.call('receiver', 'size', new Uint8Array(5)), 5)
  },
)

test('C48: brokers and clients are closed twice, at once, in any order, 200 times', async (t) => {
  t.timeout(120_000)
  const path = socketPath(t)
  for (let round = 0; round < 200; round += 1) {
    const broker = await startBroker(t, { listen: [path], workers: 1 })
    const clients = [
      await broker.client('one'),
      await connect(broker.address, { name: 'two' }),
      await connect(path, { name: 'three' }),
    ]
    for (const client of clients) client.publish('a', 'x'.repeat(round))
    const ends: (() => Promise<unknown>)[] = [
      () => broker.close({ drain: 0 }),
      () => broker.close({ drain: 10 }),
      ...clients.flatMap((client) => [() => client.close(), () => client.close()]),
    ]
    // Another order in each round.
    const order = ends.map((_, index) => ends[(index * 3 + round) % ends.length] as () => Promise<unknown>)
    await soon(Promise.all(order.map((end) => end())), 'everything is closed')
    await soon(Promise.all(order.map((end) => end())), 'and once more')
    t.true(clients.every((client) => !client.connected))
  }
})

test('two environments take turns with one name', async (t) => {
  const broker = await startBroker(t)
  for (let round = 0; round < 5; round += 1) {
    const [worker] = await thread(t, { job: 'serve', address: broker.address, name: 'one' })
    await rejectsBus(t, () => connect(broker.address, { name: 'one' }), { code: 'ERR_BUS_BUSY' })
    await worker.terminate()
    await until(() => broker.clients('one').length === 0, 'the thread is gone')
    const client: Client = closing(t, await connect(broker.address, { name: 'one' }))
    await client.rtt()
    await client.close()
  }
  t.is(broker.clients().length, 1)
})

test('an address of a broker that is none, or is closed', async (t) => {
  const broker = await startBroker(t)
  await broker.close()
  for (const address of [
    broker.address,
    'inproc:999999',
    'inproc:4294967296',
    'inproc:99999999999',
    'inproc:x',
  ]) {
    await rejectsBus(t, () => connect(address, { name: 'x' }), { code: 'ERR_BUS_ADDRESS' })
  }
})

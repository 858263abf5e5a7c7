// Whoever does not read loses what is for him, and nobody else loses or waits for anything.

import net from 'node:net'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import test, { type ExecutionContext } from 'ava'
import { type BusError, type Client, connect } from 'elbus-node'
import { isBusError } from './support/bus-error'
import { start } from './support/child'
import { prepareForThreads } from './support/node-20'
import { testIf } from './support/skip'
import type { Seen, SlowData } from './support/slow-worker'
import { socketPath } from './support/temp'
import { closing, startBroker } from './support/transports'
import { soon, until } from './support/within'

prepareForThreads()

const TEXT = 'x'.repeat(1_000)

/** Texts a client receives, in order. */
async function receiving(client: Client): Promise<string[]> {
  const received: string[] = []
  await client.subscribe('t/#', {
    callback: (message) => received.push(message.text().split(' ')[0] as string),
  }).ready
  return received
}

const count = (to: number, from = 0): string[] =>
  Array.from({ length: to - from }, (_, index) => String(index + from))

/** A subscriber to `t/#` by hand that reads nothing. */
async function mute(t: ExecutionContext, path: string, name: string): Promise<net.Socket> {
  const socket = net.connect(path)
  t.teardown(() => socket.destroy())
  socket.on('error', () => undefined)
  await soon(new Promise((resolve) => socket.on('connect', resolve)), 'the socket connects')
  socket.pause()
  const login = [0xeb, 1, 0, name.length, 0, ...Buffer.from(name)]
  socket.write(Buffer.from([...login, 1, 0, 0, 0, 0x02, 3, 0, 0, 0, ...Buffer.from('t/#')]))
  return socket
}

test('a socket subscriber that stops reading costs only itself, and is put out', async (t) => {
  const path = socketPath(t)
  const broker = await startBroker(t, { listen: [path], queue: { frames: 1_000 }, stallTimeout: 400 })
  const slow = await mute(t, path, 'slow')
  await until(() => (broker.clients('slow')[0]?.received.frames ?? 0) === 1, 'it has subscribed')
  const [local, remote] = [
    closing(t, await broker.client('local')),
    closing(t, await connect(path, { name: 'remote' })),
  ]
  const received = [await receiving(local), await receiving(remote)]
  const senders = [
    closing(t, await broker.client('sender')),
    closing(t, await connect(path, { name: 'sender.remote' })),
  ]
  const gone = new Promise<void>((resolve) => {
    broker.on('client', ({ type, client }) => {
      if (type === 'unreg' && client === 'slow') resolve()
    })
  })
  const total = 5_000
  for (let index = 0; index < total; index += 1) {
    // Acknowledged: the broker has done what there was to do, for others than the slow one.
    await soon(
      (senders[index % 2] as Client).publish(`t/${index}`, `${index} ${TEXT}`, { ack: true }),
      `message ${index}`,
    )
    const queue = broker.clients('slow')[0]?.queue ?? 0
    if (queue > 1_000) t.fail(`${queue} frames are queued`)
  }
  for (const texts of received) {
    await until(() => texts.length === total, 'all arrive at those that read')
    t.deepEqual(texts, count(total))
  }
  t.true(broker.stats().refused > 0)
  await soon(gone, 'the slow one is put out')
  slow.destroy()
  t.is(broker.clients('slow').length, 0)
  t.true(local.connected && remote.connected && senders.every((sender) => sender.connected))
})

test('a message for it is refused, one for others is not', async (t) => {
  const path = socketPath(t)
  const broker = await startBroker(t, { listen: [path], queue: { frames: 50 } })
  const slow = await mute(t, path, 'slow')
  await until(() => (broker.clients('slow')[0]?.received.frames ?? 0) === 1, 'it has subscribed')
  const sender = closing(t, await connect(path, { name: 'sender' }))
  const other = closing(t, await connect(path, { name: 'other' }))
  let received = 0
  other.messages({ callback: () => (received += 1) })
  let refused: BusError | undefined
  let sent = 0
  for (; refused === undefined && sent < 10_000; sent += 1) {
    await sender.send('slow', TEXT, { ack: true }).catch((error: BusError) => {
      refused = error
    })
    await sender.send('other', TEXT, { ack: true })
  }
  isBusError(t, refused, { code: 'ERR_BUS_NOT_DELIVERED', wireCode: 0x77, says: ['slow'] })
  await until(() => received === sent, 'the other has all')
  slow.destroy()
})

/** A subscriber in a thread that stands still after its first message. */
class Blocked {
  readonly gate = new Int32Array(new SharedArrayBuffer(8))
  readonly worker: Worker
  readonly ready: Promise<unknown>
  #seen!: (seen: Seen) => void
  readonly seen = new Promise<Seen>((resolve) => {
    this.#seen = resolve
  })

  constructor(t: ExecutionContext, address: string, name: string, masks: readonly string[] = ['t/#']) {
    const workerData: SlowData = { address, name, gate: this.gate, masks }
    this.worker = new Worker(join(__dirname, 'support', 'slow-worker.js'), { workerData })
    t.teardown(() => this.worker.terminate())
    this.ready = new Promise((resolve, reject) => {
      this.worker.on('error', reject)
      this.worker.on('message', (message: unknown) => {
        if (message === 'ready') resolve(message)
        else this.#seen(message as Seen)
      })
    })
  }

  /** Resolves once it stands still. */
  stands(): Promise<void> {
    return until(() => Atomics.load(this.gate, 0) === 1, 'it stands still')
  }

  release(): void {
    Atomics.store(this.gate, 1, 1)
    Atomics.notify(this.gate, 1)
  }
}

for (const way of ['unix', 'inproc'] as const) {
  test(`C46: a subscriber whose event loop stands still loses what its queue does not hold, and nobody else loses [${way}]`, async (t) => {
    const path = socketPath(t)
    // A thread that stands still does not ping either.
    const listen = { url: path, timeout: 60_000 }
    const broker = await startBroker(t, { listen, queue: { frames: 1_000 }, stallTimeout: 60_000 })
    const slow = new Blocked(t, way === 'unix' ? path : broker.address, 'slow')
    await soon(slow.ready, 'it has subscribed')
    const fast = closing(t, await connect(path, { name: 'fast' }))
    const received = await receiving(fast)
    // In the process the acknowledgement is there at once, and the event loop would not turn for `fast` either.
    const sender = closing(t, await connect(path, { name: 'sender' }))
    await sender.publish('t/0', `0 ${TEXT}`, { ack: true })
    await slow.stands()
    const total = 5_000
    for (let index = 1; index < total; index += 1)
      await sender.publish('t/x', `${index} ${TEXT}`, { ack: true })
    await until(() => received.length === total, 'all arrive at the one that reads')
    t.deepEqual(received, count(total))
    t.true((broker.clients('slow')[0]?.queue ?? 0) <= 1_000)
    slow.release()
    await until(() => broker.clients('slow')[0]?.queue === 0, 'it has caught up')
    await sender.publish('t/end', 'end', { ack: true })
    const { numbers } = await soon(slow.seen, 'it has read what was there')
    // What it has is the beginning, whole and in order.
    t.deepEqual(numbers, [...numbers.keys()])
    t.true(numbers.length >= 1_000, `${numbers.length}`)
    t.true(numbers.length < total)
    t.is(numbers.length + broker.stats().refused, total)
  })
}

test('C46: a reader in the process that stands still holds up no registration, and what it misses is counted', async (t) => {
  const path = socketPath(t)
  const broker = await startBroker(t, { listen: [path], queue: { frames: 100 }, stallTimeout: 60_000 })
  const slow = new Blocked(t, broker.address, 'slow', ['#', '.broker/#', 't/#'])
  await soon(slow.ready, 'it has subscribed')
  const fast = closing(t, await connect(path, { name: 'fast' }))
  const announced: string[] = []
  await fast.subscribe('.broker/info', { callback: (message) => announced.push(message.text()) }).ready
  await fast.publish('t/0', '0 begin', { ack: true })
  await slow.stands()
  // Each is two announcements for the one that reads nothing.
  let worst = 0
  const rounds = 300
  for (let index = 0; index < rounds; index += 1) {
    const begun = performance.now()
    const client = await (index % 2 === 0
      ? connect(path, { name: `guest.${index}` })
      : broker.client(`guest.${index}`))
    await client.close()
    worst = Math.max(worst, performance.now() - begun)
  }
  await until(() => announced.length >= 2 * rounds, 'the one that reads has heard of all')
  t.true(worst < 2_000, `a registration took ${worst} ms`)
  t.true((broker.clients('slow')[0]?.queue ?? 0) <= 100)
  const { refused } = broker.stats()
  t.true(refused >= 2 * rounds - 110, `${refused} were refused`)
  t.log(
    `C46: ${rounds} registrations beside a reader that stands still: at most ${worst.toFixed(1)} ms each, ${refused} announcements dropped for it and counted`,
  )
  slow.release()
  await until(() => broker.clients('slow')[0]?.queue === 0, 'it has caught up')
})

test('C46: subscriptions to everything that nobody reads drop, count, and hold up nobody', async (t) => {
  const path = socketPath(t)
  const broker = await startBroker(t, { listen: [path] })
  const idle = closing(t, await broker.client('idle'))
  const unread = idle.subscribe(['#', '.broker/#'], { highWaterMark: 100 })
  await unread.ready
  const reader = closing(t, await broker.client('reader'))
  const received = await receiving(reader)
  const sender = closing(t, await connect(path, { name: 'sender' }))
  const total = 5_000
  for (let index = 0; index < total; index += 1) {
    if (!sender.publish('t/x', `${index} x`)) await sender.drained()
  }
  await until(() => received.length === total, 'the one that reads has all')
  t.deepEqual(received, count(total))
  for (let index = 0; index < 100; index += 1) await (await connect(path, { name: `guest.${index}` })).close()
  await until(() => unread.pending + unread.dropped >= total + 200, 'what it missed is counted')
  t.is(unread.pending, 100)
  t.is(broker.stats().refused, 0)
})

test('a sender in the process is told to wait, then refused; what was taken arrives', async (t) => {
  const broker = await startBroker(t, { queue: { frames: 1_000 }, stallTimeout: 60_000 })
  const slow = new Blocked(t, broker.address, 'slow')
  await soon(slow.ready, 'it is there')
  const sender = closing(t, await broker.client('sender'))
  let refusals = 0
  sender.on('refused', (error) => {
    isBusError(t, error, { code: 'ERR_BUS_NOT_DELIVERED' })
    refusals += 1
  })
  sender.send('slow', '0')
  await slow.stands()
  const taken: number[] = [0]
  let waits = 0
  let error: unknown
  for (let index = 1; error === undefined; index += 1) {
    try {
      if (!sender.send('slow', String(index))) waits += 1
      taken.push(index)
    } catch (thrown) {
      error = thrown
    }
    if (index % 10 === 0) await Promise.resolve()
    if (index > 10_000) break
  }
  isBusError(t, error, { code: 'ERR_BUS_OVERFLOW', says: ['slow'] })
  t.true(waits > 0)
  // It throws each time, not once.
  t.throws(() => sender.send('slow', 'again'), { code: 'ERR_BUS_OVERFLOW' })
  // Nobody else is concerned.
  const other = closing(t, await broker.client('other'))
  let received = 0
  other.messages({ callback: () => (received += 1) })
  for (let index = 0; index < 100; index += 1) sender.send('other', 'x')
  await until(() => received === 100, 'the other has all')
  const drained = soon(sender.drained(), 'the sender may go on')
  slow.release()
  await drained
  // It waits for a receiver no longer than the broker lets any sender wait, so there may still be no room.
  await until(() => broker.clients('slow')[0]?.queue === 0, 'it has caught up')
  await sender.send('slow', 'end', { ack: true })
  const { numbers } = await soon(slow.seen, 'it has read all')
  t.deepEqual(numbers, [...numbers.keys()])
  t.is(numbers.length + refusals, taken.length)
  t.true(numbers.length > 1_000)
})

test('a sender that overruns in one turn is refused what does not fit, told so, and nothing vanishes', async (t) => {
  const broker = await startBroker(t, { queue: { frames: 1_000 } })
  const [sender, receiver, other] = [
    await broker.client('sender'),
    await broker.client('receiver'),
    await broker.client('other'),
  ]
  for (const client of [sender, receiver, other]) closing(t, client)
  const received: string[] = []
  let others = 0
  let refused = 0
  receiver.messages({ callback: (message) => received.push(message.text()) })
  other.messages({ callback: () => (others += 1) })
  sender.on('refused', () => (refused += 1))
  let thrown = 0
  const total = 100_000
  for (let index = 0; index < total; index += 1) {
    try {
      sender.send('receiver', String(index))
    } catch (error) {
      isBusError(t, error, { code: 'ERR_BUS_OVERFLOW' })
      thrown += 1
    }
    if (index % 1_000 === 0) other.send('other', 'x')
  }
  await until(() => received.length + refused + thrown === total, 'every message is accounted for')
  await until(() => others === 100, 'the other lost nothing')
  t.true(thrown > 0)
  t.true(received.length >= 1_000)
  t.deepEqual(
    received,
    [...received].sort((a, b) => Number(a) - Number(b)),
  )
  t.is(broker.stats().refused, refused + thrown)
})

test('a socket sender is told to wait when the socket takes no more, and refused when the queue is full', async (t) => {
  const path = socketPath(t)
  const broker = await startBroker(t, { listen: [path] })
  const receiver = closing(t, await broker.client('receiver'))
  let received = 0
  receiver.messages({ callback: () => (received += 1) })
  const sender = closing(t, await connect(path, { name: 'sender', queueBytes: 1 << 20 }))
  let taken = 0
  let waits = 0
  t.throws(
    () => {
      // In one turn nothing is read at the other end of the socket but by threads of the broker.
      for (;;) {
        if (!sender.send('receiver', TEXT.repeat(10))) waits += 1
        taken += 1
        if (taken > 100_000) throw new Error('never refused')
      }
    },
    { code: 'ERR_BUS_OVERFLOW' },
  )
  t.true(waits > 0)
  await soon(sender.drained(), 'it may go on')
  t.true(sender.send('receiver', 'end'))
  await until(() => received + broker.stats().refused === taken + 1, 'what was taken arrives or was refused')
  t.true(received > 0)
})

const hasProc = process.platform === 'linux' ? undefined : 'memory is read from /proc'

for (const [payload, total] of [
  [1_000, 100 << 20],
  [64 << 10, 1 << 30],
] as const) {
  testIf(hasProc)(
    `what a subscriber does not read stays within its queue: ${payload} B payloads`,
    async (t) => {
      const { code, stdout, stderr } = await start(t, 'slow-program', [
        socketPath(t),
        String(payload),
        String(total),
      ]).ended
      t.is(code, 0, stderr)
      const { growth, queued, refused } = JSON.parse(stdout) as Record<
        'growth' | 'queued' | 'refused',
        number
      >
      t.true(refused > (total / payload) * 0.9, stdout)
      // 4 MiB, and one message.
      t.true(queued > 1 << 20 && queued <= (4 << 20) + payload + 4_096, stdout)
      // The queue, the garbage of this many Promises, and arenas.
      t.true(growth < 48 << 20, stdout)
    },
  )
}

// One subscription: how much may wait, what is dropped beyond, the iterator protocol, callbacks, and every way to end.

import { getEventListeners, once } from 'node:events'
import test, { type ExecutionContext } from 'ava'
import { BusError, type Client, type Message, type SubscribeOptions, type Subscription } from 'elbus-node'
import { reasonOf, throwsBus } from './support/bus-error'
import { next, take, texts } from './support/messages'
import { ALL, type Bus, LOCAL, overEach, SOCKETS, startBus } from './support/transports'
import { soon, until } from './support/within'

/** A client that sends to itself, and a subscription of it. */
async function lone(
  t: ExecutionContext,
  options: SubscribeOptions = {},
): Promise<{ bus: Bus; client: Client; inbox: Subscription }> {
  const bus = await startBus(t, 'broker.client')
  const client = await bus.open('one')
  return { bus, client, inbox: client.messages(options) }
}

/** Sends these to itself; when it resolves all were delivered. */
async function deliver(client: Client, payloads: Iterable<string | Uint8Array>): Promise<void> {
  const barrier = client.subscribe('barrier')
  await barrier.ready
  for (const payload of payloads) client.send('one', payload, { raw: true })
  client.publish('barrier')
  await next(barrier)
  await barrier.unsubscribe()
}

function numbered(count: number, from = 0): string[] {
  return Array.from({ length: count }, (_, index) => `${from + index}`)
}

/** What waits, taken without waiting for more. */
async function waiting(inbox: Subscription): Promise<string[]> {
  return texts(inbox, inbox.pending)
}

// ---- bounds

test.serial('the newest are dropped beyond the bound, counted, and told once for each stall', async (t) => {
  const { client, inbox } = await lone(t, { highWaterMark: 3 })
  const slow: unknown[] = []
  client.on('slow', (subscription) => slow.push(subscription))
  await deliver(client, numbered(3))
  t.deepEqual([inbox.pending, inbox.dropped, slow.length], [3, 0, 0])
  await deliver(client, numbered(4, 3))
  t.deepEqual([inbox.pending, inbox.dropped], [3, 4])
  t.deepEqual(slow, [inbox])
  // Room for one is not the end of the stall.
  t.deepEqual(await texts(inbox, 1), ['0'])
  await deliver(client, numbered(2, 7))
  t.deepEqual([inbox.pending, inbox.dropped, slow.length], [3, 5, 1])
  t.deepEqual(await waiting(inbox), ['1', '2', '7'])
  await deliver(client, numbered(4, 9))
  t.deepEqual([inbox.pending, inbox.dropped, slow.length], [3, 6, 2])
  t.deepEqual(await waiting(inbox), ['9', '10', '11'])
})

test.serial('the oldest are dropped beyond the bound where that is asked for', async (t) => {
  const { client, inbox } = await lone(t, { highWaterMark: 3, overflow: 'drop-oldest' })
  let slow = 0
  client.on('slow', () => (slow += 1))
  await deliver(client, numbered(10))
  t.deepEqual([inbox.pending, inbox.dropped, slow], [3, 7, 1])
  t.deepEqual(await waiting(inbox), ['7', '8', '9'])
})

test.serial('with room for one the newest is kept, and a stall is told once', async (t) => {
  const { client, inbox } = await lone(t, { highWaterMark: 1, overflow: 'drop-oldest' })
  let slow = 0
  client.on('slow', () => (slow += 1))
  await deliver(client, numbered(10))
  t.deepEqual([inbox.pending, inbox.dropped, slow], [1, 9, 1])
  t.deepEqual(await waiting(inbox), ['9'])
})

test.serial('bytes are bounded too, and one message is always taken', async (t) => {
  const { client, inbox } = await lone(t, { highWaterMarkBytes: 100 })
  await deliver(client, ['a'.repeat(1_000), 'b'])
  t.deepEqual([inbox.pending, inbox.dropped], [1, 1])
  t.is((await next(inbox)).data.length, 1_000)
  await deliver(client, ['c'.repeat(60), 'd'.repeat(40), 'e', ''])
  // Exactly the bound fits, and what has no bytes too.
  t.deepEqual([inbox.pending, inbox.dropped], [3, 2])
  t.deepEqual(
    (await waiting(inbox)).map((text) => text.length),
    [60, 40, 0],
  )
  // Bytes that were taken out are free again.
  await deliver(client, ['f'.repeat(100)])
  t.deepEqual([inbox.pending, inbox.dropped], [1, 2])
})

test.serial('the bound of bytes holds where the oldest are dropped', async (t) => {
  const { client, inbox } = await lone(t, { highWaterMarkBytes: 100, overflow: 'drop-oldest' })
  await deliver(client, [...numbered(10).map((text) => text.repeat(10)), 'x'.repeat(90), 'y'.repeat(90)])
  t.deepEqual(await waiting(inbox), ['y'.repeat(90)])
  t.is(inbox.dropped, 11)
})

test.serial('what one subscription drops another of the same client still has', async (t) => {
  const { client, inbox } = await lone(t, { highWaterMark: 1 })
  const all = client.messages()
  await deliver(client, numbered(100))
  t.deepEqual([inbox.pending, inbox.dropped, all.pending, all.dropped], [1, 99, 100, 0])
})

test.serial('a reader that waits is given messages past the queue', async (t) => {
  const { client, inbox } = await lone(t, { highWaterMark: 1 })
  const iterator = inbox[Symbol.asyncIterator]()
  const readers = Promise.all([iterator.next(), iterator.next(), iterator.next()])
  await deliver(client, numbered(4))
  const results = await soon(readers, 'three messages')
  t.deepEqual(
    results.map((result) => result.value?.text()),
    ['0', '1', '2'],
  )
  t.deepEqual([inbox.pending, inbox.dropped], [1, 0])
})

test.serial('65,536 messages may wait if nothing is said', async (t) => {
  const { client, inbox } = await lone(t)
  for (let sent = 0; sent < 65_536; sent += 8_192) await deliver(client, numbered(8_192, sent))
  t.deepEqual([inbox.pending, inbox.dropped], [65_536, 0])
  await deliver(client, ['one more'])
  t.deepEqual([inbox.pending, inbox.dropped], [65_536, 1])
  // Order is kept while the queue is read and filled at the same time.
  let expected = 0
  for (let round = 0; round < 16; round += 1) {
    for (const message of await take(inbox, 4_096)) {
      if (message.text() !== String(expected)) t.is(message.text(), String(expected))
      expected += 1
    }
    await deliver(client, numbered(2_000, 65_536 + round * 2_000))
  }
  t.is(inbox.pending, 32_000)
  t.deepEqual(await waiting(inbox), numbered(32_000, 65_536))
})

test.serial('options that are none are refused by name', async (t) => {
  const { client } = await lone(t)
  const table: [options: object, says: string][] = [
    [{ highWaterMark: 0 }, 'highWaterMark'],
    [{ highWaterMark: 1.5 }, 'highWaterMark'],
    [{ highWaterMark: '5' }, 'highWaterMark'],
    [{ highWaterMarkBytes: 0 }, 'highWaterMarkBytes'],
    [{ highWaterMarkBytes: Number.NaN }, 'highWaterMarkBytes'],
    [{ overflow: 'drop' }, 'drop-oldest'],
    [{ callback: 'no function' }, 'callback'],
  ]
  for (const [options, says] of table) {
    throwsBus(t, () => client.messages(options), { code: 'ERR_BUS_ARGUMENT', says: [says] })
    throwsBus(t, () => client.subscribe('a', options), { code: 'ERR_BUS_ARGUMENT', says: [says] })
  }
  // Nothing of them is left behind: the client has no subscription.
  const inbox = client.messages()
  await deliver(client, ['x'])
  t.deepEqual(await waiting(inbox), ['x'])
})

// ---- the iterator protocol

test.serial('several nexts are answered in order, and the end answers the rest', async (t) => {
  const { client, inbox } = await lone(t)
  const iterator = inbox[Symbol.asyncIterator]()
  const results = Promise.all([iterator.next(), iterator.next(), iterator.next()])
  await deliver(client, ['a', 'b'])
  await inbox.unsubscribe()
  const [first, second, third] = await soon(results, 'three answers')
  t.is(first?.value?.text(), 'a')
  t.is(second?.value?.text(), 'b')
  t.deepEqual(third, { done: true, value: undefined })
  t.deepEqual(await iterator.next(), { done: true, value: undefined })
})

overEach(ALL, 'leaving the loop ends the subscription, here and at the broker', async (t, bus) => {
  const [from, to] = await Promise.all([bus.open('from'), bus.open('to')])
  const frames = (): number => bus.broker.clients('to')[0]?.sent.frames ?? -1
  const inbox = to.subscribe('a')
  await inbox.ready
  for (let index = 0; index < 5; index += 1) await from.publish('a', `${index}`, { ack: true })
  const seen: string[] = []
  for await (const message of inbox) {
    seen.push(message.text())
    if (seen.length === 2) break
  }
  t.deepEqual(seen, ['0', '1'])
  // Leaving waited for the broker.
  const before = frames()
  await from.publish('a', 'late', { ack: true })
  t.is(frames(), before)
  t.is(inbox.pending, 0)
  for await (const message of inbox) t.fail(`${message.text()} after the end`)
  // Leaving by a throw is leaving too.
  const other = to.subscribe('b')
  await other.ready
  await from.publish('b', 'x', { ack: true })
  const reason = new Error('the body of the loop')
  t.is(
    await reasonOf(
      (async () => {
        for await (const _ of other) throw reason
      })(),
    ),
    reason,
  )
  t.true((await other[Symbol.asyncIterator]().next()).done)
})

test.serial('several iterators share the messages, and one that is left ends all', async (t) => {
  const { client, inbox } = await lone(t)
  const [left, right] = [inbox[Symbol.asyncIterator](), inbox[Symbol.asyncIterator]()]
  const pending = [left.next(), right.next(), left.next()]
  await deliver(client, ['a', 'b', 'c', 'd'])
  const results = await soon(Promise.all(pending), 'three messages')
  t.deepEqual(
    results.map((result) => result.value?.text()),
    ['a', 'b', 'c'],
  )
  t.is((await right.next()).value?.text(), 'd')
  const last = right.next()
  t.deepEqual(await left.return?.(), { done: true, value: undefined })
  t.deepEqual(await soon(last, 'the end'), { done: true, value: undefined })
  t.deepEqual(await left.return?.(), { done: true, value: undefined })
})

test.serial('two loops over one subscription see every message once between them', async (t) => {
  const { client, inbox } = await lone(t)
  const seen: string[] = []
  const loop = async (): Promise<void> => {
    for await (const message of inbox) {
      seen.push(message.text())
      if (seen.length === 1_000) await inbox.unsubscribe()
    }
  }
  const loops = Promise.all([loop(), loop()])
  await deliver(client, numbered(1_000))
  await soon(loops, 'both loops')
  t.deepEqual(
    seen.toSorted((a, b) => Number(a) - Number(b)),
    numbered(1_000),
  )
})

// ---- callbacks

test.serial('a callback is called for each message at once, and nothing waits', async (t) => {
  const { bus } = await lone(t)
  const client = await bus.open('two')
  const seen: Message[] = []
  const inbox = client.messages({ callback: (message) => seen.push(message), highWaterMark: 1 })
  for (const text of numbered(100)) await client.send('two', text, { ack: true })
  await until(() => seen.length >= 100, 'all messages')
  t.deepEqual(
    seen.map((message) => message.text()),
    numbered(100),
  )
  t.deepEqual([inbox.pending, inbox.dropped], [0, 0])
  throwsBus(t, () => inbox[Symbol.asyncIterator](), { code: 'ERR_BUS_ARGUMENT', says: ['callback'] })
})

overEach(ALL, 'what a callback throws is a fault, and the other messages come', async (t, bus) => {
  const client = await bus.open('one')
  const faults: unknown[] = []
  client.on('fault', (error) => faults.push(error))
  const errors = [new Error('a'), 'no error', undefined]
  const seen: string[] = []
  client.messages({
    callback: (message) => {
      seen.push(message.text())
      if (seen.length <= errors.length) throw errors[seen.length - 1]
    },
  })
  const other = client.messages()
  for (const text of numbered(5)) client.send('one', text)
  t.deepEqual(await texts(other, 5), numbered(5))
  t.deepEqual(seen, numbered(5))
  t.deepEqual(faults, errors)
})

test.serial('what an async callback rejects with is a fault too', async (t) => {
  const { client } = await lone(t)
  const unhandled: unknown[] = []
  const catcher = (reason: unknown): void => void unhandled.push(reason)
  // ava would end the whole file, and which test it was would not be told.
  const others = process.listeners('unhandledRejection')
  process.removeAllListeners('unhandledRejection')
  process.on('unhandledRejection', catcher)
  t.teardown(() => {
    process.removeListener('unhandledRejection', catcher)
    for (const other of others) process.on('unhandledRejection', other)
  })
  const reason = new Error('rejected')
  const faults: unknown[] = []
  client.on('fault', (error) => faults.push(error))
  client.messages({
    callback: async () => {
      await Promise.resolve()
      throw reason
    },
  })
  await deliver(client, ['x'])
  await until(() => faults.length + unhandled.length > 0, 'the rejection is told')
  t.deepEqual(unhandled, [])
  t.deepEqual(faults, [reason])
})

test.serial('a fault that nobody listens for is a warning of the process', async (t) => {
  const { client } = await lone(t)
  const warned = soon(once(process, 'warning') as Promise<[Error]>, 'a warning')
  const error = new Error('nobody listens')
  client.messages({
    callback: () => {
      throw error
    },
  })
  await deliver(client, ['x'])
  t.is((await warned)[0], error)
  t.true(client.connected)
})

test.serial('a callback may end its own and other subscriptions, and subscribe anew', async (t) => {
  const { client } = await lone(t)
  const seen: string[] = []
  const first = client.messages({
    callback: (message) => {
      seen.push(`first ${message.text()}`)
      void first.unsubscribe()
      void second.unsubscribe()
      void third.unsubscribe()
      client.messages({ callback: (other) => seen.push(`anew ${other.text()}`) })
    },
  })
  const second = client.messages({ callback: (message) => seen.push(`second ${message.text()}`) })
  const third = client.messages()
  await deliver(client, ['1', '2'])
  t.deepEqual(seen, ['first 1', 'anew 2'])
  t.is(third.pending, 0)
  t.true((await third[Symbol.asyncIterator]().next()).done)
})

// ---- the ways to end

overEach(ALL, 'unsubscribing drops what waits and ends the iterator', async (t, bus) => {
  const client = await bus.open('one')
  const inbox = client.subscribe('a')
  await inbox.ready
  for (const text of numbered(3)) await client.publish('a', text, { ack: true })
  await until(() => inbox.pending === 3, 'all messages')
  t.is(await inbox.unsubscribe(), undefined)
  t.is(inbox.pending, 0)
  t.true((await inbox[Symbol.asyncIterator]().next()).done)
  t.is(await inbox.unsubscribe(), undefined)
})

overEach(ALL, 'unsubscribing before it is in force works', async (t, bus) => {
  const client = await bus.open('one')
  const inbox = client.subscribe('a')
  await soon(inbox.unsubscribe(), 'the answer')
  t.is(await soon(inbox.ready, 'ready'), undefined)
  await client.publish('a', 'x', { ack: true })
  t.true((await inbox[Symbol.asyncIterator]().next()).done)
})

overEach(ALL, 'a signal ends it, at once if it has aborted before', async (t, bus) => {
  const client = await bus.open('one')
  const abort = new AbortController()
  const inbox = client.subscribe('a', { signal: abort.signal })
  const messages = client.messages({ signal: abort.signal })
  await inbox.ready
  const pending = inbox[Symbol.asyncIterator]().next()
  t.is(getEventListeners(abort.signal, 'abort').length, 2)
  const reason = new Error('enough')
  abort.abort(reason)
  t.deepEqual(await soon(pending, 'the end'), { done: true, value: undefined })
  t.true((await messages[Symbol.asyncIterator]().next()).done)
  t.is(
    t.throws(() => client.subscribe('a', { signal: abort.signal })),
    reason,
  )
  t.is(
    t.throws(() => client.messages({ signal: abort.signal })),
    reason,
  )
  // The broker was told: nothing of "a" is in force.
  const frames = (): number => bus.broker.clients('one')[0]?.sent.frames ?? -1
  await client.rtt()
  const before = frames()
  await client.publish('a', 'x', { ack: true })
  t.is(frames(), before + (bus.transport === 'unix' || bus.transport === 'tcp' ? 1 : frames() - before))
  const other = client.messages({ callback: () => t.fail() })
  await other.unsubscribe()
})

test.serial('a signal keeps nothing of a subscription that has ended', async (t) => {
  const { client } = await lone(t)
  const { signal } = new AbortController()
  for (let index = 0; index < 100; index += 1) await client.subscribe('a', { signal }).unsubscribe()
  t.is(getEventListeners(signal, 'abort').length, 0)
})

test.serial('await using ends it', async (t) => {
  const { client } = await lone(t)
  let kept: Subscription
  {
    await using inbox = client.subscribe('a')
    await inbox.ready
    kept = inbox
  }
  t.true((await kept[Symbol.asyncIterator]().next()).done)
})

overEach(ALL, 'closing the client lets what waits be read, and then it ends', async (t, bus) => {
  const client = await bus.open('one')
  const inbox = client.messages()
  await client.send('one', 'x', { ack: true })
  await until(() => inbox.pending === 1, 'the message')
  const seen: string[] = []
  await client.close()
  for await (const message of inbox) seen.push(message.text())
  t.deepEqual(seen, ['x'])
  t.is(await inbox.unsubscribe(), undefined)
})

overEach(
  SOCKETS,
  'when the broker is lost what waits can be read, and then the iterator throws once',
  async (t, bus) => {
    const client = await bus.open('one')
    const [inbox, idle] = [client.messages(), client.subscribe('a')]
    await idle.ready
    const reader = reasonOf(idle[Symbol.asyncIterator]().next())
    await client.send('one', 'x', { ack: true })
    await until(() => inbox.pending === 1, 'the message')
    await bus.broker.close({ drain: 0 })
    t.like(await soon(client.closed, 'the client is closed'), { code: 'ERR_BUS_DISCONNECTED' })
    const iterator = inbox[Symbol.asyncIterator]()
    t.is((await iterator.next()).value?.text(), 'x')
    const error = await reasonOf(iterator.next())
    t.true(error instanceof BusError)
    t.like(error, { code: 'ERR_BUS_DISCONNECTED' })
    t.deepEqual(await iterator.next(), { done: true, value: undefined })
    t.like(await reader, { code: 'ERR_BUS_DISCONNECTED' })
    t.is(await inbox.unsubscribe(), undefined)
    t.is(await idle.unsubscribe(), undefined)
  },
)

overEach(LOCAL, 'when the broker of this thread is closed its clients’ iterators end', async (t, bus) => {
  const client = await bus.open('one')
  const [inbox, idle] = [client.messages(), client.subscribe('a')]
  await idle.ready
  const reader = idle[Symbol.asyncIterator]().next()
  await client.send('one', 'x', { ack: true })
  await until(() => inbox.pending === 1, 'the message')
  await bus.broker.close({ drain: 0 })
  t.is(await soon(client.closed, 'the client is closed'), undefined)
  t.deepEqual(await texts(inbox, 1), ['x'])
  t.true((await inbox[Symbol.asyncIterator]().next()).done)
  t.true((await soon(reader, 'the end')).done)
})

// Topics: publish, subscribe, exclude, and who gets what how often. Over every transport.

import { AaaMap, type Client, connect, type Subscription } from 'elbus-node'
import { reasonOf, rejectsBus, throwsBus } from './support/bus-error'
import { next, take, texts } from './support/messages'
import { testIf } from './support/skip'
import { ALL, type Bus, closing, missing, overEach, SOCKETS, startBus } from './support/transports'
import { soon } from './support/within'

/** A client that is subscribed, and another that publishes. */
async function pair(
  bus: Bus,
  masks: string | string[] = '#',
): Promise<{ from: Client; to: Client; inbox: Subscription }> {
  const [from, to] = await Promise.all([bus.open('from'), bus.open('to')])
  const inbox = to.subscribe(masks)
  await inbox.ready
  return { from, to, inbox }
}

/** How many frames the broker has queued for a client so far, acknowledgements included. */
function framesFor(bus: Bus, name: string): number {
  const info = bus.broker.clients(name).find((client) => client.name === name)
  if (info === undefined) throw new Error(`${name} is not registered`)
  return info.sent.frames
}

overEach(ALL, 'a publication reaches its subscribers with all that is known of it', async (t, bus) => {
  const { from, inbox } = await pair(bus, 'a/b')
  t.true(from.publish('a/b', 'one'))
  await from.publish('a/b', { two: 2 }, { ack: true, realtime: true })
  const [first, second] = await take(inbox, 2)
  t.like(first, { kind: 'publish', sender: 'from', primarySender: 'from', topic: 'a/b', realtime: false })
  t.is(first?.text(), 'one')
  t.true(second?.realtime)
  t.deepEqual(second?.decode(), { two: 2 })
  t.deepEqual([inbox.masks, inbox.excluded], [['a/b'], []])
})

overEach(ALL, 'a publication nobody is subscribed to is done', async (t, bus) => {
  const { from, inbox } = await pair(bus, 'a')
  t.is(await from.publish('b', 'x', { ack: true }), undefined)
  t.true(from.publish('b'))
  await from.publish('a', 'end', { ack: true })
  t.deepEqual(await texts(inbox, 1), ['end'])
})

/** The table of `crates/protocol/README.md`. */
const MATCHES: [mask: string, matched: string[], not: string[]][] = [
  ['a/b', ['a/b'], ['a', 'a/b/c', 'A/b', 'a/+', 'a/']],
  ['a/+', ['a/b', 'a/', 'a/+', 'a/#'], ['a', 'a/b/c']],
  ['+', ['a', ''], ['a/b', '/']],
  ['a/+/c', ['a/b/c', 'a//c'], ['a/b/d', 'a/c']],
  ['#', ['a', '', 'a/b/c', '/'], []],
  ['a/#', ['a/b', 'a/b/c', 'a/'], ['a', 'ab/c']],
  ['+/#', ['a/b', '/b'], ['a']],
  ['a/#/c', ['a/b', 'a/b/c'], ['a']],
  ['/a', ['/a'], ['a']],
  ['a//b', ['a//b'], ['a/b']],
  ['a/b+', ['a/b+'], ['a/bx']],
  ['a/*', ['a/*'], ['a/b']],
  ['', [''], ['a']],
  ['é/日本/+', ['é/日本/🦀'], ['e/日本/🦀']],
]

overEach(ALL, 'masks match what they should, and nothing else', async (t, bus) => {
  const [from, to] = await Promise.all([bus.open('from'), bus.open('to')])
  for (const [mask, matched, not] of MATCHES) {
    // A subscription of its own client: what the broker sends is what is tested too.
    const inbox = to.subscribe(mask)
    await inbox.ready
    const [all, end] = [[...not, ...matched], matched.at(-1) as string]
    for (const topic of all) from.publish(topic, topic)
    await from.publish(end, 'end', { ack: true })
    const messages = await take(inbox, matched.length + 1)
    t.deepEqual(
      messages.map((message) => message.text()),
      [...matched, 'end'],
      mask,
    )
    t.deepEqual(
      messages.map((message) => message.topic),
      [...matched, end],
    )
    await inbox.unsubscribe()
  }
})

overEach(ALL, 'overlapping masks give one copy to each subscription', async (t, bus) => {
  const { from, to, inbox: all } = await pair(bus, ['a/+', 'a/#', '#', 'a/b', 'a/b'])
  const [one, level, other] = [to.subscribe('a/b'), to.subscribe('+/b'), to.subscribe('c')]
  await Promise.all([one.ready, level.ready, other.ready])
  const before = framesFor(bus, 'to')
  await from.publish('a/b', 'x', { ack: true })
  const copies = await Promise.all([all, one, level].map((inbox) => next(inbox)))
  t.is(framesFor(bus, 'to'), before + 1)
  t.deepEqual(
    copies.map((message) => message.text()),
    ['x', 'x', 'x'],
  )
  await from.publish('c', 'end', { ack: true })
  t.deepEqual(await texts(other, 1), ['end'])
  t.deepEqual(await texts(all, 1), ['end'])
  t.is(one.pending + level.pending + all.pending + other.pending, 0)
})

overEach(ALL, 'what a subscription excludes others still get', async (t, bus) => {
  const { from, to, inbox: all } = await pair(bus, 'a/#')
  const some = to.subscribe('a/#', { exclude: ['a/+/secret', 'a/x'] })
  const one = to.subscribe('a/b/secret', { exclude: 'nothing' })
  await Promise.all([some.ready, one.ready])
  t.deepEqual(some.excluded, ['a/+/secret', 'a/x'])
  for (const topic of ['a/b/secret', 'a/x', 'a/y', 'a/b/secret'])
    await from.publish(topic, topic, { ack: true })
  await from.publish('a/end', 'end', { ack: true })
  t.deepEqual(await texts(all, 5), ['a/b/secret', 'a/x', 'a/y', 'a/b/secret', 'end'])
  t.deepEqual(await texts(some, 2), ['a/y', 'end'])
  t.deepEqual(await texts(one, 2), ['a/b/secret', 'a/b/secret'])
  t.is(some.pending + one.pending, 0)
})

overEach(ALL, 'masks are counted: the broker forgets one when nobody wants it any more', async (t, bus) => {
  const { from, to, inbox: first } = await pair(bus, ['a', 'b'])
  const second = to.subscribe(['b', 'c'])
  const third = to.subscribe('b')
  await Promise.all([second.ready, third.ready])
  /** Frames that publications to a, b and c brought. */
  const frames = async (): Promise<number[]> => {
    const counts: number[] = []
    for (const topic of ['a', 'b', 'c']) {
      const before = framesFor(bus, 'to')
      await from.publish(topic, topic, { ack: true })
      counts.push(framesFor(bus, 'to') - before)
    }
    return counts
  }
  t.deepEqual(await frames(), [1, 1, 1])
  await first.unsubscribe()
  t.deepEqual(await frames(), [0, 1, 1])
  await third.unsubscribe()
  await third.unsubscribe()
  t.deepEqual(await frames(), [0, 1, 1])
  t.deepEqual(await texts(second, 6), ['b', 'c', 'b', 'c', 'b', 'c'])
  await second.unsubscribe()
  t.deepEqual(await frames(), [0, 0, 0])
  // And it is wanted again.
  const again = to.subscribe(['c', 'b'])
  await again.ready
  t.deepEqual(await frames(), [0, 1, 1])
  t.deepEqual(await texts(again, 2), ['b', 'c'])
})

overEach(ALL, 'ended and begun again in one go, it is in force', async (t, bus) => {
  const { from, to, inbox } = await pair(bus, 'a')
  const ended = inbox.unsubscribe()
  const again = to.subscribe('a')
  const short = to.subscribe('a')
  void short.unsubscribe()
  await soon(Promise.all([ended, again.ready]), 'both answers')
  await from.publish('a', 'x', { ack: true })
  t.deepEqual(await texts(again, 1), ['x'])
  t.true((await inbox[Symbol.asyncIterator]().next()).done)
})

overEach(
  ALL,
  'topics that were seen before go to subscriptions made later, and not to those that ended',
  async (t, bus) => {
    const { from, to, inbox } = await pair(bus, 'a/#')
    await from.publish('a/b', '1', { ack: true })
    t.deepEqual(await texts(inbox, 1), ['1'])
    const later = to.subscribe('a/b')
    await later.ready
    await from.publish('a/b', '2', { ack: true })
    t.deepEqual(await texts(inbox, 1), ['2'])
    t.deepEqual(await texts(later, 1), ['2'])
    await inbox.unsubscribe()
    await from.publish('a/b', '3', { ack: true })
    t.deepEqual(await texts(later, 1), ['3'])
    t.is(inbox.pending, 0)
  },
)

overEach(ALL, 'a client gets its own publications', async (t, bus) => {
  const { to, inbox } = await pair(bus, 'mine')
  await to.publish('mine', 'x', { ack: true })
  t.is((await next(inbox)).sender, 'to')
})

overEach(ALL, 'an exclusion holds for all of a client until it is ended', async (t, bus) => {
  const { from, to, inbox } = await pair(bus, 'a/#')
  const [other, exact] = [await bus.open('other'), to.subscribe('a/x/y')]
  const all = other.subscribe('a/#')
  await Promise.all([all.ready, exact.ready])
  t.is(await to.exclude(['a/x/#', 'a/z']), undefined)
  const publish = async (): Promise<void> => {
    for (const topic of ['a/x/y', 'a/z', 'a/b']) await from.publish(topic, topic, { ack: true })
  }
  await publish()
  t.deepEqual(await texts(inbox, 1), ['a/b'])
  t.deepEqual(await texts(all, 3), ['a/x/y', 'a/z', 'a/b'])
  await to.unexclude('a/x/#')
  await publish()
  t.deepEqual(await texts(inbox, 2), ['a/x/y', 'a/b'])
  t.deepEqual(await texts(exact, 1), ['a/x/y'])
  await to.unexclude(['a/z', 'never/excluded'])
  await publish()
  t.deepEqual(await texts(inbox, 3), ['a/x/y', 'a/z', 'a/b'])
  t.is(inbox.pending, 0)
})

overEach(ALL, 'for narrows a publication to a primary and its secondaries', async (t, bus) => {
  const { from, to, inbox } = await pair(bus, 'topic')
  const second = closing(t, await to.secondary())
  const other = await bus.open('to.other')
  const [inSecond, inOther] = [second.subscribe('topic'), other.subscribe('topic')]
  await Promise.all([inSecond.ready, inOther.ready])
  t.true(from.publish('topic', 'for to', { for: 'to' }))
  await from.publish('topic', 'for to again', { for: 'to', ack: true, realtime: true })
  // Reaches nobody, and is done all the same.
  for (const receiver of [second.name, 't?', '*', 'nobody']) {
    t.is(await from.publish('topic', receiver, { for: receiver, ack: true }), undefined)
  }
  await from.publish('other', 'not subscribed', { for: 'to', ack: true })
  await from.publish('topic', 'end', { ack: true })
  const messages = await take(inbox, 3)
  t.deepEqual(
    messages.map((message) => [message.text(), message.realtime, message.topic, message.kind]),
    [
      ['for to', false, 'topic', 'publish'],
      ['for to again', true, 'topic', 'publish'],
      ['end', false, 'topic', 'publish'],
    ],
  )
  t.deepEqual(await texts(inSecond, 3), ['for to', 'for to again', 'end'])
  t.deepEqual(await texts(inOther, 1), ['end'])
})

overEach(ALL, 'for is a name', async (t, bus) => {
  const { from, inbox } = await pair(bus)
  throwsBus(t, () => from.publish('a', 'x', { for: '' }), { code: 'ERR_BUS_ARGUMENT', says: ['for'] })
  await rejectsBus(t, () => from.publish('a', 'x', { for: '', ack: true }), {
    code: 'ERR_BUS_ARGUMENT',
    says: ['for'],
  })
  t.true(from.publish('a', 'not narrowed', { for: undefined }))
  t.deepEqual(await texts(inbox, 1), ['not narrowed'])
})

overEach(ALL, 'topics of the broker are published by the broker alone', async (t, bus) => {
  const { from, inbox } = await pair(bus)
  await rejectsBus(t, () => from.publish('.broker/info', 'x', { ack: true }), {
    code: 'ERR_BUS_ACCESS',
    wireCode: 0x79,
    says: ['.broker/info'],
  })
  t.true(from.publish('.broker/warn', 'x'))
  await from.publish('end', 'end', { ack: true })
  const messages = await take(inbox, 1)
  t.is(messages[0]?.text(), 'end')
})

overEach(ALL, 'what is no list of masks is refused', async (t, bus) => {
  const client = await bus.open('one')
  for (const masks of [[], undefined, null, 7, {}] as unknown as string[][]) {
    throwsBus(t, () => client.subscribe(masks), { code: 'ERR_BUS_ARGUMENT', says: ['masks'] })
    await rejectsBus(t, () => client.exclude(masks), { code: 'ERR_BUS_ARGUMENT', says: ['masks'] })
    await rejectsBus(t, () => client.unexclude(masks), { code: 'ERR_BUS_ARGUMENT', says: ['masks'] })
  }
  throwsBus(t, () => client.subscribe('a', { exclude: [] }), { code: 'ERR_BUS_ARGUMENT', says: ['exclude'] })
  throwsBus(t, () => client.subscribe(['a', 7 as unknown as string]), { code: 'ERR_BUS_ARGUMENT' })
})

const DEEP = Array.from({ length: 129 }, () => 'x').join('/')

overEach(ALL, 'a mask or topic of too many levels is refused, and the client stays', async (t, bus) => {
  const { from, to, inbox } = await pair(bus)
  const denied = to.subscribe(DEEP)
  const expected = { code: 'ERR_BUS_DATA', wireCode: 0x72 } as const
  await rejectsBus(t, () => denied.ready, expected)
  t.like(await reasonOf(denied[Symbol.asyncIterator]().next()), { code: 'ERR_BUS_DATA' })
  t.true((await denied[Symbol.asyncIterator]().next()).done)
  await rejectsBus(t, () => to.exclude(DEEP), expected)
  await rejectsBus(t, () => from.publish(DEEP, 'x', { ack: true }), expected)
  await from.publish(DEEP.slice(2), 'end', { ack: true })
  t.deepEqual(await texts(inbox, 1), ['end'])
})

overEach(ALL, 'a topic of 4,096 bytes is one', async (t, bus) => {
  const { from, inbox } = await pair(bus)
  for (const topic of ['x'.repeat(4_096), 'é'.repeat(2_048), `${'y'.repeat(4_090)}/😀`]) {
    await from.publish(topic, 'x', { ack: true })
    t.is((await next(inbox)).topic, topic)
  }
})

overEach(
  ALL,
  'beyond the bound of subscriptions one more is refused, and those in force stay',
  async (t, bus) => {
    const { from, to, inbox } = await pair(bus, 'a')
    // One is the broker's own: every client begins with `.broker/warn`.
    const more = to.subscribe(['b', 'c', 'd'])
    await rejectsBus(t, () => more.ready, { code: 'ERR_BUS_DATA', wireCode: 0x72, says: ['subscription'] })
    await from.publish('a', 'end', { ack: true })
    t.deepEqual(await texts(inbox, 1), ['end'])
    await inbox.unsubscribe()
    const fits = to.subscribe('e')
    t.is(await fits.ready, undefined)
  },
  { subscriptions: 3 },
)

for (const transport of SOCKETS) {
  testIf(missing(transport), { serial: true })(
    `a subscription that is denied tells so where it is looked at [${transport}]`,
    async (t) => {
      const aaa = new AaaMap({ me: { subscribe: ['open/#'], exclude: ['open/#'], publish: ['open/#'] } })
      const bus = await startBus(t, transport, { aaa })
      const me = await bus.open('me')
      const denied = me.subscribe(['secret', 'open/a'])
      // What is asked for at the same time is its own concern.
      const open = me.subscribe('open/a')
      const expected = { code: 'ERR_BUS_ACCESS', wireCode: 0x79, says: ['secret'] } as const
      await rejectsBus(t, () => denied.ready, expected)
      const iterator = denied[Symbol.asyncIterator]()
      t.like(await reasonOf(iterator.next()), { code: 'ERR_BUS_ACCESS' })
      t.true((await iterator.next()).done)
      t.is(await open.ready, undefined)
      await rejectsBus(t, () => me.subscribe('secret').ready, expected)
      // Of "#" not all is allowed.
      await rejectsBus(t, () => me.subscribe('#').ready, { ...expected, says: ['#'] })
      await rejectsBus(t, () => me.exclude('secret'), expected)
      await rejectsBus(t, () => me.publish('secret', 'x', { ack: true }), expected)
      await me.publish('open/a', 'end', { ack: true })
      t.deepEqual(await texts(open, 1), ['end'])
      // A callback is told by `ready` alone.
      const called = me.subscribe('secret', { callback: () => t.fail() })
      t.like(await reasonOf(called.ready), { code: 'ERR_BUS_ACCESS' })
    },
  )
}

overEach(ALL, '20,000 topics: both tables of names give way, and nothing is mixed up', async (t, bus) => {
  const [from, to] = await Promise.all([bus.open('from'), bus.open('to')])
  const topic = (index: number): string => `t/${index % 97}/${index}`
  const wrong: string[] = []
  let count = 0
  to.subscribe('t/#', {
    callback: (message) => {
      const expected = topic(Number(message.text()))
      const { sender, topic: found } = message
      if (found !== expected || sender !== 'from') wrong.push(`${message.text()}: ${sender} ${found}`)
      count += 1
    },
  })
  const one = to.subscribe(topic(7))
  await one.ready
  // Twice through all, and back to a few again and again.
  const order: number[] = []
  for (let step = 0; step < 40_000; step += 1) order.push(step % 11 === 0 ? (step / 11) % 50 : step % 20_000)
  for (const [step, index] of order.entries()) {
    from.publish(topic(index), String(index))
    // The queues are not what is tested here.
    if (step % 500 === 0) await from.rtt()
    if (step % 5_000 === 0) await from.drained()
  }
  await from.publish('end', 'x', { ack: true })
  const last = to.subscribe('end')
  await last.ready
  await from.publish('end', 'x', { ack: true })
  await next(last)
  t.deepEqual(wrong, [])
  t.is(count, order.length)
  t.is(one.pending, order.filter((index) => index === 7).length)
})

overEach(ALL, 'publishing for 20,000 names keeps the topic', async (t, bus) => {
  const { from, inbox } = await pair(bus)
  for (let index = 0; index < 20_000; index += 1) {
    from.publish('keep', `to ${index}`, { for: `nobody.${index}` })
    if (index % 1_000 === 0) from.publish('keep', `${index}`, { for: 'to' })
    if (index % 500 === 0) await from.rtt()
  }
  await from.publish('end', 'end', { ack: true })
  const messages = await take(inbox, 21)
  t.deepEqual(
    messages.map((message) => `${message.topic} ${message.text()}`),
    [...Array.from({ length: 20 }, (_, index) => `keep ${index * 1_000}`), 'end end'],
  )
})

overEach(ALL, '20,000 senders are told apart', async (t, bus) => {
  const { to } = await pair(bus)
  const wrong: string[] = []
  let count = 0
  to.messages({
    callback: (message) => {
      count += 1
      if (message.sender !== message.text()) wrong.push(`${message.sender} for ${message.text()}`)
    },
  })
  // In process they cost nothing; over a socket so many would take long.
  const many = bus.transport === 'broker.client' || bus.transport === 'inproc' ? 17_000 : 500
  for (let index = 0; index < many; index += 1) {
    const name = `sender.${index}`
    const client =
      bus.transport === 'broker.client' ? await bus.broker.client(name) : await connect(bus.address, { name })
    await client.send('to', name, { ack: true })
    await client.close()
  }
  await to.send('to', 'to', { ack: true })
  await soon(to.flush(), 'a round trip')
  t.deepEqual(wrong, [])
  t.true(count >= many)
})

overEach(ALL, 'a subscription takes 1,000 masks at once and gives them back', async (t, bus) => {
  const masks = Array.from({ length: 1_000 }, (_, index) => `sensor/${index}/+`)
  const { from, inbox } = await pair(bus, masks)
  await from.publish('sensor/999/x', '999', { ack: true })
  await from.publish('sensor/1000/x', 'none', { ack: true })
  await from.publish('sensor/0/x', '0', { ack: true })
  t.deepEqual(await texts(inbox, 2), ['999', '0'])
  const before = framesFor(bus, 'to')
  await inbox.unsubscribe()
  const answered = framesFor(bus, 'to') - before
  await from.publish('sensor/5/x', 'x', { ack: true })
  t.is(framesFor(bus, 'to') - before, answered)
})

// What is sent to clients themselves: send, broadcast, notify, and messages() that receives it. Over every transport.

import { getEventListeners } from 'node:events'
import test from 'ava'
import { type Client, connect, type Payload } from 'elbus-node'
import { reasonOf, rejectsBus, throwsBus } from './support/bus-error'
import { FakeBroker } from './support/fake-broker'
import { next, take, texts } from './support/messages'
import { testIf } from './support/skip'
import { ALL, closing, missing, overEach, SOCKETS, startBus } from './support/transports'
import { soon, until } from './support/within'

overEach(ALL, 'a message reaches the client of that name alone', async (t, bus) => {
  const [ann, bob, eve] = await Promise.all([bus.open('ann'), bus.open('bob'), bus.open('bob.eve')])
  const [toBob, toEve, toAnn] = [bob.messages(), eve.messages(), ann.messages()]
  t.true(ann.send('bob', 'hello'))
  await ann.send('bob', Buffer.from([9, 0, 255]), { ack: true })
  await ann.send('bob.eve', 'end', { ack: true })
  await ann.send('ann', 'end', { ack: true })
  const [first, second] = await take(toBob, 2)
  t.like(first, { kind: 'message', sender: 'ann', primarySender: 'ann', topic: undefined, realtime: false })
  t.is(first?.text(), 'hello')
  t.deepEqual([...(second?.data ?? [])], [9, 0, 255])
  t.is((await next(toEve)).text(), 'end')
  t.is((await next(toAnn)).text(), 'end')
  t.is(toBob.pending + toEve.pending + toAnn.pending, 0)
})

overEach(ALL, 'messages of one sender keep their order, with and without acknowledgement', async (t, bus) => {
  const [from, to] = await Promise.all([bus.open('from'), bus.open('to')])
  const inbox = to.messages<number>()
  const acks: Promise<void>[] = []
  const numbers = Array.from({ length: 5_000 }, (_, index) => index + 1_000)
  for (const number of numbers) {
    if (number % 3 === 0) acks.push(from.send('to', number, { ack: true }))
    else from.send('to', number)
  }
  await soon(Promise.all(acks), 'all acknowledgements')
  t.deepEqual(
    (await take(inbox, numbers.length)).map((message) => message.decode()),
    numbers,
  )
})

overEach(
  ALL,
  'a message to nobody is refused where it is acknowledged and harms nothing otherwise',
  async (t, bus) => {
    const ann = await bus.open('ann')
    const inbox = ann.messages()
    t.true(ann.send('nobody', 'lost'))
    await rejectsBus(t, () => ann.send('nobody', 'x', { ack: true }), {
      code: 'ERR_BUS_NOT_REGISTERED',
      wireCode: 0x71,
      says: ['nobody'],
    })
    // Masks are not expanded in a message.
    await rejectsBus(t, () => ann.send('*', 'x', { ack: true }), {
      code: 'ERR_BUS_NOT_REGISTERED',
      says: ['*'],
    })
    t.true(ann.send('ann', 'still here'))
    t.deepEqual(await texts(inbox, 1), ['still here'])
  },
)

overEach(ALL, 'the realtime mark arrives, and is absent without', async (t, bus) => {
  const [from, to] = await Promise.all([bus.open('from'), bus.open('to')])
  const inbox = to.messages()
  from.send('to', '1', { realtime: true })
  from.send('to', '2')
  await from.send('to', '3', { ack: true, realtime: true })
  await from.send('to', '4', { ack: true, realtime: false })
  from.broadcast('to', '5', { realtime: true })
  await from.broadcast('to', '6', { ack: true, realtime: true })
  t.deepEqual(
    (await take(inbox, 6)).map((message) => message.realtime),
    [true, false, true, false, true, true],
  )
})

overEach(ALL, 'broadcasts reach whom their mask matches, the sender too', async (t, bus) => {
  const names = ['g.b', 'g.b.c', 'g.x.c', 'h.b', 'g', 'g.b%%1']
  const clients: Client[] = []
  for (const name of names) clients.push(await bus.open(name))
  const inboxes = clients.map((client) => client.messages())
  const sender = clients[0] as Client
  const table: Record<string, string[]> = {
    'g.b.c': ['g.b.c'],
    'g.?': ['g.b', 'g.b%%1'],
    'g.?.c': ['g.b.c', 'g.x.c'],
    'g.*': ['g.b', 'g.b.c', 'g.x.c', 'g.b%%1'],
    '?.b': ['g.b', 'h.b'],
    '?.b.*': ['g.b.c'],
    'g.*.zz': ['g.b', 'g.b.c', 'g.x.c', 'g.b%%1'],
    '?': ['g'],
    '*': names,
    'g.b*': [],
    'g.#': [],
    '': [],
  }
  for (const [index, mask] of Object.keys(table).entries()) {
    // Every other one without acknowledgement.
    if (index % 2 === 0) await sender.broadcast(mask, mask, { ack: true })
    else t.true(sender.broadcast(mask, mask))
  }
  await sender.broadcast('*', 'end', { ack: true })
  for (const [index, inbox] of inboxes.entries()) {
    const name = names[index] as string
    const expected = Object.keys(table).filter((mask) => table[mask]?.includes(name))
    const messages = await take(inbox, expected.length + 1)
    t.deepEqual(
      messages.map((message) => message.text()),
      [...expected, 'end'],
      name,
    )
    t.true(
      messages.every(
        ({ kind, sender, topic }) => kind === 'broadcast' && sender === 'g.b' && topic === undefined,
      ),
    )
  }
})

overEach(
  ALL,
  'several messages() of a client see each message, and publications are not among them',
  async (t, bus) => {
    const client = await bus.open('one')
    const [first, second] = [client.messages(), client.messages()]
    await client.subscribe('#', { callback: () => undefined }).ready
    await client.publish('topic', 'no', { ack: true })
    await client.send('one', 'yes', { ack: true })
    const [left, right] = await Promise.all([next(first), next(second)])
    t.deepEqual([left.text(), right.text()], ['yes', 'yes'])
    t.deepEqual([first.masks, first.excluded], [[], []])
    await first.ready
  },
)

overEach(ALL, 'a secondary has messages of its own, and tells whose it is', async (t, bus) => {
  const [ann, bob] = await Promise.all([bus.open('ann'), bus.open('bob')])
  const second = closing(t, await bob.secondary())
  const [toBob, toSecond, toAnn] = [bob.messages(), second.messages(), ann.messages()]
  await ann.send(second.name, 'second', { ack: true })
  await ann.send('bob', 'first', { ack: true })
  await second.send('ann', 'from second', { ack: true })
  t.deepEqual(await texts(toSecond, 1), ['second'])
  t.deepEqual(await texts(toBob, 1), ['first'])
  const message = await next(toAnn)
  t.like(message, { sender: second.name, primarySender: 'bob' })
})

/** Sizes around those at which another way is taken: looped, copied, direct, batch, arena, and chunks of a socket. */
const SIZES = [
  0, 1, 24, 25, 2_729, 2_730, 2_731, 4_095, 4_096, 4_097, 8_191, 8_192, 8_193, 16_383, 16_384, 65_511, 65_512,
  65_535, 65_536, 65_537, 262_119, 262_120, 262_143, 262_144, 262_145, 1_000_003,
]

function pattern(size: number): Buffer {
  const bytes = Buffer.alloc(size)
  for (let index = 0; index < size; index += 1) bytes[index] = 32 + ((index * 7 + size) % 90)
  return bytes
}

overEach(ALL, 'payloads of every size arrive as they were, bytes and strings', async (t, bus) => {
  const [from, to] = await Promise.all([bus.open('from'), bus.open('to')])
  const inbox = to.messages()
  for (const size of SIZES) {
    const bytes = pattern(size)
    // A view in the middle of other memory: its offset counts.
    const view = new Uint8Array([...Buffer.alloc(3), ...bytes]).subarray(3)
    from.send('to', view)
    from.send('to', bytes.toString('latin1'))
    // What was sent is taken by then: changing it changes nothing that arrives.
    view.fill(0)
    const [first, second] = await take(inbox, 2)
    t.true(bytes.equals(first?.data ?? new Uint8Array()), `bytes of ${size}`)
    t.true(bytes.equals(second?.data ?? new Uint8Array()), `string of ${size}`)
  }
})

overEach(ALL, 'strings of any characters arrive as UTF-8, of every size', async (t, bus) => {
  const [from, to] = await Promise.all([bus.open('from'), bus.open('to')])
  const inbox = to.messages()
  for (const size of [1, 10, 2_730, 2_731, 8_192, 30_000, 300_000]) {
    const text = 'aé日🦀'.repeat(Math.ceil(size / 4)).slice(0, size)
    from.send('to', text)
    const message = await next(inbox)
    t.is(message.text(), Buffer.from(text).toString('utf8'))
    t.is(message.data.length, Buffer.byteLength(text))
  }
  // Half a pair is no character: it becomes U+FFFD, as everywhere in Node.
  from.send('to', 'x\ud83dy')
  t.is((await next(inbox)).text(), 'x\ufffdy')
})

overEach(ALL, 'nothing, an empty string and no bytes are the same empty payload', async (t, bus) => {
  const [from, to] = await Promise.all([bus.open('from'), bus.open('to')])
  const inbox = to.messages()
  from.send('to')
  from.send('to', undefined)
  from.send('to', '')
  from.send('to', new Uint8Array(0))
  from.broadcast('to')
  await from.send('to', '', { ack: true })
  for (const message of await take(inbox, 6)) {
    t.is(message.data.length, 0)
    t.is(message.text(), '')
    t.is(message.decode(), undefined)
    t.is(message.copy().length, 0)
  }
})

overEach(ALL, '15 MiB arrive in one message, and again', async (t, bus) => {
  const [from, to] = await Promise.all([bus.open('from'), bus.open('to')])
  const inbox = to.messages()
  const bytes = Buffer.alloc(15 << 20, 'The quick brown fox jumps over the lazy dog. ')
  for (let round = 0; round < 2; round += 1) {
    await from.send('to', bytes, { ack: true })
    t.true(bytes.equals((await next(inbox)).data))
  }
  // Of 16 MiB more than half is beyond what may wait, but an empty queue takes it.
  if (bus.transport === 'tcp') return
  const larger = Buffer.alloc(40 << 20, '0123456789')
  await from.send('to', larger, { ack: true })
  t.true(larger.equals((await next(inbox)).data))
})

for (const [transport, limit] of [
  ['unix', 64 << 20],
  ['tcp', 16 << 20],
] as const) {
  testIf(missing(transport), { serial: true })(
    `a payload beyond the limit of a frame is refused before it is sent [${transport}]`,
    async (t) => {
      const bus = await startBus(t, transport)
      const client = await bus.open('big')
      const inbox = client.messages()
      const bytes = Buffer.alloc(limit + 1)
      const expected = { code: 'ERR_BUS_PAYLOAD', says: [String(limit)] } as const
      throwsBus(t, () => client.send('big', bytes, { raw: true }), {
        ...expected,
        says: ['big', String(limit)],
      })
      throwsBus(t, () => client.broadcast('big', bytes), expected)
      throwsBus(t, () => client.publish('a/topic', bytes), { ...expected, says: ['a/topic', String(limit)] })
      throwsBus(t, () => client.notify('big', bytes), expected)
      throwsBus(t, () => client.send('big', 'é'.repeat(limit / 2 + 1)), expected)
      await rejectsBus(t, () => client.send('big', bytes, { ack: true, raw: true }), expected)
      await rejectsBus(t, () => client.broadcast('big', bytes, { ack: true }), expected)
      await rejectsBus(t, () => client.publish('big', bytes, { ack: true }), expected)
      await rejectsBus(t, () => client.call('big', 'method', bytes), expected)
      t.true(client.connected)
      t.true(client.send('big', 'fits'))
      t.deepEqual(await texts(inbox, 1), ['fits'])
    },
  )
}

for (const transport of SOCKETS) {
  testIf(missing(transport), { serial: true })(
    `a limit of frames that is given holds, and what is below it passes [${transport}]`,
    async (t) => {
      const bus = await startBus(t, transport)
      const client = closing(t, await connect(bus.address, { name: 'small', frameBytes: 4_096 }))
      const inbox = client.messages()
      const room = 4_096 - 'small'.length - 1
      await client.send('small', 'x'.repeat(100), { ack: true })
      t.is((await next(inbox)).data.length, 100)
      await client.send('small', 'x'.repeat(room), { ack: true })
      t.is((await next(inbox)).data.length, room)
      throwsBus(t, () => client.send('small', 'x'.repeat(room + 1)), {
        code: 'ERR_BUS_PAYLOAD',
        says: ['small', '4096'],
      })
      t.true(client.connected)
    },
  )

  testIf(missing(transport), { serial: true })(
    `a message beyond the limit of the listener ends the connection and says why [${transport}]`,
    async (t) => {
      const bus = await startBus(t, transport)
      const url = transport === 'unix' ? `${bus.address}.2` : 'tcp://127.0.0.1:0'
      const address = await bus.broker.listen({ url, payloadLimit: 1_024 })
      const client = closing(t, await connect(address, { name: 'big' }))
      const fault = soon(
        new Promise<{ client: string | undefined; reason: string }>((resolve) =>
          bus.broker.once('fault', resolve),
        ),
        'a fault of the broker',
      )
      await client.send('big', Buffer.alloc(1_000, 1), { ack: true, raw: true })
      const refused = rejectsBus(t, () => client.send('big', Buffer.alloc(2_000, 32), { ack: true }), {
        code: 'ERR_BUS_DATA',
        wireCode: 0x72,
        says: ['big'],
      })
      await refused
      const { client: name, reason } = await fault
      t.is(name, 'big')
      t.regex(reason, /1024/)
      const error = await soon(client.closed, 'the client is closed')
      t.like(error, { code: 'ERR_BUS_DISCONNECTED' })
    },
  )
}

/** Every verb that takes a name, by whether it returns a Promise. */
const NAMED: Record<string, (client: Client, name: string) => unknown> = {
  send: (client, name) => client.send(name, 'x'),
  broadcast: (client, name) => client.broadcast(name, 'x'),
  publish: (client, name) => client.publish(name, 'x'),
  'publish for': (client, name) => client.publish('topic', 'x', { for: name }),
  notify: (client, name) => client.notify(name, 'x'),
  subscribe: (client, name) => client.subscribe(name),
  'subscribe excluding': (client, name) => client.subscribe('a', { exclude: name }),
}
const NAMED_PROMISES: Record<string, (client: Client, name: string) => Promise<unknown>> = {
  send: (client, name) => client.send(name, 'x', { ack: true }),
  broadcast: (client, name) => client.broadcast(name, 'x', { ack: true }),
  publish: (client, name) => client.publish(name, 'x', { ack: true }),
  'publish for': (client, name) => client.publish('topic', 'x', { ack: true, for: name }),
  exclude: (client, name) => client.exclude(name),
  unexclude: (client, name) => client.unexclude([name]),
  call: (client, name) => client.call(name, 'method'),
  'call of a method': (client, name) => client.call('name', name),
  'call without reply': (client, name) => client.call(name, 'method', null, { reply: false }),
}
const NO_NAMES: [what: string, name: unknown, code: 'ERR_BUS_NAME' | 'ERR_BUS_ARGUMENT', says: string[]][] = [
  ['a NUL', 'a\0b', 'ERR_BUS_NAME', ['a\\u0000b', 'NUL']],
  ['4,097 bytes', 'n'.repeat(4_097), 'ERR_BUS_NAME', ['nnnn', '4097', '4096']],
  ['4,098 bytes in 2,049 characters', 'é'.repeat(2_049), 'ERR_BUS_NAME', ['4098', '4096']],
  ['a number', 7, 'ERR_BUS_ARGUMENT', ['number']],
  ['null', null, 'ERR_BUS_ARGUMENT', ['null']],
  ['an object', { toString: () => 'x' }, 'ERR_BUS_ARGUMENT', ['object']],
]

overEach(ALL, 'what is no name is refused by every verb and sends nothing', async (t, bus) => {
  const client = await bus.open('one')
  const inbox = client.messages()
  for (const [what, name, code, says] of NO_NAMES) {
    for (const [verb, run] of Object.entries(NAMED)) {
      // Lists of masks are checked as lists first.
      if (verb.startsWith('subscribe') && typeof name !== 'string') {
        throwsBus(t, () => run(client, name as string), { code })
        continue
      }
      t.log(`${verb} of ${what}`)
      throwsBus(t, () => run(client, name as string), { code, says })
    }
    for (const [verb, run] of Object.entries(NAMED_PROMISES)) {
      t.log(`acknowledged ${verb} of ${what}`)
      const isMask = verb.endsWith('exclude')
      await rejectsBus(
        t,
        () => run(client, name as string),
        isMask && typeof name !== 'string' ? { code } : { code, says },
      )
    }
  }
  await client.send('one', 'end', { ack: true })
  t.deepEqual(await texts(inbox, 1), ['end'])
})

overEach(ALL, 'names are any text: letters of all scripts, spaces, up to 512 bytes', async (t, bus) => {
  const names = ['käse.日本.🦀', ' a b ', 'x'.repeat(512), 'é'.repeat(256), 'a*.b?', '%', 'a,b;c"d']
  const from = await bus.open('from.ж')
  for (const name of names) {
    const to = await bus.open(name)
    t.is(to.name, name)
    const inbox = to.messages()
    await from.send(name, 'x', { ack: true })
    t.is((await next(inbox)).sender, 'from.ж')
    const back = from.messages()
    await to.send('from.ж', 'x', { ack: true })
    t.is((await next(back)).sender, name)
    await back.unsubscribe()
  }
})

overEach(ALL, 'names too long to be kept and short ones take turns', async (t, bus) => {
  const long = (letter: string): string => letter.repeat(400)
  const names = [long('a'), 'short', long('b'), 'x'.repeat(256), 'x'.repeat(257)]
  const got = new Map<string, string[]>(names.map((name) => [name, []]))
  const done: Promise<unknown>[] = []
  const from = await bus.open('from')
  for (const name of names) {
    const client = await bus.open(name)
    client.messages({ callback: (message) => got.get(name)?.push(message.text()) })
  }
  for (let round = 0; round < 20; round += 1) {
    for (const [index, name] of names.entries()) {
      from.send(name, `${round}`)
      done.push(reasonOf(from.send(`${name}${index}`, 'to nobody', { ack: true })))
    }
  }
  for (const reason of await Promise.all(done)) t.like(reason, { code: 'ERR_BUS_NOT_REGISTERED' })
  for (const name of names) await from.send(name, 'end', { ack: true })
  await until(() => [...got.values()].every((all) => all.at(-1) === 'end'), 'the last message of each')
  const expected = [...Array.from({ length: 20 }, (_, round) => `${round}`), 'end']
  for (const all of got.values()) t.deepEqual(all, expected)
})

overEach(ALL, '20,000 targets: the table of names gives way and mixes nobody up', async (t, bus) => {
  const [from, to] = await Promise.all([bus.open('from'), bus.open('to')])
  const inbox = to.messages<number>()
  const refused: Promise<unknown>[] = []
  const every = 100
  for (let index = 0; index < 20_000; index += 1) {
    refused.push(reasonOf(from.send(`nobody.${index}`, 'x', { ack: true })))
    // Long enough apart that the name is forgotten now and then, and used by its number in between.
    if (index % every === 0) from.send('to', index + 1_000)
    if (index % 5_000 === 0) await Promise.all(refused)
  }
  for (const [index, reason] of (await Promise.all(refused)).entries()) {
    if ((reason as Error).message !== `message to nobody.${index} is not registered`) t.fail(String(reason))
  }
  const numbers = (await take(inbox, 20_000 / every)).map((message) => message.decode())
  t.deepEqual(
    numbers,
    Array.from({ length: 20_000 / every }, (_, index) => index * every + 1_000),
  )
})

overEach(ALL, 'a call keeps its target however many methods were named before', async (t, bus) => {
  const [caller, callee] = await Promise.all([bus.open('caller'), bus.open('callee')])
  const methods = Array.from({ length: 17_000 }, (_, index) => `method.${index}`)
  callee.serve(Object.fromEntries(methods.map((method) => [method, () => method])))
  for (let at = 0; at < methods.length; at += 1_000) {
    const some = methods.slice(at, at + 1_000)
    const results = await soon(
      Promise.all(some.map((method) => caller.call('callee', method))),
      `calls from ${at}`,
    )
    t.deepEqual(results, some)
  }
})

overEach(ALL, 'an acknowledgement that is given up rejects with the reason of the signal', async (t, bus) => {
  const [from, to] = await Promise.all([bus.open('from'), bus.open('to')])
  const inbox = to.messages()
  const before = new AbortController()
  const reason = { any: 'thing' }
  before.abort(reason)
  t.is(await reasonOf(from.send('to', 'never sent', { ack: true, signal: before.signal })), reason)
  t.is(await reasonOf(from.broadcast('to', 'never sent', { ack: true, signal: before.signal })), reason)
  t.is(await reasonOf(from.publish('to', 'never sent', { ack: true, signal: before.signal })), reason)
  // Given up while it is under way: it arrives all the same.
  const after = new AbortController()
  const given = from.send('to', 'sent', { ack: true, signal: after.signal })
  after.abort()
  t.like(await reasonOf(given), { name: 'AbortError' })
  t.is(getEventListeners(after.signal, 'abort').length, 0)
  // Answered in time: nothing is left at the signal.
  const unused = new AbortController()
  await from.send('to', 'end', { ack: true, signal: unused.signal })
  t.is(getEventListeners(unused.signal, 'abort').length, 0)
  t.deepEqual(await texts(inbox, 2), ['sent', 'end'])
})

overEach(ALL, 'a bound that is none rejects and names it', async (t, bus) => {
  const client = await bus.open('one')
  for (const timeout of [0, -1, Number.NaN, '5' as unknown as number]) {
    await rejectsBus(t, () => client.send('one', 'x', { ack: true, timeout }), {
      code: 'ERR_BUS_ARGUMENT',
      says: ['timeout', String(timeout)],
    })
  }
  for (const timeout of [Number.POSITIVE_INFINITY, 2 ** 40, 60_000]) {
    t.is(await client.send('one', 'x', { ack: true, timeout }), undefined)
  }
})

test.serial('an acknowledgement that does not come is a timeout that names the message', async (t) => {
  const broker = await FakeBroker.listen(t)
  const client = closing(t, await connect(broker.address, { name: 'me' }))
  for (const [verb, run] of Object.entries({
    message: () => client.send('target', 'x', { ack: true, timeout: 20 }),
    broadcast: () => client.broadcast('target', 'x', { ack: true, timeout: 20 }),
    publication: () => client.publish('target', 'x', { ack: true, timeout: 20 }),
  })) {
    await rejectsBus(t, run, { code: 'ERR_BUS_TIMEOUT', wireCode: undefined, says: [verb, 'target'] })
  }
  // The answer that comes too late is nobody's, and does not answer the next one.
  const late = await broker.next()
  const following = client.send('target', 'y', { ack: true, timeout: 60_000 })
  while ((await broker.next()).body.toString() !== 'target\0y');
  broker.acknowledge(late.id, 0x71)
  const state = await Promise.race([
    following.then(() => 'answered'),
    client.flush({ timeout: 50 }).then(
      () => '',
      () => 'open',
    ),
  ])
  t.is(state, 'open')
})

test.serial('acknowledgements are told apart by their numbers, in whatever order they come', async (t) => {
  const broker = await FakeBroker.listen(t)
  const client = closing(t, await connect(broker.address, { name: 'me' }))
  const sent = [1, 2, 3, 4].map((number) => client.send(`to.${number}`, 'x', { ack: true }))
  const operations = await Promise.all(sent.map(() => broker.next()))
  const code = [0x01, 0x71, 0x01, 0x79]
  for (const index of [3, 0, 2, 1]) broker.acknowledge(operations[index]?.id ?? 0, code[index] as number)
  // Answers to nothing are dropped.
  broker.acknowledge(0, 1)
  broker.acknowledge(0xffff_ffff, 0x71)
  broker.acknowledge(operations[0]?.id ?? 0, 0x71)
  const results = await soon(Promise.allSettled(sent), 'all answers')
  t.deepEqual(
    results.map(({ status }) => status),
    ['fulfilled', 'rejected', 'fulfilled', 'rejected'],
  )
  t.like(await reasonOf(sent[1] as Promise<void>), {
    code: 'ERR_BUS_NOT_REGISTERED',
    message: 'message to to.2 is not registered',
  })
  t.like(await reasonOf(sent[3] as Promise<void>), {
    code: 'ERR_BUS_ACCESS',
    message: 'message to to.4 is denied',
  })
})

test.serial('65,536 acknowledgements may be waited for, and one more is refused', async (t) => {
  const broker = await FakeBroker.listen(t)
  const client = closing(t, await connect(broker.address, { name: 'me' }))
  const options = { ack: true, timeout: Number.POSITIVE_INFINITY } as const
  const waiting = Array.from({ length: 65_536 }, () => client.send('to', 'x', options))
  await rejectsBus(t, () => client.send('to', 'x', options), { code: 'ERR_BUS_OVERFLOW', says: ['65536'] })
  const ids = new Set<number>()
  for (let count = 0; count < waiting.length; count += 1) {
    const { id } = await broker.next()
    ids.add(id)
    broker.acknowledge(id, 1)
  }
  t.is(ids.size, waiting.length)
  await soon(Promise.all(waiting), 'all acknowledgements')
  const again = client.send('to', 'x', options)
  const { id } = await broker.next()
  // Numbers are not given again soon.
  t.false(ids.has(id))
  broker.acknowledge(id, 1)
  t.is(await again, undefined)
})

overEach(ALL, 'tens of thousands of acknowledgements at once all come', async (t, bus) => {
  const [from, to] = await Promise.all([bus.open('from'), bus.open('to')])
  let count = 0
  to.messages({ callback: () => (count += 1) })
  const options = { ack: true, timeout: 60_000 } as const
  await soon(Promise.all(Array.from({ length: 30_000 }, () => from.send('to', 'x', options))), 'all')
  await from.send('to', 'end', options)
  // The answers may come before the messages they are about.
  await until(() => count >= 30_001, 'all messages')
  t.is(count, 30_001)
})

overEach(
  ALL,
  'a notification reaches onNotification, and messages() only of who reads no RPC',
  async (t, bus) => {
    const [from, rpc, plain] = await Promise.all([
      bus.open('from'),
      bus.open('rpc'),
      bus.open('plain', { rpc: false }),
    ])
    const got = new Promise<[Uint8Array, object]>((resolve) => {
      rpc.serve({}, { onNotification: (data, context) => resolve([data, context]) })
    })
    const [inRpc, inPlain] = [rpc.messages(), plain.messages()]
    t.true(from.notify('rpc', Buffer.from('told')))
    t.true(from.notify('plain', { told: 1 }))
    t.true(from.notify('rpc'))
    await from.send('rpc', 'end', { ack: true })
    const [data, context] = await soon(got, 'the notification')
    t.is(Buffer.from(data).toString(), 'told')
    t.deepEqual(context, { sender: 'from', realtime: false })
    t.deepEqual(await texts(inRpc, 1), ['end'])
    t.deepEqual([...(await next(inPlain)).data], [0x00, 0x81, 0xa4, ...Buffer.from('told'), 0x01])
    throwsBus(t, () => plain.notify('from', 'x'), { code: 'ERR_BUS_NOT_SUPPORTED', says: ['rpc: false'] })
  },
)

overEach(ALL, 'a copy is of its own and the view stays as it was', async (t, bus) => {
  const client = await bus.open('one')
  const inbox = client.messages()
  for (let index = 0; index < 200; index += 1) client.send('one', Buffer.alloc(5_000, 32 + (index % 90)))
  const kept = await take(inbox, 200)
  const copy = (kept[0] as (typeof kept)[0]).copy()
  copy.fill(7)
  t.is(copy.byteOffset, 0)
  t.is(copy.buffer.byteLength, 5_000)
  // More than an arena has gone through since the first was received.
  for (const [index, { data }] of kept.entries()) {
    if (data.length !== 5_000 || data.some((byte) => byte !== 32 + (index % 90)))
      t.fail(`message ${index} changed`)
  }
  t.pass()
})

const KINDS: Record<string, Payload> = { bytes: new Uint8Array([5]), text: 'five', value: { five: 5 } }

for (const [kind, payload] of Object.entries(KINDS)) {
  overEach(ALL, `each verb takes ${kind}`, async (t, bus) => {
    const client = await bus.open('one')
    const [inbox, topics] = [client.messages(), client.subscribe('topic')]
    await topics.ready
    client.send('one', payload)
    client.broadcast('one', payload)
    client.publish('topic', payload)
    await client.send('one', payload, { ack: true })
    await client.broadcast('one', payload, { ack: true })
    await client.publish('topic', payload, { ack: true })
    const all = [...(await take(inbox, 4)), ...(await take(topics, 2))]
    for (const message of all) {
      if (payload instanceof Uint8Array) t.deepEqual([...message.data], [...payload])
      else if (typeof payload === 'string') t.is(message.text(), payload)
      else t.deepEqual(message.decode(), payload)
    }
  })
}

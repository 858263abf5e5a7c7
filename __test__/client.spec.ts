// The life of a client: connecting and what hinders it, rtt, flush, back-pressure, secondaries, and how it ends.

import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import net from 'node:net'
import test from 'ava'
import { AaaMap, type BusErrorCode, type Client, type ClientEvents, connect } from 'elbus-node'
import { reasonOf, rejectsBus, throwsBus } from './support/bus-error'
import { FakeBroker, GREETING, serveRaw } from './support/fake-broker'
import { next, take, texts } from './support/messages'
import { socketPath, tempFolder } from './support/temp'
import { ALL, closing, LOCAL, overEach, SOCKETS, startBroker, startBus } from './support/transports'
import { soon, until } from './support/within'

/** Verbs that throw when the client is of no use any more. */
const THROWING: Record<string, (client: Client) => unknown> = {
  send: (client) => client.send('x', 'y'),
  broadcast: (client) => client.broadcast('x', 'y'),
  publish: (client) => client.publish('x', 'y'),
  notify: (client) => client.notify('x', 'y'),
  subscribe: (client) => client.subscribe('x'),
  messages: (client) => client.messages(),
  serve: (client) => client.serve({}),
}
/** Verbs that reject then. */
const REJECTING: Record<string, (client: Client) => Promise<unknown>> = {
  send: (client) => client.send('x', 'y', { ack: true }),
  broadcast: (client) => client.broadcast('x', 'y', { ack: true }),
  publish: (client) => client.publish('x', 'y', { ack: true }),
  call: (client) => client.call('x', 'y'),
  'call without reply': (client) => client.call('x', 'y', null, { reply: false }),
  exclude: (client) => client.exclude('x'),
  unexclude: (client) => client.unexclude('x'),
  rtt: (client) => client.rtt(),
  drained: (client) => client.drained(),
  secondary: (client) => client.secondary(),
}

// ---- the end

overEach(ALL, 'closing ends it for good, and closing again does nothing', async (t, bus) => {
  const client = await bus.open('one')
  const events: (Error | undefined)[] = []
  client.on('close', (error) => events.push(error))
  t.is(client.name, 'one')
  t.true(client.connected)
  const closed = client.closed
  await soon(Promise.all([client.close(), client.close()]), 'closing twice')
  t.is(await soon(client.close(), 'closing again'), undefined)
  t.is(await soon(closed, 'closed'), undefined)
  t.false(client.connected)
  t.is(client.name, 'one')
  t.deepEqual(events, [undefined])
  t.deepEqual(bus.broker.clients('one'), [])
  const expected = { code: 'ERR_BUS_CLOSED', wireCode: undefined, says: ['one'] } as const
  for (const run of Object.values(THROWING)) throwsBus(t, () => run(client), expected)
  for (const run of Object.values(REJECTING)) await rejectsBus(t, () => run(client), expected)
  await rejectsBus(t, () => client.flush(), expected)
})

overEach(ALL, 'closing rejects what waits and ends iterators', async (t, bus) => {
  const [caller, callee] = await Promise.all([bus.open('caller'), bus.open('callee')])
  const called = new Promise<void>((resolve) => {
    callee.serve({
      never: () => {
        resolve()
        return new Promise(() => undefined)
      },
    })
  })
  const call = reasonOf(caller.call('callee', 'never'))
  const iterator = caller.subscribe('a')[Symbol.asyncIterator]().next()
  const inbox = caller.messages()[Symbol.asyncIterator]().next()
  await soon(called, 'the call arrives')
  await caller.close()
  t.like(await call, { code: 'ERR_BUS_CLOSED' })
  t.deepEqual(await soon(iterator, 'the end'), { done: true, value: undefined })
  t.deepEqual(await soon(inbox, 'the end'), { done: true, value: undefined })
})

overEach(ALL, 'what was sent before closing arrives', async (t, bus) => {
  const [from, to] = await Promise.all([bus.open('from'), bus.open('to')])
  const inbox = to.messages()
  for (let index = 0; index < 2_000; index += 1) from.send('to', `${index}`)
  from.send('to', 'x'.repeat(1 << 20))
  from.send('to', 'last')
  await from.close()
  const messages = await take(inbox, 2_002)
  t.is(messages.at(-1)?.text(), 'last')
  t.is(messages.at(-2)?.data.length, 1 << 20)
  t.is(messages[1_999]?.text(), '1999')
})

overEach(ALL, 'the name is free once it is closed', async (t, bus) => {
  for (let round = 0; round < 20; round += 1) {
    const client = await bus.open('one')
    await client.close()
  }
  t.deepEqual(bus.broker.clients('one'), [])
})

overEach(ALL, 'await using closes it', async (t, bus) => {
  let kept: Client
  {
    await using client = await bus.open('one')
    kept = client
  }
  t.false(kept.connected)
})

overEach(SOCKETS, 'a connection that is lost says so to everything that waits or comes', async (t, bus) => {
  const [client, callee] = await Promise.all([bus.open('one'), bus.open('callee')])
  const called = new Promise<void>((resolve) => {
    callee.serve({ never: () => new Promise(() => resolve()) })
  })
  const events: (Error | undefined)[] = []
  client.on('close', (error) => events.push(error))
  const call = reasonOf(client.call('callee', 'never'))
  await soon(called, 'the call arrives')
  t.true(bus.broker.forceDisconnect('one'))
  const reason = await soon(client.closed, 'closed')
  t.like(reason, { code: 'ERR_BUS_DISCONNECTED' })
  t.true(reason?.message.includes('one'))
  t.deepEqual(events, [reason])
  t.like(await call, { code: 'ERR_BUS_DISCONNECTED' })
  t.false(client.connected)
  const expected = { code: 'ERR_BUS_DISCONNECTED', wireCode: undefined, says: ['one'] } as const
  for (const [verb, run] of Object.entries(THROWING)) {
    t.log(verb)
    throwsBus(t, () => run(client), expected)
  }
  for (const [verb, run] of Object.entries(REJECTING)) {
    t.log(verb)
    await rejectsBus(t, () => run(client), expected)
  }
  t.is(await soon(client.close(), 'closing'), undefined)
})

test.serial('what a listener throws is a fault and not the end of the process', async (t) => {
  const bus = await startBus(t, 'broker.client')
  const client = await bus.open('one')
  const faults: unknown[] = []
  client.on('fault', (error) => faults.push(error))
  const reason = new Error('a listener')
  client.on('close', () => {
    throw reason
  })
  await client.close()
  t.deepEqual(faults, [reason])
})

test.serial('a broker that sends something else ends the connection', async (t) => {
  for (const [bytes, says] of [
    [[0x55, 0, 0, 0, 0, 0], 'event'],
    [[0x12, 0xff, 0xff, 0xff, 0xff, 0], 'exceeds'],
    [[0x01, 2, 0, 0, 0, 0, 0x61, 0x61], ''],
  ] as const) {
    const broker = await FakeBroker.listen(t)
    const client = closing(t, await connect(broker.address, { name: 'me' }))
    const waiting = reasonOf(client.send('x', 'y', { ack: true }))
    await broker.next()
    broker.write(bytes)
    const error = await soon(client.closed, 'closed')
    t.like(error, { code: 'ERR_BUS_PROTOCOL' })
    t.true(error?.message.includes(says), error?.message)
    t.is(await waiting, error)
  }
})

test.serial('a broker that falls silent is taken for dead', async (t) => {
  const broker = await FakeBroker.listen(t)
  const options = { name: 'me', pingInterval: 10, silenceLimit: 40 }
  const client = closing(t, await connect(broker.address, options))
  t.like(await soon(client.closed, 'closed'), { code: 'ERR_BUS_TIMEOUT' })
  t.regex((await client.closed)?.message ?? '', /40 ms/)
})

// ---- secondaries

overEach(ALL, 'secondaries are named after their primary, and go with it', async (t, bus) => {
  const primary = await bus.open('one')
  const first = closing(t, await primary.secondary())
  const second = closing(t, await primary.secondary())
  const third = closing(t, await first.secondary())
  const names = [first.name, second.name, third.name]
  t.is(new Set(names).size, 3)
  for (const name of names) t.regex(name, /^one%%\d+$/)
  t.is(bus.broker.clients('one')[0]?.instances, 4)
  // One that leaves touches nobody.
  await first.close()
  t.true(primary.connected && second.connected && third.connected)
  await second.send('one', 'still here', { ack: true })
  await primary.close()
  for (const secondary of [second, third]) {
    t.like(await soon(secondary.closed, `${secondary.name} is closed`), { code: 'ERR_BUS_DISCONNECTED' })
    t.false(secondary.connected)
  }
})

overEach(ALL, 'a secondary has subscriptions and calls of its own', async (t, bus) => {
  const primary = await bus.open('one', { rpc: true })
  const second = closing(t, await primary.secondary())
  const [inPrimary, inSecond] = [primary.subscribe('a'), second.subscribe('b')]
  await Promise.all([inPrimary.ready, inSecond.ready])
  second.serve({ who: () => second.name })
  t.is(await primary.call(second.name, 'who'), second.name)
  await primary.publish('a', '1', { ack: true })
  await primary.publish('b', '2', { ack: true })
  t.deepEqual(await texts(inPrimary, 1), ['1'])
  t.deepEqual(await texts(inSecond, 1), ['2'])
})

overEach(ALL, 'a number that somebody took is left out', async (t, bus) => {
  const primary = await bus.open('one')
  const taken = [await bus.open('one%%0'), await bus.open('one%%1')]
  const second = closing(t, await primary.secondary())
  t.is(second.name, 'one%%2')
  t.true(taken.every((client) => client.connected))
})

overEach(ALL, 'a secondary without its primary is not let in', async (t, bus) => {
  await rejectsBus(t, () => bus.open('nobody%%1'), {
    code: 'ERR_BUS_NOT_REGISTERED',
    wireCode: 0x71,
    says: ['nobody%%1'],
  })
})

// ---- rtt and flush

overEach(ALL, 'rtt is a number of milliseconds, and flush waits until all was taken', async (t, bus) => {
  const [from] = await Promise.all([bus.open('from'), bus.open('to')])
  const rtt = await from.rtt()
  t.true(rtt >= 0 && rtt < 15_000, String(rtt))
  const frames = (): number => bus.broker.clients('from')[0]?.received.frames ?? 0
  const before = frames()
  for (let index = 0; index < 1_000; index += 1) from.send('to', 'x')
  t.is(await from.flush(), undefined)
  t.true(frames() >= before + 1_000)
  const abort = new AbortController()
  abort.abort(new Error('no longer'))
  t.is(await reasonOf(from.rtt({ signal: abort.signal })), abort.signal.reason)
})

test.serial('rtt and flush that are not answered time out', async (t) => {
  const broker = await FakeBroker.listen(t)
  const client = closing(t, await connect(broker.address, { name: 'me' }))
  await rejectsBus(t, () => client.rtt({ timeout: 10 }), { code: 'ERR_BUS_TIMEOUT', says: ['round trip'] })
  await rejectsBus(t, () => client.flush({ timeout: 10 }), { code: 'ERR_BUS_TIMEOUT', says: ['flush'] })
  // Whatever a broker answers, the way there and back was made.
  await broker.next()
  await broker.next()
  const rtt = client.rtt()
  broker.acknowledge((await broker.next()).id, 0x79)
  t.true((await soon(rtt, 'rtt')) >= 0)
})

// ---- back-pressure

/** Is handed over at once, so that what the verb returns is about this very message. */
const DIRECT = 9_000

overEach(
  LOCAL,
  'above the high-water mark send says so, a full queue throws, and after drained() nothing was lost',
  async (t, bus) => {
    const [from, to] = await Promise.all([bus.open('from'), bus.open('to')])
    const inbox = to.messages()
    let drains = 0
    from.on('drain', () => (drains += 1))
    const payload = (index: number): Buffer => Buffer.alloc(DIRECT, `${index} `)
    let sent = 0
    // The receiver reads nothing while this turn lasts.
    while (sent < 64 && from.send('to', payload(sent))) sent += 1
    sent += 1
    t.true(sent > 1 && sent < 64, `${sent} before the mark`)
    const drained = from.drained()
    drained.catch(() => undefined)
    let overflow: unknown
    try {
      for (; sent < 100; sent += 1) t.false(from.send('to', payload(sent)))
    } catch (error) {
      overflow = error
    }
    t.like(overflow, { code: 'ERR_BUS_OVERFLOW', message: 'queue of to is full' })
    t.is(sent, 64)
    // The same with an acknowledgement, and to a topic the full client alone is subscribed to.
    await rejectsBus(t, () => from.send('to', payload(0), { ack: true }), {
      code: 'ERR_BUS_NOT_DELIVERED',
      wireCode: 0x77,
      says: ['to'],
    })
    await soon(drained, 'drained')
    t.true(drains >= 1)
    t.true(from.send('to', 'end'))
    const messages = await take(inbox, sent + 1)
    for (const [index, message] of messages.slice(0, -1).entries())
      t.true(message.text().startsWith(`${index} `))
    t.is(messages.at(-1)?.text(), 'end')
    t.is(inbox.pending, 0)
  },
  { queue: { frames: 64 }, pause: 1_000 },
)

overEach(
  LOCAL,
  'a sender that heeds the mark loses nothing, however small the queue',
  async (t, bus) => {
    const [from, to] = await Promise.all([bus.open('from'), bus.open('to')])
    const inbox = to.messages()
    let refused = 0
    from.on('refused', () => (refused += 1))
    let waited = 0
    for (let index = 0; index < 1_500; index += 1) {
      if (from.send('to', Buffer.alloc(DIRECT, `${index} `))) continue
      waited += 1
      await soon(from.drained(), `drained after ${index}`)
    }
    for (const [index, message] of (await take(inbox, 1_500)).entries()) {
      if (!message.text().startsWith(`${index} `)) t.fail(`${message.text().slice(0, 9)} instead of ${index}`)
    }
    t.true(waited > 0)
    t.is(refused, 0)
  },
  // However slow this machine is, the receiver reads before the sender stops waiting for it.
  { queue: { frames: 64 }, pause: 1_000 },
)

overEach(
  LOCAL,
  'to a receiver that has stopped reading each message is taken, refused with an error, or told as refused',
  async (t, bus) => {
    const from = await bus.open('from')
    const address = await bus.broker.listen(`unix:${socketPath(t)}`)
    // Logs in as "to" and reads nothing from there on.
    const receiver = net.connect(address.slice('unix:'.length))
    receiver.on('error', () => undefined)
    t.teardown(() => receiver.destroy())
    receiver.write(Buffer.from([...GREETING, 2, 0, ...Buffer.from('to')]))
    await until(() => bus.broker.clients('to').length === 1, 'the receiver has logged in')
    let refused = 0
    from.on('refused', () => (refused += 1))
    let [taken, thrown] = [0, 0]
    for (let index = 0; index < 500; index += 1) {
      try {
        const isBelow = from.send('to', Buffer.alloc(DIRECT, 'x'))
        taken += 1
        if (!isBelow) await soon(from.drained(), 'drained')
      } catch (error) {
        t.like(error, { code: 'ERR_BUS_OVERFLOW', message: 'queue of to is full' })
        thrown += 1
      }
    }
    await from.flush()
    const frames = bus.broker.clients('to')[0]?.sent.frames ?? 0
    t.is(frames + refused + thrown, 500)
    // What the verb says is what became of it.
    t.is(refused, 0)
    t.is(taken, frames)
    t.true(thrown > 0)
  },
  { queue: { frames: 64 } },
)

overEach(
  LOCAL,
  'small messages that a full queue refused are told as refused',
  async (t, bus) => {
    const [from, to] = await Promise.all([bus.open('from'), bus.open('to')])
    const inbox = to.messages()
    const refused: ClientEvents['refused'][0][] = []
    from.on('refused', (error) => refused.push(error))
    // They go out together, when it is too late to throw.
    for (let index = 0; index < 200; index += 1) from.send('to', `${index}`)
    // Handed over now: the next one is known to be too many.
    const flushed = from.flush()
    throwsBus(t, () => from.send('to', 'full'), { code: 'ERR_BUS_OVERFLOW', says: ['to'] })
    await flushed
    await soon(from.drained(), 'drained')
    await from.send('to', 'end', { ack: true })
    const arrived: string[] = []
    for (let text = ''; text !== 'end'; ) {
      text = (await next(inbox)).text()
      if (/^\d+$/.test(text)) arrived.push(text)
    }
    await until(() => arrived.length + refused.length >= 200, 'each is delivered or refused')
    t.is(arrived.length + refused.length, 200)
    t.true(refused.length > 0)
    for (const error of refused) t.like(error, { code: 'ERR_BUS_NOT_DELIVERED', wireCode: 0x77 })
  },
  { queue: { frames: 64 } },
)

overEach(
  LOCAL,
  'what is refused without acknowledgement is an event, but for a name that nobody has',
  async (t, bus) => {
    const client = await bus.open('one')
    const refused: ClientEvents['refused'][0][] = []
    client.on('refused', (error) => refused.push(error))
    client.send('nobody', 'x')
    client.publish('.broker/info', 'x')
    await until(() => refused.length > 0, 'the event')
    await client.rtt()
    t.is(refused.length, 1)
    t.like(refused[0], { code: 'ERR_BUS_ACCESS', wireCode: 0x79 })
    t.true(refused[0]?.message.includes('one'))
  },
)

test.serial(
  'a socket above its mark says so, throws when it is full, and sends all once it is read',
  async (t) => {
    const broker = await FakeBroker.listen(t)
    const client = closing(t, await connect(broker.address, { name: 'me', queueBytes: 1 << 20 }))
    await client.drained()
    broker.pause()
    let drains = 0
    client.on('drain', () => (drains += 1))
    let sent = 0
    const send = (): boolean => {
      const above = client.send('to', Buffer.alloc(60_000, `${sent} `))
      sent += 1
      return above
    }
    // What the system itself takes is sent first.
    while (sent < 1_000 && send()) await new Promise((resolve) => setImmediate(resolve))
    const drained = client.drained()
    const error = t.throws(() => {
      while (sent < 1_000) send()
    })
    t.like(error, { code: 'ERR_BUS_OVERFLOW' })
    t.true(error?.message.includes(String(1 << 20)) && error.message.includes(broker.address), error?.message)
    // Full is full for every verb, but not for the connection.
    for (const verb of ['send', 'broadcast', 'publish', 'notify']) {
      throwsBus(t, () => THROWING[verb]?.(client), { code: 'ERR_BUS_OVERFLOW' })
    }
    for (const verb of ['send', 'broadcast', 'publish', 'call', 'exclude']) {
      await rejectsBus(t, async () => REJECTING[verb]?.(client), { code: 'ERR_BUS_OVERFLOW' })
    }
    const abort = new AbortController()
    const given = reasonOf(client.drained({ signal: abort.signal }))
    abort.abort()
    t.like(await given, { name: 'AbortError' })
    t.true(client.connected)
    broker.resume()
    await soon(drained, 'drained')
    t.is(drains, 1)
    t.true(client.send('to', 'end'))
    for (let index = 0; index < sent; index += 1) {
      const { body } = await broker.next()
      if (body.length !== 60_003 || !body.subarray(3, 12).toString().startsWith(`${index} `))
        t.fail(`operation ${index}`)
    }
    t.is((await broker.next()).body.toString(), 'to\0end')
  },
)

test.serial('drained() rejects when the connection ends first', async (t) => {
  for (const how of ['closed', 'lost'] as const) {
    const broker = await FakeBroker.listen(t)
    const client = closing(t, await connect(broker.address, { name: 'me' }))
    broker.pause()
    while (client.send('to', Buffer.alloc(60_000, 1), { raw: true })) {
      await new Promise((resolve) => setImmediate(resolve))
    }
    const waiting = reasonOf(client.drained())
    if (how === 'closed') void client.close()
    else broker.end()
    t.like(await waiting, { code: how === 'closed' ? 'ERR_BUS_CLOSED' : 'ERR_BUS_DISCONNECTED' })
  }
})

overEach(SOCKETS, 'a flood with drained() in between arrives whole', async (t, bus) => {
  const [from, to] = await Promise.all([bus.open('from'), bus.open('to')])
  let bytes = 0
  to.messages({ callback: ({ data }) => (bytes += data.length) })
  for (let index = 0; index < 1_000; index += 1) {
    if (!from.send('to', Buffer.alloc(10_000, 'x'))) await soon(from.drained(), 'drained')
  }
  await until(() => bytes >= 10_000_000, 'all bytes')
  t.is(bytes, 10_000_000)
})

overEach(
  ALL,
  'drained() of a client that may send resolves at once, and an aborted signal rejects',
  async (t, bus) => {
    const client = await bus.open('one')
    t.is(await soon(client.drained(), 'drained'), undefined)
    const reason = new Error('no longer')
    t.is(await reasonOf(client.drained({ signal: AbortSignal.abort(reason) })), reason)
  },
)

// ---- connecting

test.serial('an address may be written in several ways', async (t) => {
  const broker = await startBroker(t)
  const path = socketPath(t)
  t.is(await broker.listen(path), `unix:${path}`)
  const tcp = await broker.listen('127.0.0.1:0')
  const port = /^tcp:\/\/127\.0\.0\.1:(\d+)$/.exec(tcp)?.[1]
  t.truthy(port)
  const addresses = [
    path,
    `unix:${path}`,
    `unix://${path}`,
    tcp,
    `127.0.0.1:${port}`,
    `localhost:${port}`,
    broker.address,
  ]
  for (const [index, address] of addresses.entries()) {
    const client = closing(t, await connect(address, { name: `client.${index}` }))
    t.true(client.connected, address)
    t.true((await client.rtt()) >= 0)
  }
  t.is(broker.clients('client.').length, addresses.length)
})

test.serial('what is no address is refused as such', async (t) => {
  const addresses = [
    '',
    ' ',
    'nowhere',
    'http://x:1',
    'tcp://x',
    'tcp://x:',
    'tcp://x:65536',
    'x:99999',
    ':5',
    'unix:',
    'inproc:',
    'inproc:x',
    'inproc:-1',
  ]
  for (const address of addresses) {
    await rejectsBus(t, () => connect(address, { name: 'me' }), {
      code: 'ERR_BUS_ADDRESS',
      says: [JSON.stringify(address)],
    })
  }
  for (const address of [7, undefined, null, {}] as unknown as string[]) {
    await rejectsBus(t, () => connect(address, { name: 'me' }), {
      code: 'ERR_BUS_ARGUMENT',
      says: ['address'],
    })
  }
})

test.serial('where nobody listens, connecting says where and why', async (t) => {
  const folder = tempFolder(t)
  const server = net.createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as net.AddressInfo
  await new Promise((resolve) => server.close(resolve))
  writeFileSync(`${folder}/file`, 'no socket')
  for (const [address, cause] of [
    [`unix:${folder}/none`, 'ENOENT'],
    [`unix:${folder}/file`, 'ECONNREFUSED'],
    [`unix:${folder}`, 'ECONNREFUSED'],
    [`tcp://127.0.0.1:${port}`, 'ECONNREFUSED'],
  ] as const) {
    const error = await rejectsBus(t, () => connect(address, { name: 'me' }), {
      code: 'ERR_BUS_ADDRESS',
      says: [address],
    })
    t.is((error.cause as NodeJS.ErrnoException | undefined)?.code, cause, address)
  }
  const broker = await startBroker(t)
  const { address } = broker
  await broker.close()
  for (const inproc of [address, 'inproc:4294967295']) {
    const says = [inproc.slice('inproc:'.length)]
    await rejectsBus(t, () => connect(inproc, { name: 'me' }), { code: 'ERR_BUS_ADDRESS', says })
  }
})

test.serial('on Windows the path of a UNIX socket is refused in plain words', async (t) => {
  const platform = Object.getOwnPropertyDescriptor(process, 'platform')
  t.teardown(() => Object.defineProperty(process, 'platform', platform as PropertyDescriptor))
  Object.defineProperty(process, 'platform', { ...platform, value: 'win32' })
  for (const address of ['unix:/run/bus', '/run/bus', 'bus.sock']) {
    await rejectsBus(t, () => connect(address, { name: 'me' }), {
      code: 'ERR_BUS_ADDRESS',
      says: [address.replace('unix:', ''), 'UNIX sockets are not available on this platform'],
    })
  }
})

test.serial('what is no broker is found out at once', async (t) => {
  const answers: [what: string, bytes: Buffer, end: boolean, code: BusErrorCode][] = [
    ['another protocol', Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n'), false, 'ERR_BUS_PROTOCOL'],
    ['another version', Buffer.from([0xeb, 2, 0]), false, 'ERR_BUS_PROTOCOL'],
    [
      'no other version either',
      Buffer.concat([GREETING, Buffer.from([0x75])]),
      false,
      'ERR_BUS_NOT_SUPPORTED',
    ],
    ['an end at once', Buffer.alloc(0), true, 'ERR_BUS_DISCONNECTED'],
    ['an end after the greeting', GREETING, true, 'ERR_BUS_DISCONNECTED'],
    [
      'an end instead of the last answer',
      Buffer.concat([GREETING, Buffer.from([1])]),
      true,
      'ERR_BUS_DISCONNECTED',
    ],
    ['a code nobody knows', Buffer.concat([GREETING, Buffer.from([1, 0x55])]), false, 'ERR_BUS_OTHER'],
  ]
  for (const [what, bytes, ends, code] of answers) {
    t.log(what)
    const gone = { seen: false }
    const address = await serveRaw(t, (socket) => {
      socket.on('close', () => (gone.seen = true))
      socket.resume()
      if (ends) socket.end(bytes)
      else socket.write(bytes)
    })
    await rejectsBus(t, () => connect(address, { name: 'me', timeout: 60_000 }), { code })
    // Nothing of the attempt is left.
    await until(() => gone.seen, `${what}: the socket is closed`)
  }
})

test.serial('a server that says nothing costs the timeout, and no more', async (t) => {
  const gone = { count: 0 }
  for (const bytes of [Buffer.alloc(0), GREETING, Buffer.concat([GREETING, Buffer.from([1])])]) {
    const address = await serveRaw(t, (socket) => {
      socket.on('close', () => (gone.count += 1))
      socket.resume()
      socket.write(bytes)
    })
    await rejectsBus(t, () => connect(address, { name: 'me', timeout: 40 }), {
      code: 'ERR_BUS_TIMEOUT',
      says: [address, 'me', '40 ms'],
    })
  }
  await until(() => gone.count === 3, 'all sockets are closed')
  t.pass()
})

test.serial('connecting can be given up', async (t) => {
  const broker = await startBroker(t)
  const reason = new Error('no longer')
  const address = await broker.listen(`unix:${socketPath(t)}`)
  for (const to of [address, broker.address]) {
    t.is(await reasonOf(connect(to, { name: 'me', signal: AbortSignal.abort(reason) })), reason, to)
  }
  const abort = new AbortController()
  const gone = { seen: false }
  const silent = await serveRaw(t, (socket) => {
    socket.on('close', () => (gone.seen = true))
    socket.resume()
    abort.abort(reason)
  })
  t.is(await reasonOf(connect(silent, { name: 'me', signal: abort.signal, timeout: 60_000 })), reason)
  await until(() => gone.seen, 'the socket is closed')
  // A signal has nothing to say once connected.
  const later = new AbortController()
  const client = closing(t, await connect(address, { name: 'me', signal: later.signal }))
  later.abort()
  t.true((await client.rtt()) >= 0)
  t.true(client.connected)
})

test.serial('an option that is none is refused by name', async (t) => {
  const broker = await startBroker(t)
  const address = await broker.listen(`unix:${socketPath(t)}`)
  for (const option of ['timeout', 'pingInterval', 'silenceLimit', 'frameBytes', 'queueBytes']) {
    for (const value of [0, -1, Number.NaN, '7', null]) {
      await rejectsBus(t, () => connect(address, { name: 'me', [option]: value }), {
        code: 'ERR_BUS_ARGUMENT',
        says: [option],
      })
    }
  }
  for (const options of [undefined, {}, { name: 7 }, { name: null }]) {
    for (const to of [address, broker.address]) {
      await rejectsBus(t, () => connect(to, options as { name: string }), {
        code: 'ERR_BUS_ARGUMENT',
        says: ['name'],
      })
    }
    await rejectsBus(t, () => broker.client((options as { name: string } | undefined)?.name as string), {
      code: 'ERR_BUS_ARGUMENT',
    })
  }
})

overEach(ALL, 'a name that is taken is refused, whoever has it', async (t, bus) => {
  const holders = [await bus.open('one'), await bus.broker.client('two')]
  for (const { name } of holders) {
    await rejectsBus(t, () => bus.open(name), { code: 'ERR_BUS_BUSY', wireCode: 0x76, says: [name] })
    await rejectsBus(t, () => bus.broker.client(name), { code: 'ERR_BUS_BUSY', wireCode: 0x76, says: [name] })
  }
  t.true(holders.every((client) => client.connected))
  await rejectsBus(t, () => bus.broker.client('.broker'), { code: 'ERR_BUS_BUSY', says: ['.broker'] })
})

const NO_NAMES = [
  '',
  'x'.repeat(513),
  'é'.repeat(257),
  Array.from({ length: 17 }, () => 'a').join('.'),
  'a\nb',
  '*',
  'a.?',
  '\u0085',
]

overEach(
  LOCAL,
  'names that are none are refused with what is wrong, and those with a dot in front are taken',
  async (t, bus) => {
    for (const name of NO_NAMES)
      await rejectsBus(t, () => bus.open(name), { code: 'ERR_BUS_NAME', wireCode: undefined })
    await rejectsBus(t, () => bus.open('x'.repeat(513)), { code: 'ERR_BUS_NAME', says: ['513', '512'] })
    await rejectsBus(t, () => bus.open('a\0b'), { code: 'ERR_BUS_NAME', says: ['NUL'] })
    const own = await bus.open('.own')
    t.is(own.name, '.own')
  },
)

overEach(
  SOCKETS,
  'names that are none and names with a dot in front are refused by the broker',
  async (t, bus) => {
    for (const name of [...NO_NAMES, '.own', '.', '.broker']) {
      // Of a long one the beginning is enough.
      await rejectsBus(t, () => bus.open(name), {
        code: 'ERR_BUS_DATA',
        wireCode: 0x72,
        says: [name.slice(0, 32)],
      })
    }
    await rejectsBus(t, () => bus.open('a\0b'), { code: 'ERR_BUS_NAME', says: ['NUL'] })
  },
)

for (const transport of SOCKETS) {
  test.serial(`a client that the access map does not know is not let in [${transport}]`, async (t) => {
    const bus = await startBus(t, transport, { aaa: new AaaMap({ known: {} }) })
    await rejectsBus(t, () => bus.open('unknown'), {
      code: 'ERR_BUS_ACCESS',
      wireCode: 0x79,
      says: ['unknown'],
    })
    t.true((await bus.open('known')).connected)
  })
}

/** Keeps the thread. */
function work(milliseconds: number): void {
  const end = performance.now() + milliseconds
  while (performance.now() < end);
}

overEach(SOCKETS, 'many connect at once, while the process is busy', async (t, bus) => {
  let busy = true
  const load = (async () => {
    while (busy) {
      // Longer than a turn of deliveries may take.
      work(3)
      await new Promise((resolve) => setImmediate(resolve))
    }
  })()
  try {
    const names = Array.from({ length: 40 }, (_, index) => `client.${index}`)
    const clients = await Promise.all(names.map((name) => bus.open(name)))
    t.is(bus.broker.clients('client.').length, clients.length)
  } finally {
    busy = false
    await load
  }
})

overEach(
  SOCKETS,
  'clients in the process that are always at it do not starve those over sockets',
  async (t, bus) => {
    const noise = await bus.broker.client('noise')
    let rounds = 0
    noise.messages({
      callback: () => {
        rounds += 1
        work(2)
        if (noise.connected) noise.send('noise', 'x')
      },
    })
    noise.send('noise', 'x')
    try {
      const client = await bus.open('client')
      const before = rounds
      for (let count = 0; count < 20; count += 1) await client.rtt()
      t.true(rounds > before)
    } finally {
      await noise.close()
    }
  },
)

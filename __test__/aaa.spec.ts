// The access map: as a Map, and what it lets clients do.

import test, { type ExecutionContext } from 'ava'
import { type AaaEntry, AaaMap, type Broker, type BusError, type Client, connect } from 'elbus-node'
import { isBusError, rejectsBus, throwsBus } from './support/bus-error'
import { texts } from './support/messages'
import { socketPath } from './support/temp'
import { closing, startBroker } from './support/transports'
import { soon } from './support/within'

const DENIED = { code: 'ERR_BUS_ACCESS', wireCode: 0x79 } as const

// ---- as a Map

test('it is a Map', (t) => {
  const map = new AaaMap()
  t.true(map instanceof Map)
  t.is(map.size, 0)
  t.is(map.set('a', {}), map)
  t.is(map.set('b', { publish: false }).size, 2)
  t.true(map.has('a'))
  t.false(map.has('c'))
  t.is(map.get('c'), undefined)
  t.deepEqual([...map.keys()], ['a', 'b'])
  t.deepEqual(
    [...map],
    [
      ['a', {}],
      ['b', { publish: false }],
    ],
  )
  t.true(map.delete('a'))
  t.false(map.delete('a'))
  map.clear()
  t.is(map.size, 0)
  t.deepEqual([...map.entries()], [])
})

test('it is made of entries, of an object, of another map', (t) => {
  const object = { a: {}, b: { p2p: ['x.*'] } }
  const map = new AaaMap(object)
  t.deepEqual([...map], Object.entries(object))
  t.deepEqual([...new AaaMap(Object.entries(object))], [...map])
  t.deepEqual([...new AaaMap(map)], [...map])
  t.deepEqual([...new AaaMap(new Map(map))], [...map])
  t.deepEqual([...new AaaMap([])], [])
})

test('entries are frozen copies, through and through', (t) => {
  const publish = ['a/#']
  const peer = { uid: 1 }
  const given = { publish, peer, hosts: ['127.0.0.1'] }
  const map = new AaaMap({ one: given })
  const entry = map.get('one') as AaaEntry
  publish.push('b/#')
  peer.uid = 2
  t.deepEqual(entry, { publish: ['a/#'], peer: { uid: 1, gid: undefined }, hosts: ['127.0.0.1'] })
  for (const part of [entry, entry.publish, entry.peer, entry.hosts]) t.true(Object.isFrozen(part))
  t.throws(() => (entry.publish as string[]).push('c'), { instanceOf: TypeError })
  t.throws(() => Object.assign(entry, { publish: true }), { instanceOf: TypeError })
})

test('update changes some fields, takes out undefined ones, makes what is not there', (t) => {
  const map = new AaaMap({ one: { publish: ['a'], p2p: false } })
  t.is(map.update('one', { publish: ['b'], broadcast: true }), map)
  t.deepEqual(map.get('one'), { publish: ['b'], p2p: false, broadcast: true })
  map.update('one', { publish: undefined })
  t.deepEqual(map.get('one'), { p2p: false, broadcast: true })
  map.update('two', { exclude: [] })
  t.deepEqual(map.get('two'), { exclude: [] })
})

const WRONG: Record<string, [unknown, string]> = {
  'no object': [7, 'one'],
  null: [null, 'one'],
  'a misspelt field': [{ publsh: [] }, 'publsh'],
  'a field of Rust': [{ uid: 1 }, 'uid'],
  'a rule that is a string': [{ publish: 'a/#' }, 'publish'],
  'a rule that is null': [{ publish: null }, 'publish'],
  'a rule that is a number': [{ p2p: 1 }, 'p2p'],
  'a list of other things': [{ subscribe: ['a', 1] }, 'subscribe'],
  'hosts that are true': [{ hosts: true }, 'hosts'],
  'a host that is a name': [{ hosts: ['localhost'] }, 'localhost'],
  'a host with a port': [{ hosts: ['127.0.0.1:80'] }, '127.0.0.1:80'],
  'a network too wide': [{ hosts: ['10.0.0.0/33'] }, '10.0.0.0/33'],
  'a network of nothing': [{ hosts: [''] }, 'hosts'],
  'a peer that is a number': [{ peer: 0 }, 'peer'],
  'a peer that is null': [{ peer: null }, 'peer'],
  'a negative user': [{ peer: { uid: -1 } }, 'uid'],
  'a user as text': [{ peer: { uid: '0' } }, 'uid'],
  'a group too large': [{ peer: { gid: 2 ** 32 } }, 'gid'],
  'a misspelt field of a peer': [{ peer: { user: 0 } }, 'user'],
  'a mask too deep': [{ publish: ['a/'.repeat(200)] }, 'publish'],
  'a mask too long': [{ subscribe: ['x'.repeat(5_000)] }, 'subscribe'],
  'a mask with NUL': [{ broadcast: ['a\0b'] }, 'broadcast'],
}

for (const [what, [entry, says]] of Object.entries(WRONG)) {
  test(`refused, with nothing changed: ${what}`, async (t) => {
    const map = new AaaMap({ one: { publish: ['good'] } })
    throwsBus(t, () => map.set('one', entry as AaaEntry), { code: 'ERR_BUS_ARGUMENT', says: [says] })
    throwsBus(t, () => map.set('two', entry as AaaEntry), { code: 'ERR_BUS_ARGUMENT' })
    throwsBus(t, () => new AaaMap({ one: entry as AaaEntry }), { code: 'ERR_BUS_ARGUMENT' })
    t.deepEqual([...map], [['one', { publish: ['good'] }]])
    // Neither is it where it counts.
    const { login } = await guarded(t, map)
    const one = await login('one')
    await one.publish('good', 'x', { ack: true })
    await rejectsBus(t, () => one.publish('bad', 'x', { ack: true }), DENIED)
    await rejectsBus(t, () => login('two'), DENIED)
  })
}

test('names are checked', (t) => {
  const map = new AaaMap()
  for (const name of [7, undefined, null]) {
    throwsBus(t, () => map.set(name as unknown as string, {}), { code: 'ERR_BUS_ARGUMENT' })
  }
  throwsBus(t, () => map.set('a\0b', {}), { code: 'ERR_BUS_NAME' })
  throwsBus(t, () => map.set('x'.repeat(5_000), {}), { code: 'ERR_BUS_NAME' })
  t.is(map.size, 0)
})

// ---- who may connect

interface Guarded {
  readonly broker: Broker
  readonly address: string
  login(name: string): Promise<Client>
}

/** A broker with a map in front of its UNIX socket. */
async function guarded(t: ExecutionContext, aaa: AaaMap): Promise<Guarded> {
  const broker = await startBroker(t, { aaa })
  const address = await broker.listen(`unix:${socketPath(t)}`)
  return { broker, address, login: async (name) => closing(t, await connect(address, { name })) }
}

test('with a map only the names in it connect; an empty one lets nobody in', async (t) => {
  const map = new AaaMap()
  const { login, broker } = await guarded(t, map)
  await rejectsBus(t, () => login('one'), { ...DENIED, says: ['one'] })
  map.set('one', {})
  await login('one')
  for (const name of ['One', 'one.x', 'on', 'two']) await rejectsBus(t, () => login(name), DENIED)
  // Who is in the process is not asked.
  closing(t, await broker.client('anybody'))
  closing(t, await connect(broker.address, { name: 'anybody.else' }))
  t.is(broker.clients('any').length, 2)
})

test('edits reach the next login at once: set, update, delete, clear', async (t) => {
  const map = new AaaMap()
  const { login } = await guarded(t, map)
  for (let round = 0; round < 3; round += 1) {
    map.set('one', { publish: ['a'] })
    const first = await login('one')
    await first.publish('a', 'x', { ack: true })
    await rejectsBus(t, () => first.publish('b', 'x', { ack: true }), DENIED)
    await first.close()
    map.update('one', { publish: ['b'] })
    const second = await login('one')
    await second.publish('b', 'x', { ack: true })
    await rejectsBus(t, () => second.publish('a', 'x', { ack: true }), DENIED)
    await second.close()
    if (round % 2 === 0) map.delete('one')
    else map.clear()
    await rejectsBus(t, () => login('one'), DENIED)
  }
})

test('what a client may do is copied when it connects, until it is disconnected', async (t) => {
  const map = new AaaMap({ one: { publish: ['a'] } })
  const { login, broker } = await guarded(t, map)
  const one = await login('one')
  map.set('one', { publish: ['b'] })
  await one.publish('a', 'x', { ack: true })
  await rejectsBus(t, () => one.publish('b', 'x', { ack: true }), DENIED)
  map.delete('one')
  await one.publish('a', 'x', { ack: true })
  await rejectsBus(t, () => one.secondary(), DENIED)
  t.true(broker.forceDisconnect('one'))
  isBusError(t, await soon(one.closed, 'it is out'), { code: 'ERR_BUS_DISCONNECTED' })
  await rejectsBus(t, () => login('one'), DENIED)
  map.set('one', { publish: ['b'] })
  await (await login('one')).publish('b', 'x', { ack: true })
})

test('secondaries have the rights of their primary', async (t) => {
  const map = new AaaMap({ one: { publish: ['a'] }, 'one%%0': {} })
  const { login } = await guarded(t, map)
  const second = closing(t, await (await login('one')).secondary())
  t.is(second.name, 'one%%0')
  await second.publish('a', 'x', { ack: true })
  await rejectsBus(t, () => second.publish('b', 'x', { ack: true }), DENIED)
})

test('hosts are those of network clients; UNIX sockets are not concerned', async (t) => {
  const map = new AaaMap({
    any: {},
    here: { hosts: ['127.0.0.1'] },
    loop: { hosts: ['127.0.0.0/8', '::1'] },
    all: { hosts: ['0.0.0.0/0'] },
    mapped: { hosts: ['::ffff:127.0.0.1'] },
    away: { hosts: ['10.0.0.0/8', '2001:db8::/32'] },
    nowhere: { hosts: [] },
  })
  const broker = await startBroker(t, { aaa: map })
  const tcp = await broker.listen('tcp://127.0.0.1:0')
  const unix = await broker.listen(`unix:${socketPath(t)}`)
  for (const name of ['any', 'here', 'loop', 'all', 'mapped']) {
    const client = await connect(tcp, { name })
    await client.close()
  }
  for (const name of ['away', 'nowhere']) {
    await rejectsBus(t, () => connect(tcp, { name }), DENIED)
    closing(t, await connect(unix, { name }))
  }
  t.is(broker.clients('where').length, 1)
})

test('a peer rule asks for the user and group of the process, and lets no network client in', async (t) => {
  const [uid, gid] = [process.geteuid?.() ?? 0, process.getegid?.() ?? 0]
  const map = new AaaMap({
    user: { peer: { uid } },
    group: { peer: { gid } },
    both: { peer: { uid, gid } },
    anybody: { peer: {} },
    'other.user': { peer: { uid: uid + 1 } },
    'other.group': { peer: { uid, gid: gid + 1 } },
  })
  const { login, broker } = await guarded(t, map)
  for (const name of ['user', 'group', 'both', 'anybody']) await login(name)
  for (const name of ['other.user', 'other.group']) await rejectsBus(t, () => login(name), DENIED)
  const tcp = await broker.listen('tcp://127.0.0.1:0')
  for (const name of ['user', 'group', 'both']) {
    broker.forceDisconnect(name)
    await rejectsBus(t, () => connect(tcp, { name }), DENIED)
  }
})

test('each listener has a map of its own, or the broker’s', async (t) => {
  const broker = await startBroker(t, { aaa: new AaaMap({ common: {} }) })
  const own = new AaaMap({ special: {} })
  const first = await broker.listen(`unix:${socketPath(t)}`)
  const second = await broker.listen({ url: `unix:${socketPath(t)}`, aaa: own })
  closing(t, await connect(first, { name: 'common' }))
  closing(t, await connect(second, { name: 'special' }))
  await rejectsBus(t, () => connect(first, { name: 'special' }), DENIED)
  await rejectsBus(t, () => connect(second, { name: 'common' }), DENIED)
})

test('one map serves several brokers, and lives on when one is closed', async (t) => {
  const map = new AaaMap({ one: {} })
  const [first, second] = [await guarded(t, map), await guarded(t, map)]
  await first.login('one')
  await first.broker.close({ drain: 0 })
  map.set('two', {})
  await second.login('one')
  await second.login('two')
  t.is(second.broker.clients().length, 3)
})

// ---- what they may do

/** What `allowed` can and `refused` cannot, of one verb. */
async function verb(
  t: ExecutionContext,
  entry: AaaEntry,
  allowed: readonly string[],
  refused: readonly string[],
  run: (client: Client, text: string) => Promise<unknown>,
): Promise<void> {
  const { login, broker } = await guarded(t, new AaaMap({ one: entry }))
  for (const name of ['a', 'a.b', 'a.b.c', 'b', 'b.c']) closing(t, await broker.client(name))
  const one = await login('one')
  for (const text of refused) {
    await t.notThrowsAsync(async () => {
      const error = (await run(one, text).then(
        () => undefined,
        (reason: unknown) => reason,
      )) as BusError | undefined
      t.is(error?.code, 'ERR_BUS_ACCESS', text)
      t.is(error?.wireCode, 0x79, text)
    })
  }
  for (const text of allowed) await t.notThrowsAsync(run(one, text), text)
  t.is(broker.stats().denied, refused.length)
  t.true(one.connected)
}

const publish = (client: Client, topic: string): Promise<void> => client.publish(topic, 'x', { ack: true })
const send = (client: Client, name: string): Promise<void> => client.send(name, 'x', { ack: true })
const broadcast = (client: Client, mask: string): Promise<void> => client.broadcast(mask, 'x', { ack: true })
const subscribe = async (client: Client, mask: string): Promise<void> => {
  const subscription = client.subscribe(mask)
  await subscription.ready
  await subscription.unsubscribe()
}
const exclude = (client: Client, mask: string): Promise<void> => client.exclude(mask)

test('publish', (t) =>
  verb(t, { publish: ['a/+', 'b/#'] }, ['a/x', 'a/', 'b/x/y'], ['a', 'b', 'a/x/y', 'c', ''], publish))
test('publish for one', (t) =>
  verb(t, { publish: ['a'] }, ['a'], ['b'], (client, topic) =>
    client.publish(topic, 'x', { ack: true, for: 'b' }),
  ))
test('publish false', (t) => verb(t, { publish: false }, [], ['a', 'a/b', ''], publish))
test('publish true', (t) => verb(t, { publish: true }, ['a', 'a/b'], [], publish))
test('p2p', (t) =>
  verb(t, { p2p: ['a.?', 'b.*'] }, ['a.b', 'b.c'], ['a', 'b', 'a.b.c', 'nobody', 'one'], send))
test('p2p false', (t) => verb(t, { p2p: [] }, [], ['a', 'one', '.broker'], send))
test('p2p true', (t) => verb(t, { p2p: true }, ['a', 'one'], [], send))
test('broadcast', (t) =>
  verb(t, { broadcast: ['a.?'] }, ['a.b', 'a.?'], ['a.*', '?.b', '*', 'a', 'a.?.c'], broadcast))
test('broadcast false', (t) => verb(t, { broadcast: false }, [], ['a', '*'], broadcast))
test('subscribe', (t) =>
  verb(
    t,
    { subscribe: ['a/+', 'b/#'] },
    ['a/x', 'a/+', 'b/#', 'b/+/c', 'b/x/#'],
    // All that such a mask can match has to be allowed.
    ['a/#', '#', '+/x', 'a', 'b', '+', 'a/+/c'],
    subscribe,
  ))
test('subscribe false', (t) => verb(t, { subscribe: false }, [], ['a', '#'], subscribe))
test('exclude', (t) => verb(t, { exclude: ['a/#'] }, ['a/b', 'a/#'], ['#', 'b', '+/b'], exclude))
test('exclude false', (t) => verb(t, { exclude: [] }, [], ['a', '#'], exclude))

test('calls are messages: without the right there is no call, not even of .broker', async (t) => {
  const { login, broker } = await guarded(t, new AaaMap({ one: { p2p: ['a'] }, two: { p2p: ['.broker'] } }))
  const callee = closing(t, await broker.client('a'))
  const other = closing(t, await broker.client('b'))
  let notified = 0
  for (const client of [callee, other])
    client.serve({ hi: () => 'hi' }, { onNotification: () => (notified += 1) })
  const [one, two] = [await login('one'), await login('two')]
  t.is(await one.call('a', 'hi'), 'hi')
  await rejectsBus(t, () => one.call('b', 'hi'), { ...DENIED, says: ['b'] })
  await rejectsBus(t, () => one.call('b', 'hi', null, { reply: false }), DENIED)
  await rejectsBus(t, () => one.call('.broker', 'test'), DENIED)
  t.deepEqual(await two.call('.broker', 'test'), { ok: true })
  // What nobody acknowledges is dropped without a word.
  t.true(one.notify('b', 'x'))
  t.true(one.send('b', 'x'))
  await one.flush()
  await other.flush()
  t.is(notified, 0)
  // Who may not send to its caller can still be called, but not answer.
  two.serve({ hi: () => 'hi' })
  await rejectsBus(t, () => callee.call('two', 'hi', null, { timeout: 100 }), { code: 'ERR_BUS_TIMEOUT' })
})

test('a denied mask beside allowed ones', async (t) => {
  const { login, broker } = await guarded(t, new AaaMap({ one: { subscribe: ['a'], exclude: ['x'] } }))
  const sender = closing(t, await broker.client('sender'))
  const one = await login('one')
  const both = one.subscribe(['a', 'b'])
  await rejectsBus(t, () => both.ready, DENIED)
  const good = one.subscribe('a')
  await good.ready
  await sender.publish('b', 'denied', { ack: true })
  await sender.publish('a', 'allowed', { ack: true })
  t.deepEqual(await texts(good, 1), ['allowed'])
  await t.throwsAsync(
    async () => {
      for await (const _ of both) t.fail('a denied subscription gave a message')
    },
    { code: 'ERR_BUS_ACCESS' },
  )
  await rejectsBus(t, () => one.exclude(['x', 'y']), DENIED)
})

test('what is absent is allowed', async (t) => {
  const { login } = await guarded(t, new AaaMap({ one: {}, two: { publish: undefined } }))
  for (const name of ['one', 'two']) {
    const client = await login(name)
    await publish(client, 'a')
    await subscribe(client, '#')
    await exclude(client, '#')
    await broadcast(client, '*')
    await send(client, name)
  }
  t.pass()
})

test('edits during many logins are seen whole: one entry or the other', async (t) => {
  const entries: AaaEntry[] = [
    { publish: ['a'], subscribe: ['a'] },
    { publish: ['b'], subscribe: ['b'] },
  ]
  const map = new AaaMap({ one: entries[0] as AaaEntry })
  const { address } = await guarded(t, map)
  const can = async (run: Promise<unknown>): Promise<boolean> =>
    run.then(
      () => true,
      () => false,
    )
  for (let round = 0; round < 100; round += 1) {
    const login = connect(address, { name: 'one' })
    for (let edit = 0; edit < 20; edit += 1) map.set('one', entries[(round + edit) % 2] as AaaEntry)
    const client = await login
    const [a, b] = [await can(publish(client, 'a')), await can(publish(client, 'b'))]
    t.not(a, b)
    t.is(await can(subscribe(client, 'a')), a)
    t.is(await can(subscribe(client, 'b')), b)
    await client.close()
  }
})

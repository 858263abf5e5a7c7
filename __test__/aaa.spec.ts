// The access map: as a Map, and what it lets clients do.

import test, { type ExecutionContext } from 'ava'
import {
  type AaaEntry,
  AaaMap,
  type Broker,
  type BusError,
  type Client,
  connect,
  type DeniedEvent,
} from 'elbus-node'
import { isBusError, rejectsBus, throwsBus } from './support/bus-error'
import { texts } from './support/messages'
import { ACK, acknowledgementOf, Code, Op, operation, pour, login as rawLogin } from './support/raw-client'
import { socketPath } from './support/temp'
import { closing, startBroker } from './support/transports'
import { soon, until } from './support/within'

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

test('update changes some fields, takes out undefined ones, and makes no entry', (t) => {
  const map = new AaaMap({ one: { publish: ['a'], p2p: false } })
  t.is(map.update('one', { publish: ['b'], broadcast: true }), map)
  t.deepEqual(map.get('one'), { publish: ['b'], p2p: false, broadcast: true })
  map.update('one', { publish: undefined })
  t.deepEqual(map.get('one'), { p2p: false, broadcast: true })
  throwsBus(t, () => map.update('two', { exclude: [] }), { code: 'ERR_BUS_ARGUMENT', says: ['two'] })
  t.deepEqual([...map.keys()], ['one'])
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
  for (const name of ['a\0b', '', '.x', 'one%%0', 'plugin.*', 'a.?', 'x'.repeat(513), 'a\x1bb']) {
    throwsBus(t, () => map.set(name, {}), { code: 'ERR_BUS_NAME' })
  }
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
  const map = new AaaMap({ one: { publish: ['a'] } })
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

/**
 * What `allowed` can and `refused` cannot, of one verb. Each refusal is answered once, counted, and told with client,
 * operation and target; whoever watches sees no trace of it.
 */
async function verb(
  t: ExecutionContext,
  entry: AaaEntry,
  named: DeniedEvent['operation'],
  allowed: readonly string[],
  refused: readonly string[],
  run: (client: Client, text: string) => Promise<unknown>,
): Promise<void> {
  const { login, broker } = await guarded(t, new AaaMap({ one: entry }))
  const told: DeniedEvent[] = []
  broker.on('denied', (event) => told.push(event))
  let seen = 0
  for (const name of ['a', 'a.b', 'a.b.c', 'b', 'b.c']) {
    const client = closing(t, await broker.client(name))
    client.messages({ callback: () => (seen += 1) })
    await client.subscribe(['#'], {
      callback: ({ sender }) => {
        if (sender === 'one') seen += 1
      },
    }).ready
  }
  const one = await login('one')
  const started = performance.now()
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
  await new Promise((resolve) => setImmediate(resolve))
  t.is(seen, 0, 'a refusal left a trace')
  for (const text of allowed) await t.notThrowsAsync(run(one, text), text)
  t.is(broker.stats().denied, refused.length)
  t.true(one.connected)
  // What is left out for a second is told when the client leaves.
  await one.close()
  await until(
    () => told.reduce((sum, { count }) => sum + count, 0) >= refused.length,
    'all refusals are told',
  )
  t.is(
    told.reduce((sum, { count }) => sum + count, 0),
    refused.length,
  )
  t.true(told.length <= 2 + (performance.now() - started) / 1_000, 'one event for many, in a second')
  for (const event of told) t.like(event, { client: 'one', operation: named })
  if (refused.length > 0) t.is(told[0]?.target, refused[0])
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

test('C24: publish', (t) =>
  verb(
    t,
    { publish: ['a/+', 'b/#'] },
    'publish',
    ['a/x', 'a/', 'b/x/y'],
    ['a', 'b', 'a/x/y', 'c', ''],
    publish,
  ))
test('C24: publish for one', (t) =>
  verb(t, { publish: ['a'] }, 'publish', ['a'], ['b'], (client, topic) =>
    client.publish(topic, 'x', { ack: true, for: 'b' }),
  ))
test('C24: publish false', (t) => verb(t, { publish: false }, 'publish', [], ['a', 'a/b', ''], publish))
test('C24: publish true', (t) => verb(t, { publish: true }, 'publish', ['a', 'a/b'], [], publish))
test('C24: p2p', (t) =>
  verb(
    t,
    { p2p: ['a.?', 'b.*'] },
    'message',
    ['a.b', 'b.c'],
    ['a', 'b', 'a.b.c', 'nobody', 'one', '.broker'],
    send,
  ))
test('C24: p2p false', (t) => verb(t, { p2p: [] }, 'message', [], ['a', 'one', '.broker'], send))
test('C24: p2p true', (t) => verb(t, { p2p: true }, 'message', ['a', 'one'], [], send))
test('C24: calls', (t) =>
  verb(t, { p2p: ['a.?'] }, 'message', [], ['a', '.broker', 'b.c'], (client, name) =>
    client.call(name, 'test'),
  ))
test('C24: broadcast', (t) =>
  verb(t, { broadcast: ['a.?'] }, 'broadcast', ['a.b', 'a.?'], ['a.*', '?.b', '*', 'a', 'a.?.c'], broadcast))
test('C24: broadcast false', (t) => verb(t, { broadcast: false }, 'broadcast', [], ['a', '*'], broadcast))
test('C24: subscribe', (t) =>
  verb(
    t,
    { subscribe: ['a/+', 'b/#'] },
    'subscribe',
    ['a/x', 'a/+', 'b/#', 'b/+/c', 'b/x/#'],
    // All that such a mask can match has to be allowed.
    ['a/#', '#', '+/x', 'a', 'b', '+', 'a/+/c'],
    subscribe,
  ))
test('C24: subscribe false', (t) => verb(t, { subscribe: false }, 'subscribe', [], ['a', '#'], subscribe))
test('C24: exclude', (t) =>
  verb(t, { exclude: ['a/#'] }, 'exclude', ['a/b', 'a/#'], ['#', 'b', '+/b'], exclude))
test('C24: exclude false', (t) => verb(t, { exclude: [] }, 'exclude', [], ['a', '#'], exclude))
test('C24: what takes nothing is never denied', async (t) => {
  const nothing = { p2p: [], publish: [], subscribe: [], broadcast: [], exclude: [] }
  const { broker, address } = await guarded(t, new AaaMap({ one: nothing }))
  const one = await rawLogin(t, address, 'one')
  for (const flags of [Op.UNSUBSCRIBE, Op.UNEXCLUDE]) {
    one.write(operation(flags | ACK, 'a\0#', 1))
    t.like(await acknowledgementOf(one), { code: Code.DONE })
  }
  t.is(broker.stats().denied, 0)
})

test('C24: each denied operation is answered once on the wire, whatever it holds, and nobody else notices', async (t) => {
  const nothing = { p2p: [], publish: [], subscribe: [], broadcast: [], exclude: [] }
  const { broker, address } = await guarded(t, new AaaMap({ one: nothing }))
  const watcher = closing(t, await broker.client('watcher'))
  let seen = 0
  watcher.messages({ callback: () => (seen += 1) })
  await watcher.subscribe('#', { callback: ({ sender }) => (seen += Number(sender === 'one')) }).ready
  const one = await rawLogin(t, address, 'one')
  let id = 0
  for (const [flags, body] of [
    [Op.PUBLISH, 'a\0x'],
    [Op.PUBLISH_FOR, 'a\0watcher\0x'],
    [Op.SUBSCRIBE, 'a'],
    [Op.SUBSCRIBE, Array(1_000).fill('a/#').join('\0')],
    [Op.EXCLUDE, 'a\0b\0c'],
    [Op.MESSAGE, 'watcher\0x'],
    [Op.BROADCAST, '*\0x'],
    [Op.MESSAGE, '.broker\0\x01\x01\0\0\0test\0'],
  ] as const) {
    for (const qos of [0, ACK, 0x80, 0xc0]) {
      id += 1
      one.write(operation(flags | qos, body, id))
      if ((qos & ACK) === 0) continue
      // Were one answered twice, or one that did not ask, its number would come here.
      t.deepEqual(await acknowledgementOf(one), { id, code: Code.ACCESS }, `operation ${flags} with ${qos}`)
    }
  }
  t.is(seen, 0)
  // Masks are counted together: it is one operation.
  t.is(broker.stats().denied, id)
})

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

/** Set for a long run: the doses of the catalogue in full. */
const isLong = process.env.ELBUS_LONG === '1'
const LOGINS = isLong ? 10_000 : 1_000

test(`C25: edits during ${LOGINS} logins are seen whole: one entry, the other, or none`, async (t) => {
  t.timeout(isLong ? 1_200_000 : 120_000)
  const entries: AaaEntry[] = [
    { publish: ['a'], subscribe: ['a'] },
    { publish: ['b'], subscribe: ['b'] },
  ]
  const map = new AaaMap()
  const { address, broker } = await guarded(t, map)
  const can = async (run: Promise<unknown>): Promise<boolean> =>
    run.then(
      () => true,
      () => false,
    )
  const found = { a: 0, b: 0, none: 0 }
  let edits = 0
  const names = Array.from({ length: 20 }, (_, index) => `client.${index}`)
  await Promise.all(
    names.map(async (name, index) => {
      for (let round = 0; round < LOGINS / names.length; round += 1) {
        const login = connect(address, { name })
        for (let edit = 0; edit < 20; edit += 1) {
          const which = (round * 7 + edit + index) % 3
          if (which === 2) map.delete(name)
          else map.set(name, entries[which] as AaaEntry)
          edits += 1
          // Some in the same turn, some between two steps of the login.
          if (edit % 5 === 0) await new Promise((resolve) => setImmediate(resolve))
        }
        let client: Client
        try {
          client = await login
        } catch (error) {
          isBusError(t, error, DENIED)
          found.none += 1
          continue
        }
        const [a, b, toA, toB] = await Promise.all([
          can(publish(client, 'a')),
          can(publish(client, 'b')),
          can(subscribe(client, 'a')),
          can(subscribe(client, 'b')),
        ])
        if (a === b || toA !== a || toB !== b) t.fail(`a mix of rights: ${[a, b, toA, toB]}`)
        found[a ? 'a' : 'b'] += 1
        await client.close()
      }
    }),
  )
  t.is(found.a + found.b + found.none, LOGINS)
  t.true(found.a > 0 && found.b > 0 && found.none > 0, JSON.stringify(found))
  t.log(
    `C25: ${LOGINS} logins against ${edits} edits: ${found.a} under one entry, ${found.b} under the other, ${found.none} denied, 0 mixed`,
  )
  // Empty at the end: nobody comes in.
  map.clear()
  for (const name of names) await rejectsBus(t, () => connect(address, { name }), DENIED)
  await until(() => broker.clients('client.').length === 0, 'all have left')
})

// ---- apply

test('apply gives connected clients the rights of now, with their secondaries, and says how many', async (t) => {
  const map = new AaaMap({ one: { publish: ['a'] }, two: { publish: ['a'] } })
  const { login, broker } = await guarded(t, map)
  const [one, two] = [await login('one'), await login('two')]
  const second = closing(t, await one.secondary())
  map.set('one', { publish: ['b'] })
  map.set('two', { publish: ['b'] })
  await publish(one, 'a')
  t.is(map.apply('one'), 2)
  for (const client of [one, second]) {
    await publish(client, 'b')
    await rejectsBus(t, () => publish(client, 'a'), DENIED)
  }
  // Only who was named.
  await publish(two, 'a')
  t.is(map.apply(), 3)
  await publish(two, 'b')
  await rejectsBus(t, () => publish(two, 'a'), DENIED)
  t.is(map.apply('nobody'), 0)
  t.is(map.apply('one%%0'), 0)
  // Wider too, and again: it is no one-way street.
  map.set('one', {})
  t.is(map.apply('one'), 2)
  for (const topic of ['a', 'b', 'c']) await publish(one, topic)
  t.is(broker.clients('one')[0]?.instances, 2)
})

test('apply reaches every right', async (t) => {
  const all = { publish: true, subscribe: true, p2p: true, broadcast: true, exclude: true } as const
  const verbs: Record<keyof typeof all, (client: Client) => Promise<unknown>> = {
    publish: (client) => publish(client, 'a'),
    subscribe: (client) => subscribe(client, 'a'),
    p2p: (client) => send(client, 'one'),
    broadcast: (client) => broadcast(client, '*'),
    exclude: (client) => exclude(client, 'a'),
  }
  const map = new AaaMap({ one: all })
  const { login } = await guarded(t, map)
  const one = await login('one')
  for (const denied of Object.keys(all) as (keyof typeof all)[]) {
    map.set('one', { ...all, [denied]: false })
    t.is(map.apply('one'), 1)
    for (const [right, run] of Object.entries(verbs)) {
      if (right === denied) await rejectsBus(t, () => run(one), DENIED)
      else await t.notThrowsAsync(run(one), `${right} without ${denied}`)
    }
  }
})

test('apply takes out subscriptions that are not allowed any more, and leaves the others', async (t) => {
  const map = new AaaMap({ one: {} })
  const { login, broker } = await guarded(t, map)
  const one = await login('one')
  const sender = closing(t, await broker.client('sender'))
  const [wide, kept, gone] = [one.subscribe('#'), one.subscribe('a/+'), one.subscribe('b/x')]
  await Promise.all([wide.ready, kept.ready, gone.ready])
  await one.exclude(['a/secret', 'c'])
  await sender.publish('a/secret', 'excluded', { ack: true })
  await sender.publish('b/x', 'before', { ack: true })
  map.set('one', { subscribe: ['a/#'], exclude: ['c'] })
  t.is(map.apply('one'), 1)
  await sender.publish('b/x', 'after', { ack: true })
  await sender.publish('c/x', 'after', { ack: true })
  // The exclusion of it was taken out with the right to it.
  await sender.publish('a/secret', 'allowed', { ack: true })
  t.deepEqual(await texts(kept, 1), ['allowed'])
  // What was queued before stays.
  t.deepEqual(await texts(gone, 1), ['before'])
  t.is(gone.pending, 0)
  await rejectsBus(t, () => subscribe(one, 'b/y'), DENIED)
  // Given back, they are not there again by themselves.
  map.set('one', {})
  map.apply('one')
  await sender.publish('b/x', 'once more', { ack: true })
  await sender.publish('a/end', 'end', { ack: true })
  t.deepEqual(await texts(kept, 1), ['end'])
  t.is(gone.pending, 0)
})

test('apply disconnects who could not log in any more: by name, by host, by user', async (t) => {
  const map = new AaaMap({ name: {}, host: {}, user: {}, stays: {} })
  const broker = await startBroker(t, { aaa: map })
  const [unix, tcp] = [await broker.listen(`unix:${socketPath(t)}`), await broker.listen('tcp://127.0.0.1:0')]
  const open = async (address: string, name: string): Promise<Client> =>
    closing(t, await connect(address, { name }))
  const name = await open(unix, 'name')
  const second = closing(t, await name.secondary())
  const [host, user, stays] = [await open(tcp, 'host'), await open(unix, 'user'), await open(tcp, 'stays')]
  map.delete('name')
  map.set('host', { hosts: ['10.0.0.0/8'] })
  map.set('user', { peer: { uid: (process.geteuid?.() ?? 0) + 1 } })
  map.set('stays', { hosts: ['127.0.0.1'] })
  for (const client of [name, second, host, user]) t.true(client.connected)
  t.is(map.apply(), 5)
  for (const client of [name, second, host, user]) {
    isBusError(t, await soon(client.closed, `${client.name} is out`), { code: 'ERR_BUS_DISCONNECTED' })
  }
  await stays.rtt()
  await until(() => broker.clients().length === 2, 'the others are gone')
})

test('apply concerns clients of this map only, at whatever broker, and nobody in the process', async (t) => {
  const [map, other] = [new AaaMap({ one: {} }), new AaaMap({ one: {} })]
  const [first, second, third] = [await guarded(t, map), await guarded(t, map), await guarded(t, other)]
  const clients = [await first.login('one'), await second.login('one'), await third.login('one')] as const
  const local = closing(t, await first.broker.client('local'))
  map.set('one', { publish: [] })
  map.set('local', { publish: [] })
  t.is(map.apply(), 2)
  await rejectsBus(t, () => publish(clients[0], 'a'), DENIED)
  await rejectsBus(t, () => publish(clients[1], 'a'), DENIED)
  await publish(clients[2], 'a')
  await publish(local, 'a')
  map.clear()
  await first.broker.close({ drain: 0 })
  t.is(map.apply(), 1)
  isBusError(t, await soon(clients[1].closed, 'it is out'), { code: 'ERR_BUS_DISCONNECTED' })
  t.is(new AaaMap({ one: {} }).apply(), 0)
})

test('apply checks the name', (t) => {
  const map = new AaaMap()
  for (const name of [7, null, {}]) {
    throwsBus(t, () => map.apply(name as unknown as string), { code: 'ERR_BUS_ARGUMENT' })
  }
  throwsBus(t, () => map.apply('a\0b'), { code: 'ERR_BUS_NAME' })
  t.is(map.apply(undefined), 0)
})

test('when apply has returned nothing more goes out under the old rights', async (t) => {
  const map = new AaaMap({ flooder: {} })
  const { broker, address } = await guarded(t, map)
  const watcher = closing(t, await broker.client('watcher'))
  let seen = 0
  await watcher.subscribe('flood', { callback: () => (seen += 1) }).ready
  for (let round = 0; round < (isLong ? 100 : 5); round += 1) {
    const flooder = await rawLogin(t, address, 'flooder')
    const frame = operation(Op.PUBLISH, 'flood\0x')
    const pouring = pour(flooder, Buffer.alloc(frame.length * 500).fill(frame), Number.POSITIVE_INFINITY)
    const before = seen
    await until(() => seen > before + 5_000, 'the flood is on')
    map.set('flooder', { publish: ['other'] })
    t.is(map.apply('flooder'), 1)
    const sent = broker.clients('watcher')[0]?.sent.frames
    const denied = broker.stats().denied
    await until(() => broker.stats().denied > denied + 1_000, 'it goes on and is denied')
    t.is(broker.clients('watcher')[0]?.sent.frames, sent)
    flooder.destroy()
    await pouring
    map.set('flooder', {})
    await until(() => broker.clients('flooder').length === 0, 'it is gone')
  }
})

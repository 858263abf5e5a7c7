// A broker that says anything at all to our client: what breaks the protocol ends that client, and nothing else.

import test from 'ava'
import { BusError, type BusErrorCode, type Client, connect, RpcError } from 'elbus-node'
import { GREETING } from './support/fake-broker'
import {
  acknowledgement,
  Event,
  eventFrame,
  message,
  parted,
  publication,
  RawBroker,
  type RawSession,
  rpc,
  text,
} from './support/raw-broker'
import { turn } from './support/raw-peer'
import { closing } from './support/transports'
import { bystander, codeOf, end, noWarnings, open, recorded, roundTrip, victim } from './support/victim'
import { soon, until } from './support/within'

noWarnings()

// ---- login

const LOGIN = Buffer.from([...GREETING, 0x01, 0x01])

test('a greeting that is none is an error of the protocol', async (t) => {
  const unharmed = await bystander(t)
  const broker = await RawBroker.listen(t)
  for (const greeting of ['eb0200', 'eb0001', 'ea0100', '000000', '485454502f312e31']) {
    const connecting = connect(broker.address, { name: 'victim' })
    const peer = await broker.accept()
    peer.write(Buffer.from(greeting, 'hex'))
    const error = await t.throwsAsync(soon(connecting, 'an answer'), { code: 'ERR_BUS_PROTOCOL' }, greeting)
    t.true(error?.message.includes('greeting'), error?.message)
    await soon(peer.ended, 'the client leaves')
    t.is(peer.waiting, 3 + 2 + 'victim'.length, 'it says who it is, and nothing else')
  }
  await unharmed()
})

test('a broker that ends anywhere in the login is told apart from one that never answers', async (t) => {
  const broker = await RawBroker.listen(t)
  for (let length = 0; length < LOGIN.length; length += 1) {
    const connecting = connect(broker.address, { name: 'victim' })
    const peer = await broker.accept()
    peer.write(LOGIN.subarray(0, length))
    peer.end()
    await t.throwsAsync(
      soon(connecting, 'an answer'),
      { code: 'ERR_BUS_DISCONNECTED' },
      `after ${length} bytes`,
    )
  }
  for (let length = 0; length < LOGIN.length; length += 1) {
    const connecting = connect(broker.address, { name: 'victim', timeout: 20 })
    // It may be over before anybody looks.
    connecting.catch(() => undefined)
    const peer = await broker.accept()
    peer.write(LOGIN.subarray(0, length))
    await t.throwsAsync(soon(connecting, 'an answer'), { code: 'ERR_BUS_TIMEOUT' }, `after ${length} bytes`)
    await soon(peer.ended, 'the client leaves')
  }
})

test('a login that comes in pieces is one', async (t) => {
  const broker = await RawBroker.listen(t)
  for (let cut = 0; cut < LOGIN.length; cut += 1) {
    const connecting = connect(broker.address, { name: `victim.${cut}` })
    const peer = await broker.accept()
    // What comes behind the login in the same read is not lost.
    await peer.writeSplit(
      LOGIN.subarray(0, cut),
      LOGIN.subarray(cut, -1),
      Buffer.concat([LOGIN.subarray(-1), Buffer.alloc(6)]),
    )
    const client = closing(t, await soon(connecting, 'the login'))
    const name = `victim.${cut}`
    t.deepEqual(
      await peer.take(5 + name.length),
      Buffer.concat([GREETING, Buffer.from([name.length, 0]), Buffer.from(name)]),
    )
    t.true(client.connected)
  }
})

test('a refusal at either step rejects with its code', async (t) => {
  const broker = await RawBroker.listen(t)
  const codes: readonly (readonly [number, BusErrorCode, wireCode?: number])[] = [
    [0x71, 'ERR_BUS_NOT_REGISTERED'],
    [0x72, 'ERR_BUS_DATA'],
    [0x73, 'ERR_BUS_IO'],
    [0x74, 'ERR_BUS_OTHER'],
    [0x75, 'ERR_BUS_NOT_SUPPORTED'],
    [0x76, 'ERR_BUS_BUSY'],
    [0x77, 'ERR_BUS_NOT_DELIVERED'],
    [0x78, 'ERR_BUS_TIMEOUT'],
    [0x79, 'ERR_BUS_ACCESS'],
    [0xff, 'ERR_BUS_DISCONNECTED'],
    // Codes nobody has defined read as "other".
    [0x00, 'ERR_BUS_OTHER', 0x74],
    [0x02, 'ERR_BUS_OTHER', 0x74],
    [0xfe, 'ERR_BUS_OTHER', 0x74],
  ]
  for (const [code, expected, wireCode = code] of codes) {
    for (const front of [GREETING, Buffer.from([...GREETING, 0x01])]) {
      const connecting = connect(broker.address, { name: 'victim' })
      const peer = await broker.accept()
      peer.write(Buffer.concat([front, Buffer.from([code])]))
      const error = await t.throwsAsync(soon(connecting, 'an answer'), { instanceOf: BusError })
      t.is(error.code, expected, `code ${code} after ${front.length} bytes`)
      t.is(error.wireCode, wireCode)
      t.true(error.message.includes('victim'), error.message)
      await soon(peer.ended, 'the client leaves')
    }
  }
})

// ---- frames

test('frames cut anywhere are the same frames', async (t) => {
  const { client, session, unharmed, faults } = await victim(t)
  const log = await recorded(client, session)
  const stream = Buffer.concat([
    Buffer.alloc(6),
    message('a', 'one\0two'),
    message('grün', '', Event.BROADCAST),
    publication('a', 't/1', 'news'),
    publication('', '', ''),
    acknowledgement(77),
    message('a', rpc.notification('hear')),
    message('a', rpc.request(0, 'm', Buffer.from([1]))),
    message('a', rpc.reply(5, 'x')),
    message('a', rpc.error(5, -32603, 'x')),
    message('a', rpc.cancel(5)),
    eventFrame(Event.MESSAGE, text('b'), 1),
  ])
  const expected = [
    `message a ${Buffer.from('one\0two').toString('hex')}`,
    'broadcast grün ',
    `publish a t/1 ${Buffer.from('news').toString('hex')}`,
    'publish   ',
    `notification a ${Buffer.from('hear').toString('hex')}`,
    'request a 01',
    'message b ',
  ]
  for (let cut = 0; cut <= stream.length; cut += 1) {
    await session.peer.writeSplit(stream.subarray(0, cut), stream.subarray(cut))
    await until(() => log.length >= expected.length, `all frames, cut at ${cut}`)
    t.deepEqual(log.splice(0), expected, `cut at ${cut}`)
  }
  await session.peer.writeSplit(...[...stream].map((byte) => Buffer.from([byte])))
  await until(() => log.length >= expected.length, 'all frames, byte by byte')
  t.deepEqual(log, expected)
  t.deepEqual(faults, [])
  await unharmed()
})

const LIMIT = 4_096

/** Bytes that break the protocol, and a word that has to be in the error. */
const BREAKING: readonly (readonly [title: string, bytes: Buffer, named: string])[] = [
  ['a message without NUL', eventFrame(Event.MESSAGE, Buffer.from('abc')), 'sender'],
  ['an empty message', eventFrame(Event.MESSAGE, Buffer.alloc(0)), 'sender'],
  ['a broadcast without NUL', eventFrame(Event.BROADCAST, Buffer.from('abc')), 'sender'],
  ['a publication without NUL', eventFrame(Event.PUBLISH, Buffer.from('abc')), 'sender'],
  ['a publication with one NUL', eventFrame(Event.PUBLISH, text('abc')), 'topic'],
  ['a publication whose NUL lies behind its length', eventFrame(Event.PUBLISH, text('a'), 0, 1), 'sender'],
  ['a message whose length leaves out its sender', eventFrame(Event.MESSAGE, text('a'), 0, 0), 'sender'],
  ['a sender that is not UTF-8', eventFrame(Event.MESSAGE, Buffer.from('ff00', 'hex')), 'UTF-8'],
  ['a sender cut in a letter', eventFrame(Event.MESSAGE, Buffer.from('c300', 'hex')), 'UTF-8'],
  ['a surrogate for a sender', eventFrame(Event.MESSAGE, Buffer.from('eda08000', 'hex')), 'UTF-8'],
  ['a topic that is not UTF-8', eventFrame(Event.PUBLISH, Buffer.from('6100c0af00', 'hex')), 'UTF-8'],
  ['a length of one over the limit', eventFrame(Event.MESSAGE, Buffer.alloc(0), 0, LIMIT + 1), 'limit'],
  ['a length of 2 GiB', eventFrame(Event.MESSAGE, Buffer.alloc(0), 0, 2 ** 31), 'limit'],
  ['a length of 4 GiB less one', eventFrame(Event.PUBLISH, Buffer.alloc(0), 0, 2 ** 32 - 1), 'limit'],
  ['a greeting once more', Buffer.concat([LOGIN, LOGIN]), ''],
  ['text of another protocol', Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n'), ''],
]

for (const [title, bytes, named] of BREAKING) {
  test(`${title} ends that client alone`, async (t) => {
    const { client, session, unharmed, faults } = await victim(t, { frameBytes: LIMIT })
    const told: (Error | undefined)[] = []
    client.on('close', (error) => told.push(error))
    const messages = client.messages()
    const reading = messages[Symbol.asyncIterator]()
    const first = reading.next()
    const call = client.call('somebody', 'anything')
    const acknowledged = client.send('somebody', 'x', { ack: true })
    const watched = Promise.allSettled([call, acknowledged])
    // Whole frames in front are delivered, whatever follows in the same read.
    session.write(message('a', 'before'), bytes, message('a', 'behind'))
    t.is((await soon(first, 'what came before')).value?.text(), 'before')
    const error = await end(client)
    t.is(codeOf(error), 'ERR_BUS_PROTOCOL', error?.message)
    t.true(error?.message.includes(named), error?.message)
    for (const settled of await soon(watched, 'what waits is told')) {
      t.is(settled.status === 'rejected' ? settled.reason : undefined, error)
    }
    t.is(error, await t.throwsAsync(soon(reading.next(), 'the iterator is told')))
    t.deepEqual(told, [error])
    t.false(client.connected)
    t.throws(() => client.send('somebody', 'x'), { code: 'ERR_BUS_PROTOCOL' })
    await soon(session.peer.ended, 'the connection is closed')
    t.deepEqual(faults, [])
    await unharmed()
  })
}

test('a kind nobody has defined ends the client, each of them', async (t) => {
  const unharmed = await bystander(t)
  const broker = await RawBroker.listen(t)
  const known = new Set<number>(Object.values(Event))
  const unknown = [...Array(256).keys()].filter((kind) => !known.has(kind))
  t.is(unknown.length, 251)
  for (const kind of unknown) {
    const { client, session } = await open(t, broker)
    session.write(eventFrame(kind, Buffer.from('a\0b\0c')))
    t.is(codeOf(await end(client)), 'ERR_BUS_PROTOCOL', `kind ${kind}`)
  }
  await unharmed()
})

test('a frame of exactly the limit is delivered', async (t) => {
  const { client, session } = await victim(t, { frameBytes: LIMIT })
  const messages = client.messages()
  session.write(message('a', Buffer.alloc(LIMIT - 2, 7)))
  const { value } = await soon(messages[Symbol.asyncIterator]().next(), 'a message')
  t.deepEqual(value?.copy(), new Uint8Array(LIMIT - 2).fill(7))
})

test('half a frame and the end is a lost connection', async (t) => {
  const unharmed = await bystander(t)
  const broker = await RawBroker.listen(t)
  const frame = publication('a', 't', 'payload')
  for (let length = 0; length < frame.length; length += 1) {
    const { client, session } = await open(t, broker)
    const log = await recorded(client, session)
    session.write(message('a', 'before'), frame.subarray(0, length))
    session.peer.end()
    t.is(codeOf(await end(client)), 'ERR_BUS_DISCONNECTED', `after ${length} bytes`)
    t.deepEqual(log, [`message a ${Buffer.from('before').toString('hex')}`])
  }
  await unharmed()
})

test('a broker that says nothing is taken for dead', async (t) => {
  const { client, session, unharmed } = await victim(t, { pingInterval: 100, silenceLimit: 300 })
  const call = client.call('somebody', 'anything', undefined, { timeout: Number.POSITIVE_INFINITY })
  const error = await t.throwsAsync(soon(call, 'what waits is told'), { code: 'ERR_BUS_TIMEOUT' })
  t.is(await end(client), error)
  t.true(error?.message.includes('300 ms'), error?.message)
  await soon(session.peer.ended, 'the connection is closed')
  // A ping is nine zero bytes, and the call is among them.
  t.true(session.peer.takeReady().includes(Buffer.alloc(9)))
  await unharmed()
})

test('half a frame is no silence until it stops growing', async (t) => {
  const { client, session } = await victim(t, { pingInterval: 100, silenceLimit: 300 })
  session.write(message('a', Buffer.alloc(1_000)).subarray(0, 500))
  t.is(codeOf(await end(client)), 'ERR_BUS_TIMEOUT')
})

// ---- RPC

test('RPC frames cut short are dropped', async (t) => {
  const { client, session, unharmed, faults } = await victim(t)
  const log = await recorded(client, session)
  const frames = [
    rpc.request(7, 'm'),
    rpc.reply(1, ''),
    rpc.error(1, -1),
    rpc.cancel(1),
    // No NUL behind the method, however long it is.
    Buffer.concat([rpc.request(7, 'm').subarray(0, -1), Buffer.alloc(1_000, 0x6d)]),
  ]
  for (const frame of frames) {
    // The last one is whole but for the long method.
    for (let length = 1; length < Math.min(frame.length, 8); length += 1)
      session.write(message('a', frame.subarray(0, length)))
  }
  session.write(message('a', frames[4] as Buffer), message('a', ''), message('a', 'end'))
  await until(() => log.length >= 2, 'the last message')
  t.deepEqual(log, ['message a ', `message a ${Buffer.from('end').toString('hex')}`])
  t.true(client.connected)
  t.deepEqual(faults, [])
  await unharmed()
})

test('a method that is not UTF-8, or is not served, is answered with an error', async (t) => {
  const { client, session } = await victim(t)
  client.serve({ m: () => undefined })
  session.write(
    message('caller', rpc.request(1, Buffer.from('ff', 'hex'))),
    message('caller', rpc.request(2, '')),
    message('caller', rpc.request(3, 'constructor')),
    message('caller', rpc.request(4, '__proto__')),
    message('caller', rpc.request(5, 'm')),
    message('caller', rpc.request(0, 'nobody waits for this')),
    message('caller', rpc.request(6, 'm')),
  )
  const answers: string[] = []
  while (answers.length < 6) {
    const [target, payload] = parted((await session.operation()).body)
    t.is(target, 'caller')
    const kind = payload[0] === 0x12 ? `error ${payload.readInt16LE(5)}` : `kind ${payload[0]}`
    answers.push(`${payload.readUInt32LE(1)} ${kind}`)
  }
  t.deepEqual(answers, [
    '1 error -32114',
    '2 error -32601',
    '3 error -32601',
    '4 error -32601',
    '5 kind 17',
    '6 kind 17',
  ])
})

/** Calls, and what the raw broker sees of it: the id, once it is acknowledged. */
async function called(client: Client, session: RawSession): Promise<{ call: Promise<unknown>; id: number }> {
  const call = client.call('callee', 'method')
  // Its failure may come before anybody looks.
  call.catch(() => undefined)
  const [target, payload] = parted((await session.acknowledged()).body)
  if (target !== 'callee' || payload[0] !== 0x01) throw new Error('this is no call')
  return { call, id: payload.readUInt32LE(1) }
}

test('C29: replies with another number or from another client are not believed', async (t) => {
  const { client, session, unharmed, faults } = await victim(t)
  const log = await recorded(client, session)
  const { call, id } = await called(client, session)
  const forged = Buffer.from([0xa1, 0x78])
  for (const number of [0, id + 1, id - 1, (id ^ 0x8000_0000) >>> 0, id + 0x1_0000, 0xffff_ffff]) {
    session.write(message('callee', rpc.reply(number, forged)), message('callee', rpc.error(number, -1)))
  }
  for (const sender of ['other', '', 'Callee', 'callee.', '.broker', 'victim']) {
    session.write(message(sender, rpc.reply(id, forged)), message(sender, rpc.error(id, -1, 'forged')))
  }
  // As a broadcast it is no RPC at all.
  session.write(message('callee', rpc.reply(id, forged), Event.BROADCAST))
  session.write(message('callee', rpc.reply(id, Buffer.from([0x2a]))))
  t.is(await soon(call, 'the reply'), 42)
  // Answered, so nobody waits for it any more.
  session.write(message('callee', rpc.reply(id, forged)), message('callee', rpc.error(id, -1)))
  const second = await called(client, session)
  t.not(second.id, id)
  session.write(
    message('callee', rpc.reply(id, forged)),
    message('callee', rpc.reply(second.id, Buffer.from([0x2b]))),
  )
  t.is(await soon(second.call, 'the second reply'), 43)
  t.deepEqual(log, [`broadcast callee ${rpc.reply(id, forged).toString('hex')}`])
  t.deepEqual(faults, [])
  await unharmed()
})

test('C29: a reply that comes too late answers nothing else', async (t) => {
  const { client, session } = await victim(t)
  const late = client.call('callee', 'method', undefined, { timeout: 20 })
  late.catch(() => undefined)
  const [, payload] = parted((await session.acknowledged()).body)
  await t.throwsAsync(soon(late, 'the deadline'), { code: 'ERR_BUS_TIMEOUT' })
  // The client asks whether cancelling is known, which stays unanswered.
  const [, query] = parted((await session.operation()).body)
  t.is(query.toString('latin1'), '\x11\0\0\0\0elbus.cancel?')
  const { call, id } = await called(client, session)
  t.not(id, payload.readUInt32LE(1))
  session.write(message('callee', rpc.reply(payload.readUInt32LE(1), Buffer.from([1]))))
  session.write(message('callee', rpc.reply(id, Buffer.from([2]))))
  t.is(await soon(call, 'the reply'), 2)
})

test('C47: error replies of any kind become errors', async (t) => {
  const { client, session, unharmed } = await victim(t)
  const cases: readonly (readonly [code: number, data: Uint8Array | string, expected: unknown])[] = [
    [-32603, '', undefined],
    [-32601, 'no such thing', 'no such thing'],
    [32767, 'ünïcode', 'ünïcode'],
    [-32768, Buffer.from('c1ff', 'hex'), Uint8Array.from([0xc1, 0xff])],
    [0, Buffer.from('ddffffffff', 'hex'), Uint8Array.from([0xdd, 0xff, 0xff, 0xff, 0xff])],
    [-32113, Buffer.from('81a16bcfffffffffffffffff', 'hex'), { k: 2n ** 64n - 1n }],
    [1, Buffer.alloc(100_000, 0x91), Uint8Array.from(Buffer.alloc(100_000, 0x91))],
  ]
  for (const [code, data, expected] of cases) {
    const { call, id } = await called(client, session)
    session.write(message('callee', rpc.error(id, code, data)))
    const error = await t.throwsAsync(soon(call, 'the error'), { instanceOf: RpcError })
    t.is(error.rpcCode, code)
    t.deepEqual(error.data instanceof Uint8Array ? Uint8Array.from(error.data) : error.data, expected)
    t.is(error.wireCode, code === -32113 ? 0x71 : undefined)
  }
  await unharmed()
})

test('a cancel from somebody else cancels nothing', async (t) => {
  const { client, session } = await victim(t)
  let signal: AbortSignal | undefined
  let finish: (() => void) | undefined
  client.serve({
    wait: (_params: unknown, context) => {
      signal = context.signal
      return new Promise<void>((resolve) => {
        finish = resolve
      })
    },
  })
  session.write(message('caller', rpc.request(9, 'wait')))
  await until(() => signal !== undefined, 'the call')
  // The handler wants to know when its caller leaves.
  await session.acknowledged()
  session.write(
    message('other', rpc.cancel(9)),
    message('caller', rpc.cancel(8)),
    message('caller', rpc.cancel(0)),
  )
  await roundTrip(client, session)
  t.false(signal?.aborted)
  session.write(message('caller', rpc.cancel(9)))
  await until(() => signal?.aborted === true, 'the cancel of the caller')
  finish?.()
})

test('C29: 65,537 forged replies with every number answer nothing', async (t) => {
  const { client, session, unharmed, faults } = await victim(t)
  const { call, id } = await called(client, session)
  let settled = false
  const settle = (): void => {
    settled = true
  }
  call.then(settle, settle)
  const forged = Buffer.from([0xa1, 0x78])
  let sent = 0
  for (let from = 0; from <= 0x1_0000; from += 256) {
    const replies: Buffer[] = []
    for (let number = from; number < Math.min(from + 256, 0x1_0001); number += 1) {
      // With the half of the number that the client does not count in, too.
      for (const one of [number, (id & 0xffff_0000) + number]) {
        replies.push(
          message('third', rpc.reply(one >>> 0, forged)),
          message('third', rpc.error(one >>> 0, -1)),
        )
      }
      sent += 1
    }
    if (!session.write(...replies)) await turn()
  }
  t.is(sent, 65_537)
  await roundTrip(client, session)
  t.false(settled)
  session.write(message('callee', rpc.reply(id, Buffer.from([0x2a]))))
  t.is(await soon(call, 'the genuine reply'), 42)
  t.deepEqual(faults, [])
  t.log(`C29: ${4 * sent} forged replies and errors of a third party: none believed`)
  await unharmed()
})

// ---- acknowledgements

test('acknowledgements nobody waits for are passed over', async (t) => {
  const { client, session, unharmed, faults } = await victim(t)
  const waiting = client.send('somebody', 'x', { ack: true })
  const { id } = await session.operation()
  const frames: Buffer[] = []
  for (const number of [
    0,
    1,
    id - 1,
    id + 1,
    id + 0x1_0000,
    (id | 0x8000_0000) >>> 0,
    0x8000_0000,
    0xffff_ffff,
  ]) {
    for (let code = 0; code < 256; code += 1) if (number !== id) frames.push(acknowledgement(number, code))
  }
  session.write(...frames, acknowledgement(id))
  await soon(waiting, 'the one that is waited for')
  session.write(acknowledgement(id), acknowledgement(id, 0x71))
  await roundTrip(client, session)
  t.true(client.connected)
  t.deepEqual(faults, [])
  await unharmed()
})

test('every code of an acknowledgement means something', async (t) => {
  const { client, session } = await victim(t)
  for (let code = 0; code < 256; code += 1) {
    const sent = client.send('somebody', 'x', { ack: true })
    const { id } = await session.operation()
    session.write(acknowledgement(id, code))
    if (code === 1) await soon(sent, 'done')
    else {
      const error = await t.throwsAsync(soon(sent, `code ${code}`), { instanceOf: BusError })
      t.is(error.wireCode, (code >= 0x71 && code <= 0x79) || code === 0xff ? code : 0x74, `code ${code}`)
    }
  }
})

// ---- MessagePack

/** Values that would cost far more than their bytes, or are none. */
const BOMBS: Readonly<Record<string, Buffer>> = {
  'an array of four thousand million': Buffer.from('ddffffffff', 'hex'),
  'a map of four thousand million': Buffer.from('dfffffffff', 'hex'),
  'a string of 4 GiB': Buffer.from('dbffffffff', 'hex'),
  'bytes of 4 GiB': Buffer.from('c6ffffffff', 'hex'),
  'an extension of 4 GiB': Buffer.from('c9ffffffff01', 'hex'),
  'a hundred thousand arrays in each other': Buffer.alloc(100_000, 0x91),
  'a hundred thousand maps in each other': Buffer.concat(Array(100_000).fill(Buffer.from('81a161', 'hex'))),
  'arrays that each announce 65,535': Buffer.concat(Array(100).fill(Buffer.from('dcffff', 'hex'))),
  'arrays in a row that each announce all that is left': Buffer.concat([
    Buffer.from('dd00001000', 'hex'),
    ...Array(100).fill(Buffer.from('dd00000400', 'hex')),
  ]),
  'a byte that is no type': Buffer.from('c1', 'hex'),
  'two values': Buffer.from('0101', 'hex'),
  'half a number': Buffer.from('cf0000', 'hex'),
  'a key that would be the prototype': Buffer.concat([
    Buffer.from([0x81, 0xa9]),
    Buffer.from('__proto__'),
    Buffer.from([0x80]),
  ]),
  'a map for a key': Buffer.from('818001', 'hex'),
}

test('C22: a result that is a bomb rejects its call alone', async (t) => {
  const { client, session, unharmed } = await victim(t)
  for (const [title, bomb] of Object.entries(BOMBS)) {
    const { call, id } = await called(client, session)
    session.write(message('callee', rpc.reply(id, bomb)))
    const error = await t.throwsAsync(soon(call, title), { code: 'ERR_BUS_PAYLOAD' }, title)
    t.true(error?.message.includes('callee'), error?.message)
  }
  const { call, id } = await called(client, session)
  session.write(message('callee', rpc.reply(id, Buffer.from('93010203', 'hex'))))
  t.deepEqual(await soon(call, 'a result behind them'), [1, 2, 3])
  await unharmed()
})

test('C22: params that are a bomb are refused before a handler sees them', async (t) => {
  const { client, session, faults, unharmed } = await victim(t)
  let handled = 0
  client.serve({
    m: () => {
      handled += 1
    },
  })
  for (const [title, bomb] of Object.entries(BOMBS)) {
    session.write(message('caller', rpc.request(3, 'm', bomb)))
    const [target, payload] = parted((await session.operation()).body)
    t.is(target, 'caller')
    t.is(payload[0], 0x12, title)
    t.is(payload.readInt16LE(5), -32700, title)
  }
  t.is(handled, 0)
  t.deepEqual(faults, [])
  await unharmed()
})

test('C22: a message that is a bomb throws at whoever decodes it', async (t) => {
  const { client, session } = await victim(t)
  const messages = client.messages()[Symbol.asyncIterator]()
  for (const [title, bomb] of Object.entries(BOMBS)) {
    // As a broadcast, because some begin with a byte of the RPC layer.
    session.write(message('a', bomb, Event.BROADCAST))
    const { value } = await soon(messages.next(), 'a message')
    t.throws(() => value?.decode(), { instanceOf: Error }, title)
  }
})

test('announcements of the broker that make no sense are no fault of a handler', async (t) => {
  const { client, session, faults, unharmed } = await victim(t)
  let signal: AbortSignal | undefined
  client.serve({
    wait: (_params: unknown, context) => {
      signal = context.signal
      return new Promise(() => undefined)
    },
  })
  session.write(message('caller', rpc.request(9, 'wait')))
  await session.acknowledged()
  for (const bytes of [
    '',
    'c1',
    'c0',
    '01',
    '80',
    '90',
    'a161',
    '81a173a5',
    'ddffffffff',
    '82a173a5756e726567a16401',
  ]) {
    session.write(publication('.broker', '.broker/info', Buffer.from(bytes, 'hex')))
  }
  // Only the broker itself announces.
  const left = Buffer.concat([Buffer.from('82a173a5756e726567a164a6', 'hex'), Buffer.from('caller')])
  session.write(publication('other', '.broker/info', left))
  await roundTrip(client, session)
  t.false(signal?.aborted)
  session.write(publication('.broker', '.broker/info', left))
  await until(() => signal?.aborted === true, 'the caller has left')
  t.deepEqual(faults, [])
  await unharmed()
})

// A broker that sends too much, reads too little, or fills the tables and arenas behind our client: memory stays bounded
// and nothing is lost or mixed up. One test at a time, because memory is measured and arenas are filled to the byte.

import path from 'node:path'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import test, { type ExecutionContext } from 'ava'
import { connect } from 'elbus-node'
import { Program } from './support/program'
import { acknowledgement, message, parted, publication, RawBroker, rpc } from './support/raw-broker'
import { turn } from './support/raw-peer'
import { socketPath } from './support/temp'
import { closing } from './support/transports'
import { bystander, codeOf, end, noWarnings, open, recorded, victim } from './support/victim'
import { soon, until } from './support/within'

/** Bytes of an arena, in which the package delivers; messages are views of it. */
const ARENA_BYTES = 256 << 10
/** Bytes of a record in front of its payload there. */
const RECORD_BYTES = 24
/** Places of the tables of names, both ways. */
const NAMES = 16_384

noWarnings()

// ---- amounts

test.serial('a broker that reads nothing costs a bounded queue', async (t) => {
  const queueBytes = 1 << 20
  const { client, session, unharmed } = await victim(t, { queueBytes })
  session.peer.socket.pause()
  const payload = new Uint8Array(16 << 10).fill(7)
  let sent = 0
  while (client.send('somebody', payload)) {
    sent += 1
    await turn()
    if (sent > 10_000) throw new Error('the client never says that it should wait')
  }
  sent += 1
  const drained = client.drained()
  t.throws(
    () => {
      // What is in the sockets on the way is no part of the queue.
      for (let index = 0; index < 1_000; index += 1) {
        client.send('somebody', payload)
        client.flush().catch(() => undefined)
        sent += 1
      }
    },
    { code: 'ERR_BUS_OVERFLOW' },
  )
  t.true(sent * payload.length < queueBytes + (4 << 20), `${sent} messages of 16 KiB were taken`)
  t.true(client.connected)
  await unharmed()
  session.peer.socket.resume()
  await soon(drained, 'the client may go on')
  let arrived = 0
  while (arrived < sent) {
    const { flags, body, id } = await session.operation()
    if ((flags & 0x3f) === 0x12) arrived += 1
    else session.write(acknowledgement(id))
    t.true(body.length > 0)
  }
  t.true(client.connected)
})

test.serial('a client can be closed while its broker reads nothing', async (t) => {
  const { client, session, unharmed } = await victim(t)
  session.peer.socket.pause()
  while (client.send('somebody', new Uint8Array(16 << 10).fill(7))) await turn()
  await soon(client.close(), 'the client closes')
  t.is(await end(client), undefined)
  await unharmed()
})

test.serial('answers to a broker that reads nothing are given up', async (t) => {
  const { client, session, faults, unharmed } = await victim(t, { queueBytes: 1 << 20 })
  client.serve({ large: () => new Uint8Array(4 << 10) })
  session.peer.socket.pause()
  const request = message('caller', rpc.request(1, 'large'))
  const many = Buffer.concat(Array(1_000).fill(request))
  for (let index = 0; index < 10; index += 1) {
    session.peer.write(many)
    await turn()
  }
  await until(() => faults.length > 0, 'the queue is full')
  t.true(faults.every((fault) => codeOf(fault) === 'ERR_BUS_OVERFLOW'))
  t.true(client.connected)
  await unharmed()
  session.peer.discard()
  await soon(client.drained(), 'the client may go on')
  t.true(client.connected)
})

/** Memory that is in use after what can be is collected, in bytes. */
function memory(): { arrayBuffers: number; heapUsed: number } {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  collect()
  collect()
  return process.memoryUsage()
}

/** A broker in a process of its own that sends one frame as fast as the client reads. */
async function flooder(t: ExecutionContext, frame: Buffer): Promise<string> {
  const address = socketPath(t)
  const file = path.join(__dirname, 'support', 'raw-broker.js')
  await new Program(t, process.execPath, [file, address, frame.toString('hex')]).expect('listening')
  return `unix:${address}`
}

test.serial('a broker that floods costs neither memory nor the turn of others', async (t) => {
  const unharmed = await bystander(t)
  const before = memory()
  const client = closing(
    t,
    await connect(await flooder(t, message('a', Buffer.alloc(100, 7))), { name: 'victim' }),
  )
  const messages = client.messages()
  let slow = 0
  client.on('slow', () => {
    slow += 1
  })
  await until(() => messages.dropped > 0, 'the queue is full')
  // Timers and other clients have their turn while it goes on.
  for (let round = 0; round < 20; round += 1) {
    const { dropped } = messages
    await new Promise((resolve) => setTimeout(resolve, 1))
    await unharmed()
    await until(() => messages.dropped > dropped, 'the flood goes on')
  }
  await until(() => messages.dropped > 1_000_000, 'a million messages')
  t.is(slow, 1)
  t.is(messages.pending, 65_536)
  const after = memory()
  const grown = after.arrayBuffers - before.arrayBuffers + (after.heapUsed - before.heapUsed)
  t.true(grown < 64 << 20, `${grown} bytes more are in use`)
  await soon(client.close(), 'the client closes in the middle of it')
  await unharmed()
})

test.serial('what waits in a queue costs what it says', async (t) => {
  const { client, session } = await victim(t)
  let consumed = 0
  const big = client.subscribe('big', {
    callback: () => {
      consumed += 1
    },
  })
  await session.acknowledged()
  const rare = client.subscribe('rare')
  await session.acknowledged()
  await soon(Promise.all([big.ready, rare.ready]), 'the subscriptions')
  const before = memory()
  const round = Buffer.concat([
    publication('a', 'big', Buffer.alloc(200 << 10)),
    publication('a', 'rare', 'x'.repeat(100)),
  ])
  const rounds = 500
  for (let index = 0; index < rounds; index += 1) {
    session.peer.write(round)
    await until(() => consumed > index, 'a round')
  }
  await until(() => rare.pending === rounds, 'all of them')
  const grown = memory().arrayBuffers - before.arrayBuffers
  // A hundred bytes each, and not the memory around them in which they came.
  t.true(grown < 16 << 20, `${grown} bytes are in use for ${rounds * 100} bytes of payload`)
})

test.serial('calls that pour in find a bound', async (t) => {
  const { client, session, unharmed } = await victim(t)
  let running = 0
  client.serve(
    {
      forever: () => {
        running += 1
        return new Promise(() => undefined)
      },
    },
    { concurrency: 100 },
  )
  session.write(...[...Array(1_000).keys()].map((id) => message('caller', rpc.request(id + 1, 'forever'))))
  for (let index = 0; index < 900; index += 1) {
    const [, payload] = parted((await session.operation()).body)
    t.is(payload[0], 0x12)
    t.is(payload.readInt16LE(5), -32118)
  }
  t.is(running, 100)
  await unharmed()
})

// ---- the boundary's tables and arenas, from outside

test.serial('a login is not lost where an arena ends', async (t) => {
  const broker = await RawBroker.listen(t)
  const { client, session } = await open(t, broker)
  let at = 0
  let received = 0
  client.messages({
    callback: ({ data }) => {
      received += 1
      // Records begin at multiples of four.
      at = (data.byteOffset + data.byteLength + 3) & ~3
    },
  })
  // The room that is left goes through all that is too little for a record, and some that is enough.
  for (let room = 0; room <= RECORD_BYTES; room += 4) {
    const place = async (payload: number): Promise<void> => {
      const wanted = received + 1
      session.write(message('a', Buffer.alloc(payload, 7)))
      await until(() => received === wanted, 'a message')
    }
    await place(0)
    // The last one of an arena would not fit in.
    while (ARENA_BYTES - at < RECORD_BYTES + room) await place(0)
    await place(ARENA_BYTES - at - RECORD_BYTES - room)
    t.is(ARENA_BYTES - at, room, 'the arena ends where it should')
    const connecting = connect(broker.address, { name: 'late', timeout: 2_000 })
    await broker.letIn()
    await t.notThrowsAsync(
      soon(
        connecting.then((late) => late.close()),
        `a login with ${room} bytes left`,
      ),
    )
  }
})

test.serial('names too long for an arena are delivered, or end the client', async (t) => {
  const unharmed = await bystander(t)
  const broker = await RawBroker.listen(t)
  for (const [sender, topic, payload] of [
    [100, 100, 400_000],
    [60_000, 60_000, 60_000],
    [70_000, 70_000, 0],
    [1_000_000, 10, 10],
    [10, 1_000_000, 10],
    [100_000, 100_000, 100_000],
    [200_000, 300_000, 1],
    [60_000, 300_000, 1_000_000],
  ] as const) {
    const { client, session } = await open(t, broker)
    const log = await recorded(client, session)
    session.write(
      publication('s'.repeat(sender), 't'.repeat(topic), Buffer.alloc(payload)),
      message('a', rpc.request(0, 'x'.repeat(topic), Buffer.alloc(payload))),
      message('a', 'end'),
    )
    const title = `sender of ${sender}, topic of ${topic}, payload of ${payload} bytes`
    const done = (): boolean => log.at(-1)?.startsWith('message a') === true || !client.connected
    await t.notThrowsAsync(until(done, title, 5_000))
    if (client.connected) t.is(log.filter((line) => line.startsWith('publish ')).length, 1, title)
    else t.is(codeOf(await end(client)), 'ERR_BUS_PROTOCOL', title)
    await client.close()
  }
  await unharmed()
})

test.serial('no number of topics makes one name stand for another', async (t) => {
  const { client, session } = await victim(t)
  const wrong: string[] = []
  let received = 0
  const subscription = client.subscribe('#', {
    callback: ({ sender, topic, data }) => {
      received += 1
      const payload = Buffer.from(data).toString()
      if (sender !== 'sender' || topic !== payload) wrong.push(`${sender} ${topic} ${payload}`)
    },
  })
  await session.acknowledged()
  await subscription.ready
  const count = 2 * NAMES
  for (let index = 0; index < count; index += 1)
    session.write(publication('sender', `topic/${index}`, `topic/${index}`))
  await until(() => received === count, 'all publications')
  t.deepEqual(wrong, [])
})

test.serial('no number of methods makes a call go astray', async (t) => {
  const { client, session } = await victim(t)
  const count = 2 * NAMES
  const calls: Promise<void>[] = []
  for (let index = 0; index < count; index += 1) {
    calls.push(client.call('callee', `method/${index}`, undefined, { reply: false }))
  }
  const wrong: string[] = []
  for (let index = 0; index < count; index += 1) {
    const [target, payload] = parted((await session.acknowledged()).body)
    const [method] = parted(payload.subarray(5))
    if (target !== 'callee' || method !== `method/${index}`) wrong.push(`${target} ${method} ${index}`)
  }
  await soon(Promise.all(calls), 'all calls')
  t.deepEqual(wrong, [])
})

test.serial('an empty method stays empty beside long names', async (t) => {
  const { client, session } = await victim(t)
  client.publish('t'.repeat(1_000), 'x')
  await session.operation()
  client.call('callee', '', undefined, { timeout: Number.POSITIVE_INFINITY }).catch(() => undefined)
  const [target, payload] = parted((await session.operation()).body)
  t.is(target, 'callee')
  t.is(parted(payload.subarray(5))[0], '')
})

// Frames with something wrong at random, the same ones each time: from a broker to our client, and from clients to a
// broker in this process.

import test from 'ava'
import { connect } from 'elbus-node'
import { GREETING } from './support/fake-broker'
import { acknowledgement, Event, message, publication, RawBroker, rpc, text } from './support/raw-broker'
import { operation } from './support/raw-client'
import { RawPeer } from './support/raw-peer'
import { socketPath } from './support/temp'
import { closing, startBroker } from './support/transports'
import { bystander, codeOf, end, noWarnings, open, type Prey, recorded } from './support/victim'
import { soon, until } from './support/within'

/** Most bytes of a frame's body that the client takes. */
const LIMIT = 4_096

noWarnings()

/** Numbers that look random and are the same each time (mulberry32). */
class Random {
  #state: number

  constructor(seed: number) {
    this.#state = seed
  }

  /** An integer from 0 to `below` less one. */
  below(below: number): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * below)
  }

  of<T>(list: readonly T[]): T {
    return list[this.below(list.length)] as T
  }

  bytes(count: number): Buffer {
    return Buffer.from(Array.from({ length: count }, () => this.below(256)))
  }

  /** A frame with something wrong, most of the time; its length stands at `lengthAt`. */
  mutated(frame: Buffer, lengthAt: number): Buffer {
    const bytes = Buffer.from(frame)
    switch (this.below(16)) {
      case 0:
      case 1:
      case 2:
        // Anywhere, so that names and payloads are hit as well as heads.
        bytes[this.below(bytes.length)] = this.below(256)
        return bytes
      case 3:
      case 4:
        // Behind the head.
        if (bytes.length > 9)
          bytes[9 + this.below(bytes.length - 9)] = this.of([0x00, 0xff, 0x80, 0xc3, 0x2f, 0x13])
        return bytes
      case 5:
        bytes[lengthAt] = (bytes[lengthAt] as number) + this.of([1, -1, 2, 7, 128])
        return bytes
      case 6:
        bytes.writeUInt32LE(this.below(2 ** 32), lengthAt)
        return bytes
      case 7:
        return bytes.subarray(0, this.below(bytes.length))
      case 8:
        return Buffer.concat([bytes, this.bytes(1 + this.below(8))])
      case 9:
        bytes[0] = this.below(256)
        return bytes
      default:
        return bytes
    }
  }
}

const fatal = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** What a client should make of bytes that begin with a frame, by a second reading of the protocol. */
function expected(bytes: Buffer, limit: number): { log: string[]; end: 'broken' | 'inside' | 'whole' } {
  const log: string[] = []
  let at = 0
  const field = (from: number, to: number): [string, number] => {
    const nul = bytes.subarray(from, to).indexOf(0)
    if (nul < 0) throw new Error('no NUL')
    return [fatal.decode(bytes.subarray(from, from + nul)), from + nul + 1]
  }
  try {
    while (at < bytes.length) {
      if (bytes.length - at < 6) return { log, end: 'inside' }
      const kind = bytes[at] as number
      const begin = at + 6
      if (kind === Event.PING || kind === Event.ACK) {
        at = begin
        continue
      }
      const length = bytes.readUInt32LE(at + 1)
      if (length > limit) return { log, end: 'broken' }
      if (bytes.length - begin < length) return { log, end: 'inside' }
      at = begin + length
      if (kind !== Event.MESSAGE && kind !== Event.BROADCAST && kind !== Event.PUBLISH)
        return { log, end: 'broken' }
      const [sender, behind] = field(begin, at)
      if (kind === Event.PUBLISH) {
        const [topic, payload] = field(behind, at)
        if (topic.startsWith('.broker/') && sender !== '.broker') continue
        log.push(`publish ${sender} ${topic} ${bytes.toString('hex', payload, at)}`)
      } else if (kind === Event.BROADCAST)
        log.push(`broadcast ${sender} ${bytes.toString('hex', behind, at)}`)
      else log.push(...asRpc(sender, bytes.subarray(behind, at)))
    }
  } catch {
    return { log, end: 'broken' }
  }
  return { log, end: 'whole' }
}

/** What a client that serves `m` makes of a message. */
function asRpc(sender: string, payload: Buffer): string[] {
  switch (payload[0]) {
    case 0x00:
      return [`notification ${sender} ${payload.toString('hex', 1)}`]
    case 0x01: {
      const isCall = payload.length >= 7 && payload[5] === 0x6d && payload[6] === 0
      return isCall ? [`request ${sender} ${payload.toString('hex', 7)}`] : []
    }
    case 0x11:
    case 0x12:
    case 0x13:
      return []
    default:
      return [`message ${sender} ${payload.toString('hex')}`]
  }
}

const EVENTS: readonly Buffer[] = [
  Buffer.alloc(6),
  acknowledgement(1),
  acknowledgement(0x8000_0001, 0x71),
  message('some.client', 'payload'),
  message('grün', Buffer.from('93010203', 'hex')),
  message('some.client', 'everybody', Event.BROADCAST),
  publication('some.client', 'a/b/c', 'news'),
  publication('.broker', '.broker/warn', Buffer.from('81a173a873687574646f776e', 'hex')),
  publication('some.client', '.broker/info', 'forged'),
  message('some.client', rpc.notification('note')),
  message('some.client', rpc.request(7, 'm', Buffer.from('92c3c0', 'hex'))),
  message('some.client', rpc.request(0, 'm', Buffer.from('c3', 'hex'))),
  message('some.client', rpc.request(8, 'other')),
  message('some.client', rpc.reply(0x1_0001, Buffer.from('c3', 'hex'))),
  message('some.client', rpc.reply(0, 'elbus.cancel?')),
  message('some.client', rpc.error(0x1_0001, -32603, 'why')),
  message('some.client', rpc.cancel(7)),
]

/** Set for a long run: ten times the frames. */
const isLong = process.env.ELBUS_LONG === '1'
const BATCHES = isLong ? 25_000 : 2_500
const CONNECTIONS = isLong ? 5_000 : 500

test(`C31: ${BATCHES * 40} frames with something wrong do what they should and no more`, async (t) => {
  t.timeout(isLong ? 1_800_000 : 110_000)
  const seed = 20_260_201
  t.log(`seed ${seed}`)
  const random = new Random(seed)
  const unharmed = await bystander(t)
  const broker = await RawBroker.listen(t)
  const ends = { broken: 0, inside: 0, whole: 0 }
  let frames = 0
  let deliveries = 0
  let now: (Prey & { log: string[] }) | undefined
  for (let batch = 0; batch < BATCHES; batch += 1) {
    if (now === undefined) {
      const opened = await open(t, broker, { frameBytes: LIMIT, pingInterval: 60_000 })
      now = { ...opened, log: await recorded(opened.client, opened.session) }
      opened.session.peer.discard()
    }
    const { client, session, log, faults } = now
    // Calm ones in between, so that a client lives to see more than one batch.
    const calm = random.below(4) > 0 ? 40 : random.below(40)
    const bytes = Buffer.concat(
      Array.from({ length: 40 }, (_, index) => {
        const frame = random.of(EVENTS)
        return index < calm && random.below(20) > 0 ? frame : random.mutated(frame, 1)
      }),
    )
    frames += 40
    const should = expected(bytes, LIMIT)
    ends[should.end] += 1
    const cut = random.below(4) === 0 ? random.below(bytes.length) : bytes.length
    await session.peer.writeSplit(bytes.subarray(0, cut), bytes.subarray(cut))
    if (should.end === 'whole') {
      session.write(message('sentinel', `${batch}`))
      should.log.push(`message sentinel ${Buffer.from(`${batch}`).toString('hex')}`)
      await until(() => log.length >= should.log.length || !client.connected, `batch ${batch}`)
    } else {
      if (should.end === 'inside') session.peer.end()
      const error = await end(client)
      const code = should.end === 'broken' ? 'ERR_BUS_PROTOCOL' : 'ERR_BUS_DISCONNECTED'
      if (codeOf(error) !== code) t.fail(`batch ${batch}: ${code} was expected, not ${error?.message}`)
      now = undefined
    }
    // Compared as one text: a hundred thousand assertions would take longer than what they assert.
    if (log.join('\n') !== should.log.join('\n')) t.deepEqual(log, should.log, `batch ${batch}`)
    deliveries += log.splice(0).length
    if (faults.length > 0) t.deepEqual(faults, [], `batch ${batch}`)
    if (batch % 500 === 0) await unharmed()
  }
  t.is(frames, BATCHES * 40)
  t.log(
    `C31: ${frames} frames from a broker: ${deliveries} deliveries; batches that broke the protocol ${ends.broken}, ended inside a frame ${ends.inside}, whole ${ends.whole}`,
  )
  t.true(ends.broken > 100 && ends.inside > 10 && ends.whole > 100, 'all three kinds were seen')
  t.true(deliveries > 20_000)
  await unharmed()
})

const OPERATIONS: readonly Buffer[] = [
  Buffer.alloc(9),
  operation(0x52, 'bystander\0payload'),
  operation(0x12, 'nobody\0payload'),
  operation(0x53, 'bystander.*\0payload'),
  operation(0x41, 'a/b/c\0news'),
  operation(0x01, '.broker/info\0forged'),
  operation(0x42, 'a/#\0b/+/c\0+'),
  operation(0x43, 'a/#'),
  operation(0x44, 'a/no/#'),
  operation(0x45, 'a/no/#'),
  operation(0x46, 'a/b/c\0bystander\0news'),
  operation(0x52, Buffer.concat([text('.broker'), rpc.request(1, 'client.list')])),
  operation(0x92, Buffer.concat([text('.broker'), rpc.request(1, 'stats')])),
  operation(0x52, Buffer.concat([text('bystander'), rpc.request(1, 'echo', Buffer.from('93010203', 'hex'))])),
  operation(0xd2, Buffer.concat([text('bystander'), rpc.reply(1, 'forged')])),
]

test(`C31: ${CONNECTIONS * 20} frames with something wrong leave a broker in this process as it was`, async (t) => {
  t.timeout(isLong ? 1_800_000 : 110_000)
  const random = new Random(7)
  const broker = await startBroker(t)
  const address = await broker.listen(`unix:${socketPath(t)}`)
  const near = closing(t, await broker.client('bystander'))
  const far = closing(t, await connect(address, { name: 'far' }))
  near.serve({ echo: (params: unknown) => params })
  near.messages({ callback: () => undefined })
  const faults: unknown[] = []
  for (const client of [near, far]) client.on('fault', (fault) => faults.push(fault))
  const told: string[] = []
  broker.on('fault', ({ source, reason }) => told.push(`${source}: ${reason}`))
  let frames = 0
  for (let batch = 0; batch < CONNECTIONS; batch += 1) {
    const peer = await RawPeer.connect(t, address)
    peer.discard()
    const login = Buffer.concat([GREETING, Buffer.from([6, 0]), Buffer.from('hostil')])
    // Sometimes the login is wrong as well.
    const parts = [random.below(10) === 0 ? random.mutated(login, 0) : login]
    for (let index = 0; index < 20; index += 1) parts.push(random.mutated(random.of(OPERATIONS), 5))
    frames += 20
    const bytes = Buffer.concat(parts)
    const cut = random.below(bytes.length)
    await peer.writeSplit(bytes.subarray(0, cut), bytes.subarray(cut))
    if (random.below(4) === 0) peer.destroy()
    else peer.end()
    await soon(peer.ended, 'the broker lets it go')
    await until(() => broker.clients('hostil').length === 0, 'the name is free again')
  }
  t.is(frames, CONNECTIONS * 20)
  t.deepEqual(await soon(far.call('bystander', 'echo', [1, 2]), 'a call'), [1, 2])
  t.deepEqual(
    broker.clients().map(({ name }) => name),
    ['.broker', 'bystander', 'far'],
  )
  t.true(told.length > 0 && told.every((fault) => fault.startsWith('local: ')), told[0])
  t.deepEqual(faults, [])
  t.log(`C31: ${frames} frames to a broker in ${CONNECTIONS} connections, ${told.length} faults told`)
})

// What crossing into Rust and back costs, piece by piece: the addon and the batch of the package themselves, without the
// public interface around them. Two links to a broker in this process; one publishes, the other is subscribed.
import { createRequire } from 'node:module'
import { summary } from '../statistics.mjs'
import { fail, lasting, leave, payloads, settings, tell } from './stage.mjs'

const require = createRequire(import.meta.url)
const { NativeBoundary, NativeBroker, topicMatches } = require('../../npm/binding.js')
const { Batch, HEAD, Kind, State } = require('../../dist/batch.js')

const { topic, payload, warmUp, duration } = settings
/** As in `src/boundary.ts`. */
const ARENA_BYTES = 256 << 10
/** Calls of a round, and records of a batch: a burst such as the other loads in one process have. */
const CALLS = 1_000
const RECORDS = 128
/** Batches of a round: as many as fill an arena. */
const BATCHES = Math.floor((ARENA_BYTES - (4 << 10)) / ((HEAD + payload + 3) & ~3) / RECORDS)

const state = new Uint32Array(State.WORDS)
const crossings = {}
const batch = new Batch((bytes, external) => crossings.submit(bytes, external))
const native = new NativeBoundary(batch.bytes, state, () => undefined, crossings)
const broker = NativeBroker.start(native, { forceRegister: false, coreRpc: false })
const publisher = native.attach(broker.number, 'publisher', true)
const subscriber = native.attach(broker.number, 'subscriber', true)
batch.write(Kind.SUBSCRIBE, 0, subscriber, '', '', 0, 0, topic)
batch.submit()

const bytes = payloads(payload)
let received = 0

/** Reads the records of an arena as the package does: their words, and a view of each payload. */
function read(arena, words, from, end) {
  for (let at = from; at < end; ) {
    const word = at >>> 2
    if ((words[word + 1] & 0xff) === Kind.PUBLISH) {
      const data = new Uint8Array(arena.buffer, at + HEAD, words[word + 5])
      if (data.length !== payload || data[0] !== (received & 0xff))
        fail(`record ${received} is lost or spoilt`)
      received += 1
    }
    at += words[word]
  }
}

/** Nanoseconds of each piece. */
function round() {
  const begin = performance.now()
  for (let count = 0; count < CALLS; count += 1) crossings.submit(0, undefined)
  const called = performance.now()
  for (let count = 0; count < CALLS; count += 1) topicMatches(topic, topic)
  const bound = performance.now()

  const spent = { write: 0, submit: 0, collect: 0, read: 0 }
  const arena = new Uint8Array(ARENA_BYTES)
  const words = new Uint32Array(arena.buffer)
  let at = 0
  for (let batches = 0; batches < BATCHES; batches += 1) {
    const expected = received + RECORDS
    const from = performance.now()
    for (let number = received; number < expected; number += 1) {
      batch.write(Kind.PUBLISH, 0, publisher, topic, '', 0, 0, bytes[number & 0xff])
    }
    const written = performance.now()
    batch.submit()
    const submitted = performance.now()
    const end = crossings.collect(arena, at)
    const collected = performance.now()
    read(arena, words, at, end)
    const over = performance.now()
    if (received !== expected) fail(`collected up to ${received} of ${expected}`)
    at = end
    spent.write += written - from
    spent.submit += submitted - written
    spent.collect += collected - submitted
    spent.read += over - collected
  }
  const ofRecord = ([piece, milliseconds]) => [piece, (milliseconds / BATCHES / RECORDS) * 1e6]
  return {
    call: ((called - begin) / CALLS) * 1e6,
    bound: ((bound - called) / CALLS) * 1e6,
    ...Object.fromEntries(Object.entries(spent).map(ofRecord)),
  }
}

function run(isOver) {
  const rounds = []
  while (!isOver()) rounds.push(round())
  // Whatever else the machine does falls into single rounds, so the middle one says what it costs.
  const middle = (key) => summary(rounds.map((one) => one[key])).median
  return Object.fromEntries(Object.keys(rounds[0]).map((key) => [key, middle(key)]))
}

run(lasting(warmUp))
tell('measured', run(lasting(duration)))
await leave(() => process.exit(0))

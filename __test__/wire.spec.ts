// Recorded conversations with the reference brokers, replayed byte for byte against a broker in this process. The twin
// of `crates/broker/tests/support/replay.rs`, which says what each step means.

import { readFileSync } from 'node:fs'
import path from 'node:path'
import test, { type ExecutionContext } from 'ava'
import type { Broker } from 'elbus-node'
import { RawPeer } from './support/raw-peer'
import { socketPath } from './support/temp'
import { startBroker } from './support/transports'
import { soon, until } from './support/within'

/** One step of a conversation; a client connects at its first. */
interface Step {
  readonly client?: string
  readonly send?: string
  readonly expect?: string
  readonly expect_unordered?: readonly string[]
  readonly expect_nothing_ms?: number
  readonly expect_close?: true
  readonly close?: true
  readonly sleep_ms?: number
}

interface Case {
  readonly name: string
  /** Which broker it was recorded from. */
  readonly broker: 'both' | 'busrt-0.5.6' | 'elbus-0.2.21'
  readonly steps: readonly Step[]
}

const file = path.join(__dirname, '..', 'crates', 'protocol', 'tests', 'wire-vectors.json')
const recorded = JSON.parse(readFileSync(file, 'utf8')) as readonly Case[]
// Where the two differ, BUS/RT is followed.
const cases = recorded.filter(({ broker }) => broker === 'both' || broker === 'busrt-0.5.6')

/** How long an expected answer may take, in milliseconds. */
const REPLY_WAIT = 3_000
/** Greeting and two results come in front of the frames. */
const HANDSHAKE_BYTES = 5
const HEADER_BYTES = 6
const ACK = 0xfe

/** What one client of a conversation receives: handshake bytes and whole frames, keep-alives taken out. */
class Stream {
  readonly peer: RawPeer
  #raw = Buffer.alloc(0)
  #sorted = Buffer.alloc(0)
  #handshake = 0

  constructor(peer: RawPeer) {
    this.peer = peer
  }

  /** Sorts what has arrived. */
  #sort(): void {
    this.#raw = Buffer.concat([this.#raw, this.peer.takeReady()])
    while (this.#raw.length > 0) {
      let count = Math.min(this.#raw.length, HANDSHAKE_BYTES - this.#handshake)
      this.#handshake += count
      if (count === 0) {
        if (this.#raw.length < HEADER_BYTES) return
        count = frameBytes(this.#raw)
        if (this.#raw.length < count) return
        if (this.#raw.subarray(0, HEADER_BYTES).every((byte) => byte === 0)) {
          this.#raw = this.#raw.subarray(count)
          continue
        }
      }
      this.#sorted = Buffer.concat([this.#sorted, this.#raw.subarray(0, count)])
      this.#raw = this.#raw.subarray(count)
    }
  }

  /** The next `count` bytes, fewer if they do not come in time. */
  async #take(count: number): Promise<Buffer> {
    const deadline = performance.now() + REPLY_WAIT
    this.#sort()
    while (this.#sorted.length < count && !this.peer.hasEnded && performance.now() < deadline) {
      await this.peer.more(deadline - performance.now())
      this.#sort()
    }
    const taken = this.#sorted.subarray(0, count)
    this.#sorted = this.#sorted.subarray(taken.length)
    return taken
  }

  /** What was not as expected, or undefined. */
  async play(step: Step): Promise<string | undefined> {
    if (step.send !== undefined) this.peer.write(Buffer.from(step.send, 'hex'))
    else if (step.expect !== undefined) {
      const got = await this.#take(step.expect.length / 2)
      const end = this.peer.hasEnded ? ' then the end' : ''
      if (!fits(step.expect, got)) return `expected ${step.expect}, got ${got.toString('hex')}${end}`
    } else if (step.expect_unordered !== undefined) return this.#unordered([...step.expect_unordered])
    else if (step.expect_nothing_ms !== undefined) return this.#nothing(step.expect_nothing_ms)
    else if (step.expect_close === true) return this.#close()
    else if (step.close === true) this.peer.destroy()
    else return 'no such step'
    return undefined
  }

  async #unordered(masks: string[]): Promise<string | undefined> {
    while (masks.length > 0) {
      const head = await this.#take(HEADER_BYTES)
      const body =
        head.length < HEADER_BYTES ? head.subarray(0, 0) : await this.#take(frameBytes(head) - HEADER_BYTES)
      const frame = Buffer.concat([head, body])
      const hit = masks.findIndex((mask) => fits(mask, frame))
      if (hit < 0) return `expected one of ${masks.join(', ')}, got ${frame.toString('hex')}`
      masks.splice(hit, 1)
    }
    return undefined
  }

  async #nothing(ms: number): Promise<string | undefined> {
    const deadline = performance.now() + ms
    this.#sort()
    while (this.#sorted.length === 0 && !this.peer.hasEnded && performance.now() < deadline) {
      await this.peer.more(deadline - performance.now())
      this.#sort()
    }
    if (this.#sorted.length > 0) return `expected nothing, got ${this.#sorted.toString('hex')}`
    return this.peer.hasEnded ? 'expected silence, the connection was closed' : undefined
  }

  async #close(): Promise<string | undefined> {
    const deadline = performance.now() + REPLY_WAIT
    while (!this.peer.hasEnded && performance.now() < deadline)
      await this.peer.more(deadline - performance.now())
    this.#sort()
    const rest = Buffer.concat([this.#sorted, this.#raw])
    if (rest.length > 0) return `expected the end, got ${rest.toString('hex')}`
    return this.peer.hasEnded ? undefined : 'expected the end, the connection stayed open'
  }
}

/** Bytes of the frame whose header is at the front. */
function frameBytes(bytes: Buffer): number {
  return HEADER_BYTES + (bytes[0] === ACK ? 0 : bytes.readUInt32LE(1))
}

/** True if bytes are those of a mask, where `??` stands for any byte. */
function fits(mask: string, bytes: Buffer): boolean {
  const digits = bytes.toString('hex')
  return (
    mask.length === digits.length &&
    [...mask].every((digit, index) => digit === '?' || digit === digits[index])
  )
}

/** Plays one conversation; what was not as expected, or undefined. */
async function play(
  t: ExecutionContext,
  address: string,
  steps: readonly Step[],
): Promise<string | undefined> {
  const streams = new Map<string, Stream>()
  let failure: string | undefined
  for (const [index, step] of steps.entries()) {
    if (step.sleep_ms !== undefined) {
      // A pause in the record, part of what is replayed.
      const ms = step.sleep_ms
      await new Promise((resolve) => setTimeout(resolve, ms))
      continue
    }
    const client = step.client ?? ''
    const stream = streams.get(client) ?? new Stream(await RawPeer.connect(t, address))
    streams.set(client, stream)
    failure = await stream.play(step)
    if (failure !== undefined) {
      failure = `step ${index + 1}, client ${client}: ${failure.slice(0, 400)}`
      break
    }
  }
  for (const { peer } of streams.values()) peer.end()
  await Promise.all([...streams.values()].map(({ peer }) => soon(peer.ended, 'the broker lets a client go')))
  return failure
}

/** Plays all conversations, each to its first failure. */
async function replay(t: ExecutionContext, broker: Broker, address: string): Promise<void> {
  const failures: string[] = []
  for (const { name, steps } of cases) {
    const failure = await play(t, address, steps)
    if (failure !== undefined) failures.push(`${name}: ${failure}`)
    // The next one meets no leftovers of this one.
    await until(() => broker.clients().length === 1, `the clients of ${name} are gone`)
  }
  t.log(`${cases.length - failures.length} of ${cases.length} conversations replayed`)
  t.deepEqual(failures, [])
}

test('there are as many recorded conversations as there should be', (t) => {
  t.is(cases.length, 129)
})

test('a broker in this process answers as recorded over a UNIX socket', async (t) => {
  const broker = await startBroker(t)
  await replay(t, broker, await broker.listen(`unix:${socketPath(t)}`))
})

test('a broker in this process answers as recorded over TCP', async (t) => {
  const broker = await startBroker(t)
  await replay(t, broker, await broker.listen('tcp://127.0.0.1:0'))
})

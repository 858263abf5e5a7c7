// This environment's side of the boundary: when a batch is handed over, when arenas are filled and walked, and to whom
// each record goes. One instance per thread, made when the package is loaded.

import { setImmediate as immediately } from 'node:timers'
import { markAsUntransferable } from 'node:worker_threads'
import { Batch, Flag, HEAD, Kind, NO_NAME, State } from './batch'
import { type BusError, nativeError } from './errors'
import type { Deliveries, Name } from './link'
import { type Crossings, NativeBoundary } from './native'
import { warn } from './warn'

const ARENA_BYTES = 256 << 10
/** A record larger than this gets an arena of its own, so that it does not cost the rest of the current one. */
const OWN_ARENA_BYTES = 64 << 10
/** Room for names that are announced in front of it after all. */
const SPARE_BYTES = 1 << 10
/** Once this much of a turn is used up, other work of the process has its turn, in milliseconds. */
const BUDGET = 1
/** Records and microtasks between two looks at the clock, each of which costs as much as a record. */
const STEPS_PER_LOOK = 8
/** What `then` of it is given runs as a microtask: `queueMicrotask` makes an object of async hooks for each. */
const settled = Promise.resolve()

/** A link as the boundary sees it. */
export interface BoundaryLink {
  readonly id: number
  readonly deliveries: Deliveries
  /** Receivers of what it sent are nearly full. */
  congested(): void
  /** They are not any more. */
  relieved(): void
  /** Something was submitted: take it to the socket. Only of sockets. */
  written?(): void
  /** Reading was put off and may go on. Only of sockets. */
  readOn?(): void
  /** A socket's login is over: 0, or the broker's code. */
  loggedIn?(code: number): void
  refused(code: number): void
  ended(reason: string): void
}

class Boundary {
  readonly #batch = new Batch((bytes, external) => this.#submit(bytes, external))
  readonly #state = new Uint32Array(State.WORDS)
  readonly #crossings = {} as Crossings
  readonly native = new NativeBoundary(this.#batch.bytes, this.#state, () => this.#woken(), this.#crossings)

  readonly #links: (BoundaryLink | undefined)[] = []
  readonly #names: Name[] = []
  /** Sockets with something to write. */
  #dirty: BoundaryLink[] = []
  /** Links whose sockets wait, with the fill that brought the last of what they read. */
  #waiting: { readonly link: BoundaryLink; fill: number | undefined }[] = []
  /** How often records were collected. */
  #fills = 0

  #arena = new Uint8Array(0)
  #memory: ArrayBufferLike = this.#arena.buffer
  #words = new Uint32Array(0)
  /** The walk stands here, and records end there. */
  #at = 0
  #end = 0
  /** Room the next record needs that Rust has found no room for. */
  #needed = 0

  /** Rust told of something to collect, and nobody has begun to. */
  #pending = false
  /** Messages refused for a full queue since `submit` told of them: large ones are handed over as they are written. */
  #refused = 0

  #flushing = false
  #walking = false
  #putOff = false
  #burst = 0
  #inBurst = false
  /** Steps until the clock is looked at again. */
  #untilLook = STEPS_PER_LOOK
  /** A look found the turn's time used up. */
  #isSpent = false

  #holds = 0
  #held = false
  #settling = false

  readonly #tickets = new Map<
    number,
    { resolve: (text: string) => void; reject: (error: BusError) => void }
  >()
  #lastTicket = 0
  readonly #listeners = new Map<number, (json: string) => void>()

  // ---- links

  open(link: BoundaryLink): void {
    this.#links[link.id] = link
  }

  close(id: number): void {
    if (this.#links[id] === undefined) return
    this.#links[id] = undefined
    this.native.close(id)
  }

  // ---- to Rust

  /** Writes a record that goes out at the end of this microtask at the latest. */
  write(
    kind: number,
    flags: number,
    link: number,
    first: string,
    second: string,
    call: number,
    op: number,
    payload: Uint8Array | string | undefined,
  ): void {
    this.#schedule()
    this.#batch.write(kind, flags, link, first, second, call, op, payload)
  }

  writeError(
    link: number,
    target: string,
    call: number,
    code: number,
    flags: number,
    data: Uint8Array | string,
  ): void {
    this.#schedule()
    this.#batch.writeError(link, target, call, code, flags, data)
  }

  /** This socket has something to write once the batch is submitted. */
  markDirty(link: BoundaryLink): void {
    this.#dirty.push(link)
  }

  /** Hands over what was written. Returns how many messages were refused for a full queue. */
  submit(): number {
    if (this.#batch.isEmpty) this.#writeSockets()
    else this.#batch.submit()
    const refused = this.#refused
    this.#refused = 0
    return refused
  }

  #schedule(): void {
    if (this.#flushing) return
    this.#flushing = true
    void settled.then(this.#flush)
  }

  readonly #flush = (): void => {
    // Nothing is left to walk: what the batch leads to can be collected in the same call.
    const isWalked = this.#at === this.#end && this.#needed === 0 && !this.#walking && !this.#putOff
    try {
      if (isWalked && this.#arena.length > 0 && !this.#batch.isEmpty) this.#exchange()
      else this.submit()
    } finally {
      this.#flushing = false
    }
    if (!this.#batch.isEmpty) this.#schedule()
    if (this.#isMore) this.#walkFromMicrotask()
  }

  #exchange(): void {
    this.#pending = false
    this.#fills += 1
    this.#end = this.#crossings.exchange(this.#batch.take(), this.#arena, this.#at)
    this.#needed = this.#state[State.NEEDED] as number
    this.#submitted()
    this.#refused = 0
  }

  #submit(bytes: number, external: Uint8Array | undefined): void {
    if (this.#crossings.submit(bytes, external) === 1) {
      this.#pending = true
      // A full batch is handed over in the middle of a turn: what it led to comes at the end.
      this.#schedule()
    }
    this.#submitted()
  }

  /** A batch was handed over. */
  #submitted(): void {
    this.#refused += this.#state[State.REFUSED] as number
    const congested = this.#state[State.CONGESTED] as number
    for (let index = 0; index < congested; index += 1) {
      this.#links[this.#state[State.LINKS + index] as number]?.congested()
    }
    this.#writeSockets()
  }

  #writeSockets(): void {
    if (this.#dirty.length === 0) return
    const dirty = this.#dirty
    this.#dirty = []
    for (const link of dirty) link.written?.()
  }

  /** What a socket link has to write. */
  take(link: number): Buffer | undefined {
    return this.#crossings.take(link)
  }

  /** Takes what a socket read. False if reading has to wait until `readOn`. */
  receive(link: BoundaryLink, chunk: Uint8Array, bytes: number): boolean {
    if (this.#crossings.receive(link.id, chunk, bytes) === 0) {
      link.ended('out of memory for what the broker sent')
      return false
    }
    this.#begin()
    this.#pending = true
    this.#walk()
    if (this.#putOff) this.#waiting.push({ link, fill: undefined })
    return !this.#putOff
  }

  // ---- from Rust

  /** Rust rang: something came from another thread. */
  #woken(): void {
    this.#pending = true
    this.#begin()
    this.#walk()
  }

  /** A turn of the event loop begins with us. */
  #begin(): void {
    this.#burst = performance.now()
    this.#isSpent = false
  }

  /** One step of work is about to be done, or was. True if the turn's time is used up, as far as the clock was looked at. */
  #step(): boolean {
    this.#untilLook -= 1
    if (this.#untilLook > 0) return this.#isSpent
    this.#untilLook = STEPS_PER_LOOK
    this.#isSpent = performance.now() - this.#burst > BUDGET
    return this.#isSpent
  }

  /**
   * Microtasks may follow each other without end, and no timer would ever fire: what they use up counts together,
   * until the event loop has turned.
   */
  #walkFromMicrotask(): void {
    if (!this.#inBurst) {
      this.#inBurst = true
      this.#begin()
      immediately(this.#endBurst)
    } else if (this.#step()) {
      this.#putOffWalk()
      return
    }
    this.#walk()
  }

  #putOffWalk(): void {
    if (this.#putOff) return
    this.#putOff = true
    immediately(this.#resume)
  }

  readonly #endBurst = (): void => {
    this.#inBurst = false
  }

  readonly #resume = (): void => {
    this.#putOff = false
    this.#begin()
    this.#walk()
    const waiting = this.#waiting
    this.#waiting = []
    for (const one of waiting) {
      // While others are always at it, sockets are read a chunk at a time.
      if (this.#putOff && this.native.isReady(one.link.id)) {
        this.#waiting.push(one)
        continue
      }
      // What was collected is to be walked before the socket says that it has ended.
      one.fill ??= this.#fills
      if (this.#at < this.#end && one.fill === this.#fills) this.#waiting.push(one)
      else one.link.readOn?.()
    }
  }

  /** Walks arenas until nothing is left or the turn's time is used up. */
  #walk(): void {
    if (this.#walking || this.#putOff) return
    this.#walking = true
    try {
      // However slow the machine, each turn gets something done.
      for (let filled = false; ; filled = true) {
        this.#records()
        if (!this.#isMore) return
        if ((filled || this.#at < this.#end) && performance.now() - this.#burst > BUDGET) {
          this.#putOffWalk()
          return
        }
        if (this.#at === this.#end) this.#fill()
      }
    } finally {
      this.#walking = false
    }
  }

  /** There are records to walk or to collect. */
  get #isMore(): boolean {
    return this.#at < this.#end || this.#pending || this.#needed > 0
  }

  /** Gets more records. Once Rust has no more it rings for the next. */
  #fill(): void {
    this.#pending = false
    this.#fills += 1
    if (this.#needed > OWN_ARENA_BYTES) {
      this.#fillOwn(this.#needed)
      return
    }
    if (this.#needed > 0 || this.#arena.length === 0) this.#newArena(ARENA_BYTES)
    this.#end = this.#crossings.collect(this.#arena, this.#at)
    this.#needed = this.#state[State.NEEDED] as number
  }

  /** A large record, in an arena it has to itself; the current one goes on behind it. */
  #fillOwn(bytes: number): void {
    const { arena, memory, words, at } = {
      arena: this.#arena,
      memory: this.#memory,
      words: this.#words,
      at: this.#at,
    }
    this.#newArena(bytes + SPARE_BYTES)
    this.#end = this.#crossings.collect(this.#arena, 0)
    this.#needed = this.#state[State.NEEDED] as number
    // Handlers see it now and whole; the turn's time is looked at afterwards.
    while (this.#at < this.#end) this.#records()
    this.#arena = arena
    this.#memory = memory
    this.#words = words
    this.#at = at
    this.#end = at
  }

  #newArena(bytes: number): void {
    // Not filled with zeros, which takes longer than all else: views given out cover what Rust has written, and
    // whoever looks around them sees memory of his own process, as with small Buffers.
    const memory = Buffer.allocUnsafeSlow((bytes + 3) & ~3).buffer as ArrayBuffer
    // Views of it are given out, and whoever transfers one would detach it under all others.
    markAsUntransferable(memory)
    this.#arena = new Uint8Array(memory)
    this.#memory = memory
    this.#words = new Uint32Array(memory)
    this.#at = 0
    this.#end = 0
  }

  /** Delivers records until the arena's end, or until the turn's time is used up. */
  #records(): void {
    while (this.#at < this.#end) {
      const at = this.#at
      this.#at = at + (this.#words[at >>> 2] as number)
      try {
        this.#deliver(at)
      } catch (error) {
        // Deliveries catch what handlers throw, so this is a fault of ours; the other records are delivered.
        warn(error)
      }
      if (this.#step()) return
    }
  }

  #deliver(at: number): void {
    const words = this.#words
    const word = at >>> 2
    const head = words[word + 1] as number
    const kind = head & 0xff
    const names = words[word + 2] as number
    const length = words[word + 5] as number
    const from = at + HEAD
    if (kind === Kind.NAME) {
      this.#names[names & 0xffff] = { text: this.#text(from, length) }
      return
    }
    if (kind === Kind.DONE || kind === Kind.EVENT) {
      this.#control(kind, words[word + 3] as number, words[word + 4] as number, this.#text(from, length))
      return
    }
    const link = this.#links[head >>> 16]
    // Closed a moment ago.
    if (link === undefined) return
    const realtime = (head & (Flag.REALTIME << 8)) !== 0
    const deliveries = link.deliveries
    if (kind <= Kind.PUBLISH) {
      const topic = kind === Kind.PUBLISH ? (this.#names[names >>> 16] as Name) : undefined
      const sender = this.#names[names & 0xffff] as Name
      deliveries.message(kind, realtime, sender, topic, new Uint8Array(this.#memory, from, length))
      return
    }
    const number = words[word + 3] as number
    const code = (words[word + 4] as number) | 0
    if (kind >= Kind.ACK) {
      if (kind === Kind.ACK) deliveries.acknowledged(number, code)
      else if (kind === Kind.RELIEF) link.relieved()
      else if (kind === Kind.CLOSED) link.ended(this.#text(from, length))
      else if (kind === Kind.LOGIN) link.loggedIn?.(code)
      else if (kind === Kind.REFUSED) link.refused(code)
      return
    }
    const sender = this.#names[names & 0xffff] as Name
    const body = new Uint8Array(this.#memory, from, length)
    if (kind === Kind.REQUEST) {
      const method = names >>> 16
      deliveries.request(
        realtime,
        sender,
        method === NO_NAME ? undefined : (this.#names[method] as Name),
        number,
        body,
      )
    } else if (kind === Kind.REPLY) deliveries.reply(sender, number, body)
    else if (kind === Kind.ERROR) deliveries.error(sender, number, code, body)
    else if (kind === Kind.NOTIFICATION) deliveries.notification(realtime, sender, body)
    else if (kind === Kind.CANCEL) deliveries.cancel(sender, number)
  }

  #text(from: number, length: number): string {
    return Buffer.from(this.#memory, from, length).toString('utf8')
  }

  // ---- control

  /** Starts something that Rust answers by ticket; the process stays alive until then. */
  request(start: (ticket: number) => void): Promise<string> {
    this.#lastTicket = (this.#lastTicket + 1) >>> 0
    const ticket = this.#lastTicket
    return new Promise((resolve, reject) => {
      start(ticket)
      this.#tickets.set(ticket, { resolve, reject })
      this.hold()
    })
  }

  #control(kind: number, number: number, code: number, text: string): void {
    if (kind === Kind.EVENT) {
      this.#listeners.get(number)?.(text)
      return
    }
    const ticket = this.#tickets.get(number)
    if (ticket === undefined) return
    this.#tickets.delete(number)
    this.release()
    if (code === 0) ticket.resolve(text)
    else ticket.reject(nativeError(code, text))
  }

  /** Events of a broker go to `listener`. */
  listen(broker: number, listener: (json: string) => void): void {
    this.#listeners.set(broker, listener)
  }

  unlisten(broker: number): void {
    this.#listeners.delete(broker)
  }

  /** Keeps the process alive until {@link Boundary.release} is called as often. */
  hold(): void {
    this.#holds += 1
    if (this.#held) return
    this.#held = true
    this.native.hold(true)
  }

  release(): void {
    this.#holds -= 1
    if (this.#holds > 0 || this.#settling) return
    // Calls one after the other would hold and release for each: one look per turn is enough.
    this.#settling = true
    immediately(this.#settle)
  }

  readonly #settle = (): void => {
    this.#settling = false
    if (this.#holds > 0 || !this.#held) return
    this.#held = false
    this.native.hold(false)
  }
}

export const boundary = new Boundary()

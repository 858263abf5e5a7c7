// What waits for an answer: calls and acknowledgements, each with a number, a deadline and perhaps a signal.

import { boundary } from './boundary'
import { BusError } from './errors'
import { LONGEST } from './options'

const SLOT_BITS = 16
const SLOTS = 1 << SLOT_BITS
const GENERATIONS = 1 << 15

/** One that waits. */
export interface Entry<T> {
  /** What is waited for, for the text of an error. */
  readonly what: string
  readonly target: string
  /** How the result is wanted. */
  readonly raw: boolean
  resolve(value: T): void
  reject(error: unknown): void
  id: number
  deadline: number
  signal: AbortSignal | undefined
}

/** What a wait may be bounded by. */
export interface WaitOptions {
  /** Milliseconds, greater than 0; `Infinity` waits for as long as the connection lives. Default 5,000. */
  timeout?: number | undefined
  /** Gives up when it aborts: the Promise rejects with its reason. */
  signal?: AbortSignal | undefined
}

const DEFAULT_TIMEOUT = 5_000

/**
 * A table of at most 65,536 entries. Numbers are 31 bits and are not given again soon, so that an answer that comes too
 * late is not taken for another's. One timer serves all: it is set to the next deadline. While anything waits the
 * process stays alive.
 */
export class Waiting<T> {
  readonly #slots: (Entry<T> | undefined)[] = []
  readonly #generations: number[] = []
  readonly #free: number[] = []
  readonly #gaveUp: (entry: Entry<T>) => void
  /** One listener for each signal, however many wait on it. */
  readonly #signals = new Map<AbortSignal, { entries: Set<Entry<T>>; aborted: () => void }>()
  #count = 0
  #timer: NodeJS.Timeout | undefined
  #timerAt = Number.POSITIVE_INFINITY

  /** `gaveUp` is told of entries that timed out or were aborted. */
  constructor(gaveUp: (entry: Entry<T>) => void) {
    this.#gaveUp = gaveUp
  }

  get size(): number {
    return this.#count
  }

  /** Adds an entry and gives it its number. Throws if a bound is not valid, or if the table is full. */
  add(entry: Entry<T>, options: WaitOptions | undefined): number {
    const timeout = options?.timeout ?? DEFAULT_TIMEOUT
    if (typeof timeout !== 'number' || !(timeout > 0)) {
      throw new BusError(
        'ERR_BUS_ARGUMENT',
        `timeout is a number of milliseconds greater than 0, not ${String(timeout)}`,
      )
    }
    const signal = options?.signal
    if (signal?.aborted) throw signal.reason
    const slot = this.#free.pop() ?? this.#slots.length
    if (slot >= SLOTS) {
      throw new BusError('ERR_BUS_OVERFLOW', `${SLOTS} answers are waited for already`)
    }
    // 0 is never a number, so a generation begins with 1.
    const generation = ((this.#generations[slot] ?? 0) % (GENERATIONS - 1)) + 1
    this.#generations[slot] = generation
    entry.id = (generation << SLOT_BITS) | slot
    this.#slots[slot] = entry
    this.#count += 1
    if (this.#count === 1) boundary.hold()
    if (timeout <= LONGEST) {
      entry.deadline = performance.now() + timeout
      if (entry.deadline < this.#timerAt) this.#arm(entry.deadline)
    }
    if (signal != null) this.#watch(signal, entry)
    return entry.id
  }

  #watch(signal: AbortSignal, entry: Entry<T>): void {
    entry.signal = signal
    let watched = this.#signals.get(signal)
    if (watched === undefined) {
      const entries = new Set<Entry<T>>()
      const aborted = (): void => {
        for (const waiting of entries) this.#giveUp(waiting, signal.reason)
      }
      watched = { entries, aborted }
      this.#signals.set(signal, watched)
      signal.addEventListener('abort', aborted, { once: true })
    }
    watched.entries.add(entry)
  }

  #unwatch(signal: AbortSignal, entry: Entry<T>): void {
    const watched = this.#signals.get(signal)
    watched?.entries.delete(entry)
    if (watched?.entries.size !== 0) return
    this.#signals.delete(signal)
    signal.removeEventListener('abort', watched.aborted)
  }

  /** The entry of this number, if it still waits. */
  get(id: number): Entry<T> | undefined {
    const entry = this.#slots[id & (SLOTS - 1)]
    return entry?.id === id ? entry : undefined
  }

  /** Takes the entry of this number out. */
  take(id: number): Entry<T> | undefined {
    const entry = this.get(id)
    if (entry !== undefined) this.remove(entry)
    return entry
  }

  /** Rejects all. */
  fail(error: BusError): void {
    for (const entry of this.#slots) {
      if (entry === undefined) continue
      this.remove(entry)
      entry.reject(error)
    }
    // It would keep the client in memory until then.
    clearTimeout(this.#timer)
    this.#timerAt = Number.POSITIVE_INFINITY
  }

  /** Takes out an entry that {@link Waiting.get} gave. */
  remove(entry: Entry<T>): void {
    const slot = entry.id & (SLOTS - 1)
    this.#slots[slot] = undefined
    this.#free.push(slot)
    this.#count -= 1
    if (this.#count === 0) boundary.release()
    if (entry.signal !== undefined) this.#unwatch(entry.signal, entry)
  }

  #giveUp(entry: Entry<T>, reason: unknown): void {
    if (this.take(entry.id) === undefined) return
    entry.reject(reason)
    this.#gaveUp(entry)
  }

  #arm(deadline: number): void {
    clearTimeout(this.#timer)
    this.#timerAt = deadline
    this.#timer = setTimeout(this.#expire, Math.max(1, deadline - performance.now()))
    // The process is held by what waits, and not by a timer that nobody needs any more.
    this.#timer.unref()
  }

  readonly #expire = (): void => {
    // A timer may be early by a fraction of a millisecond.
    const due = performance.now() + 1
    let next = Number.POSITIVE_INFINITY
    this.#timerAt = next
    const late: Entry<T>[] = []
    for (const entry of this.#slots) {
      if (entry === undefined) continue
      if (entry.deadline <= due) late.push(entry)
      else if (entry.deadline < next) next = entry.deadline
    }
    // After a stall several may be due: in the order in which they were.
    late.sort((one, other) => one.deadline - other.deadline)
    for (const entry of late) {
      this.#giveUp(
        entry,
        new BusError('ERR_BUS_TIMEOUT', `${entry.what} ${entry.target} was not answered in time`),
      )
    }
    if (next < this.#timerAt) this.#arm(next)
  }
}

/** An entry for {@link Waiting.add}. */
export function entry<T>(
  what: string,
  target: string,
  raw: boolean,
  resolve: (value: T) => void,
  reject: (error: unknown) => void,
): Entry<T> {
  const deadline = Number.POSITIVE_INFINITY
  return { what, target, raw, resolve, reject, id: 0, deadline, signal: undefined }
}

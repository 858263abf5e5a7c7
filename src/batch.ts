// The records of the boundary, both ways: how a batch for Rust is written, and where the words of an arena lie. The
// twin of `crates/node/src/record.rs`, and the only file of this package that knows the layout. See there for it.

import { BusError } from './errors'

/** Bytes of a record's words. */
export const HEAD = 24

/** What a record is about. */
export const Kind = {
  NAME: 0,
  MESSAGE: 1,
  BROADCAST: 2,
  PUBLISH: 3,
  PUBLISH_FOR: 4,
  SUBSCRIBE: 5,
  UNSUBSCRIBE: 6,
  EXCLUDE: 7,
  UNEXCLUDE: 8,
  NOTIFICATION: 9,
  REQUEST: 10,
  REPLY: 11,
  ERROR: 12,
  CANCEL: 13,
  PING: 14,
  ACK: 16,
  RELIEF: 17,
  CLOSED: 18,
  LOGIN: 19,
  DONE: 20,
  EVENT: 21,
  REFUSED: 22,
} as const

/** Bits of a record's flags. */
export const Flag = { ACK: 1, REALTIME: 2, EXTERNAL: 4 } as const

/** Operation ids with this bit are answered when they fail only. */
export const FAILURES_ONLY = 0x8000_0000

/** The number of a method that is not UTF-8. */
export const NO_NAME = 0xffff

/** Words of the state array, as `hot.rs` writes them. */
export const State = { NEEDED: 0, REFUSED: 1, CONGESTED: 2, LINKS: 3, WORDS: 32 } as const

/** Payloads up to this many bytes travel in the batch; a larger one goes by itself, which costs a call and no copy. */
export const DIRECT_BYTES = 8 << 10

const BATCH_BYTES = 256 << 10
/** Places of the table of names, and those of them for names announced each time, as in `names.rs`. */
const PLACES = 16_384
const PASSING = 2
const KEPT_CHARACTERS = 256
/** Longest name, topic or mask, in bytes of UTF-8: the protocol crate's bound. */
const NAME_BYTES = 4096

/** Carries out the first `bytes` of the batch. */
export type Submit = (bytes: number, external: Uint8Array | undefined) => void

/**
 * The batch for Rust. It belongs to this environment, is never given to anybody, and is submitted when it is full or
 * when {@link Batch.submit} says so.
 */
export class Batch {
  /** Its memory, which Rust has pinned. */
  readonly bytes = new Uint8Array(BATCH_BYTES)
  readonly #words = new Uint32Array(this.bytes.buffer)
  readonly #text = Buffer.from(this.bytes.buffer)
  readonly #submit: Submit
  #at = 0

  readonly #numbers = new Map<string, number>()
  readonly #names: string[] = []
  #next = 0
  // What the last records named: most repeat it.
  #lastFirst = ''
  #lastFirstNumber = -1
  #lastSecond = ''
  #lastSecondNumber = -1

  constructor(submit: Submit) {
    this.#submit = submit
  }

  /** True if nothing was written since the last submission. */
  get isEmpty(): boolean {
    return this.#at === 0
  }

  /** The bytes that were written, which the caller hands over at once. */
  take(): number {
    const bytes = this.#at
    this.#at = 0
    return bytes
  }

  /** Hands over what was written. */
  submit(external?: Uint8Array): void {
    const bytes = this.#at
    this.#at = 0
    this.#submit(bytes, external)
  }

  /** Writes one record. `first` and `second` are the names its kind takes; an empty `second` is none. */
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
    let firstNumber = this.#lastFirstNumber
    if (firstNumber < 0 || first !== this.#lastFirst) {
      firstNumber = this.#number(first, 0)
      this.#lastFirst = first
      this.#lastFirstNumber = firstNumber
    }
    let secondNumber = 0
    // A method may be empty; of other names that means none.
    if (second !== '' || kind === Kind.REQUEST) {
      secondNumber = this.#lastSecondNumber
      if (secondNumber < 0 || second !== this.#lastSecond) {
        secondNumber = this.#number(second, 1)
        this.#lastSecond = second
        this.#lastSecondNumber = secondNumber
        if (secondNumber === firstNumber && first !== second) {
          // A new second name took the oldest place, which was the first's: that gets the next one.
          firstNumber = this.#number(first, 0)
          this.#lastFirst = first
          this.#lastFirstNumber = firstNumber
        }
      }
    }
    this.#record(kind, flags, link, firstNumber, secondNumber, call, op, payload)
  }

  /** Writes the error reply of a call: its code takes the place of the second name. */
  writeError(
    link: number,
    target: string,
    call: number,
    code: number,
    flags: number,
    data: Uint8Array | string,
  ): void {
    const first = this.#number(target, 0)
    this.#record(Kind.ERROR, flags, link, first, code & 0xffff, call, 0, data)
  }

  #record(
    kind: number,
    flags: number,
    link: number,
    first: number,
    second: number,
    call: number,
    op: number,
    payload: Uint8Array | string | undefined,
  ): void {
    let length = 0
    let external: Uint8Array | undefined
    if (payload === undefined) {
      this.#reserve(HEAD)
    } else if (typeof payload === 'string' && payload.length * 3 <= DIRECT_BYTES) {
      this.#reserve(HEAD + payload.length * 3)
      length = this.#text.write(payload, this.#at + HEAD, 'utf8')
    } else {
      const bytes = typeof payload === 'string' ? Buffer.from(payload) : payload
      if (bytes.length > DIRECT_BYTES) {
        external = bytes
        flags |= Flag.EXTERNAL
        this.#reserve(HEAD)
      } else {
        length = bytes.length
        this.#reserve(HEAD + length)
        const at = this.#at + HEAD
        if (length > 24) {
          this.bytes.set(bytes, at)
        } else {
          // For so few bytes a loop is faster than a call.
          for (let index = 0; index < length; index += 1) this.bytes[at + index] = bytes[index] as number
        }
      }
    }
    const total = (HEAD + length + 3) & ~3
    const word = this.#at >>> 2
    const words = this.#words
    words[word] = total
    words[word + 1] = kind | (flags << 8) | (link << 16)
    words[word + 2] = first | (second << 16)
    words[word + 3] = call
    words[word + 4] = op
    words[word + 5] = length
    this.#at += total
    if (external !== undefined) this.submit(external)
  }

  #reserve(bytes: number): void {
    if (this.#at + bytes + 3 > BATCH_BYTES) this.submit()
  }

  /** The number of a name, announced if it is new. */
  #number(name: string, field: 0 | 1): number {
    const known = this.#numbers.get(name)
    return known === undefined ? this.#announce(name, field) : known
  }

  #announce(name: string, field: 0 | 1): number {
    checkName(name)
    if (name.length > KEPT_CHARACTERS) {
      this.#define(field, name)
      this.#forgetLast(field)
      return field
    }
    const place = this.#next
    const oldest = this.#names[place]
    if (oldest !== undefined) this.#numbers.delete(oldest)
    this.#names[place] = name
    this.#next = (place + 1) % (PLACES - PASSING)
    const number = place + PASSING
    this.#forgetLast(number)
    this.#numbers.set(name, number)
    this.#define(number, name)
    return number
  }

  #define(number: number, name: string): void {
    this.#record(Kind.NAME, 0, 0, number, 0, 0, 0, name)
  }

  #forgetLast(number: number): void {
    if (this.#lastFirstNumber === number) this.#lastFirstNumber = -1
    if (this.#lastSecondNumber === number) this.#lastSecondNumber = -1
  }
}

/** Throws if a name, topic or mask cannot be sent. */
export function checkName(name: string): void {
  if (typeof name !== 'string') {
    throw new BusError(
      'ERR_BUS_ARGUMENT',
      `a name, topic or mask is a string, not ${name === null ? 'null' : typeof name}`,
    )
  }
  if (name.includes('\0')) throw new BusError('ERR_BUS_NAME', `${shown(name)} holds a NUL`)
  if (name.length > NAME_BYTES || Buffer.byteLength(name) > NAME_BYTES) {
    throw new BusError(
      'ERR_BUS_NAME',
      `${shown(name)} has ${Buffer.byteLength(name)} bytes, the limit is ${NAME_BYTES}`,
    )
  }
}

function shown(name: string): string {
  return JSON.stringify(name.length > 64 ? `${name.slice(0, 64)}…` : name)
}

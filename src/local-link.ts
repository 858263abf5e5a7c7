// The link of a client in the broker's process: its operations are routed in Rust on this thread.

import { Flag } from './batch'
import { type BoundaryLink, boundary } from './boundary'
import { BusError, native } from './errors'
import type { Deliveries, Link } from './link'

const NOT_DELIVERED = 0x77

/** Brokers that this environment is closing: the end of their clients is no failure. */
export const closing = new Set<number>()

/** A client of a broker of this process, in whatever thread that was started. */
export class LocalLink implements Link, BoundaryLink {
  readonly name: string
  readonly deliveries: Deliveries
  readonly limitBytes = 2 ** 31
  readonly isLocal = true
  readonly #broker: number
  readonly #rpc: boolean
  readonly id: number
  readonly #pause: number
  #timer: NodeJS.Timeout | undefined
  /** Whoever sends should wait. */
  #congested = false
  /** Some receiver is nearly full, waited for or not: each message is carried out at once, so that a refusal is thrown. */
  #careful = false
  #holds = false
  /** Refusals that were thrown and are not told again. */
  #thrown = 0
  #error: BusError | undefined

  /** Registers `name` at the broker of this number. */
  constructor(broker: number, name: string, rpc: boolean, deliveries: Deliveries) {
    this.name = name
    this.deliveries = deliveries
    this.#broker = broker
    this.#rpc = rpc
    this.id = native(() => boundary.native.attach(broker, name, rpc))
    this.#pause = boundary.native.pause(this.id)
    boundary.open(this)
    deliveries.opened(this)
  }

  get isOpen(): boolean {
    return this.#error === undefined
  }

  get isCongested(): boolean {
    return this.#congested
  }

  submit(
    kind: number,
    flags: number,
    first: string,
    second: string,
    call: number,
    op: number,
    payload: Uint8Array | string | undefined,
  ): boolean {
    if (this.#error !== undefined) throw this.#error
    if (this.#careful && (flags & Flag.ACK) === 0) {
      return this.#submitNow(kind, flags, first, second, call, payload)
    }
    boundary.write(kind, flags, this.id, first, second, call, op, payload)
    return !this.#congested
  }

  #submitNow(
    kind: number,
    flags: number,
    first: string,
    second: string,
    call: number,
    payload: Uint8Array | string | undefined,
  ): boolean {
    boundary.submit()
    boundary.write(kind, flags, this.id, first, second, call, 0, payload)
    if (boundary.submit() > 0) {
      this.#thrown += 1
      throw new BusError('ERR_BUS_OVERFLOW', `queue of ${first} is full`, { wireCode: NOT_DELIVERED })
    }
    return !this.#congested
  }

  submitError(target: string, call: number, code: number, flags: number, data: Uint8Array | string): void {
    if (this.#error !== undefined) throw this.#error
    boundary.writeError(this.id, target, call, code, flags, data)
  }

  flush(): void {
    boundary.submit()
  }

  hold(hold: boolean): void {
    if (hold === this.#holds || this.#error !== undefined) return
    this.#holds = hold
    if (hold) boundary.hold()
    else boundary.release()
  }

  another(name: string, deliveries: Deliveries): Promise<Link> {
    return Promise.resolve(new LocalLink(this.#broker, name, this.#rpc, deliveries))
  }

  close(): Promise<void> {
    this.#end(undefined)
    return Promise.resolve()
  }

  /** Receivers are nearly full. They are waited for as long as the broker lets any sender wait. */
  congested(): void {
    this.#congested = true
    this.#careful = true
    this.#timer ??= setTimeout(this.#paused, this.#pause).unref()
  }

  readonly #paused = (): void => {
    this.#timer = undefined
    if (boundary.native.spendPause(this.id)) this.#timer = setTimeout(this.#paused, this.#pause).unref()
    else this.#goOn()
  }

  /** All receivers are low again. */
  relieved(): void {
    this.#careful = false
    this.#goOn()
  }

  #goOn(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    if (!this.#congested) return
    this.#congested = false
    this.deliveries.relieved()
  }

  refused(code: number): void {
    if (code === NOT_DELIVERED && this.#thrown > 0) this.#thrown -= 1
    else this.deliveries.refused(code)
  }

  ended(reason: string): void {
    if (closing.has(this.#broker)) this.#end(undefined)
    else this.#end(new BusError('ERR_BUS_DISCONNECTED', `client ${this.name} was ${reason}`))
  }

  #end(error: BusError | undefined): void {
    if (this.#error !== undefined) return
    this.hold(false)
    clearTimeout(this.#timer)
    // What was submitted before goes out before.
    boundary.submit()
    this.#error = error ?? new BusError('ERR_BUS_CLOSED', `client ${this.name} is closed`)
    boundary.close(this.id)
    this.deliveries.closed(error)
  }
}

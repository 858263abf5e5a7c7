// A client of a broker: its verbs, above any link.

import { EventEmitter } from 'node:events'
import { checkName, FAILURES_ONLY, Flag, Kind } from './batch'
import { boundary } from './boundary'
import { BusError, wireError } from './errors'
import type { Deliveries, Link } from './link'
import { decode } from './msgpack'
import type {
  AckOptions,
  CallOptions,
  ForOption,
  RawOption,
  SendOptions,
  ServeOptions,
  SubscribeOptions,
} from './options'
import { checkNotRpc, checkSize, messageBytes, type Payload, rpcBytes } from './payload'
import { Caller } from './rpc-caller'
import { type Handler, type RpcServer, Server } from './rpc-server'
import { maskList, Streams } from './streams'
import { Subscription } from './subscription'
import { entry, Waiting, type WaitOptions } from './waiting'
import { warn } from './warn'

const BROKER_INFO = '.broker/info'
/** A mask nobody subscribes to: taking it out changes nothing and is answered like any other operation. */
const NOBODY = '.elbus/nobody'

/** Events of a {@link Client}. */
export interface ClientEvents {
  /** The connection has ended; no error if this side closed it. */
  close: [error: Error | undefined]
  /** The queue of a subscription is full and messages are dropped. Once per stall. */
  slow: [subscription: Subscription<never>]
  /** A callback or a handler threw. The process lives on; without a listener it is a process warning. */
  fault: [error: unknown]
  /** A message without acknowledgement was refused at the broker in this process; `code` says why. */
  refused: [error: BusError]
  /** Below the high-water mark again. */
  drain: []
}

/** What makes the link of a client, given whom to deliver to. */
export type Opener = (deliveries: Deliveries) => Link | Promise<Link>

/**
 * A registered client of a broker, in its process or over a socket. Made by `broker.client()` and `connect()`.
 *
 * Verbs without acknowledgement are synchronous: they return false when the client should wait for
 * {@link Client.drained}, and throw `ERR_BUS_OVERFLOW` when the queue is really full: of a socket client its own, of a
 * client in the broker's process that of the receiver of a message. A publication or broadcast leaves a full receiver
 * out; the broker counts that and raises `slow`. With `{ ack: true }` verbs return a Promise of the broker's answer.
 */
export class Client extends EventEmitter<ClientEvents> implements AsyncDisposable {
  #link!: Link
  readonly #rpc: boolean
  readonly #acks = new Waiting<void>(() => undefined)
  readonly #caller = new Caller(() => this.#link)
  readonly #server: Server
  readonly #streams: Streams
  readonly #closed: Promise<Error | undefined>
  #resolveClosed!: (error: Error | undefined) => void
  /** Why it has ended. */
  #reason: BusError | undefined
  #secondaries = 0
  #watching = false
  #drained: { resolve: () => void; reject: (error: unknown) => void }[] = []

  /** Opens a client; used by `broker.client()` and `connect()`. @internal */
  static async open(rpc: boolean, opener: Opener): Promise<Client> {
    const client = new Client(rpc)
    await opener(client.#deliveries())
    return client
  }

  private constructor(rpc: boolean) {
    super()
    this.#rpc = rpc
    this.#closed = new Promise((resolve) => {
      this.#resolveClosed = resolve
    })
    this.#streams = new Streams({
      subscribe: (mask) => this.#maskOperation(Kind.SUBSCRIBE, 'subscription to', [mask]),
      unsubscribe: (masks) => this.#maskOperation(Kind.UNSUBSCRIBE, 'unsubscription from', masks),
    })
    this.#server = new Server({
      link: () => this.#link,
      fault: (error) => this.#fault(error),
      watchLeaving: () => this.#watchLeaving(),
    })
  }

  #deliveries(): Deliveries {
    const server = this.#server
    const caller = this.#caller
    const streams = this.#streams
    return {
      opened: (link) => {
        this.#link = link
      },
      message: (kind, realtime, sender, topic, data) => streams.deliver(kind, realtime, sender, topic, data),
      notification: (realtime, sender, data) => server.notification(realtime, sender, data),
      request: (realtime, sender, method, id, params) => server.request(realtime, sender, method, id, params),
      reply: (sender, id, result) => caller.reply(sender, id, result),
      error: (sender, id, code, data) => caller.error(sender, id, code, data),
      cancel: (sender, id) => server.cancel(sender, id),
      acknowledged: (op, code) => this.#acknowledged(op, code),
      refused: (code) =>
        this.#guarded(() => this.emit('refused', wireError(code, `message of ${this.name}`))),
      relieved: () => this.#relieved(),
      closed: (error) => this.#ended(error),
    }
  }

  // ---- state

  /** The full name under which it is registered. */
  get name(): string {
    return this.#link.name
  }

  /** True until the connection has ended or was closed. */
  get connected(): boolean {
    return this.#reason === undefined && this.#link.isOpen
  }

  /** Resolves when the connection has ended: with the reason, or with undefined if this side closed it. */
  get closed(): Promise<Error | undefined> {
    return this.#closed
  }

  // ---- messages

  /**
   * Sends to one client, by its full name. Bytes and strings go as they are, anything else as MessagePack.
   *
   * Throws `ERR_BUS_PAYLOAD` for a payload that begins with a byte of the RPC layer, unless `raw` or the client was
   * opened with `rpc: false`.
   */
  send(target: string, payload: Payload, options: AckOptions & RawOption): Promise<void>
  send(target: string, payload?: Payload, options?: SendOptions & RawOption): boolean
  send(
    target: string,
    payload: Payload,
    options: (SendOptions | AckOptions) & RawOption,
  ): boolean | Promise<void>
  send(
    target: string,
    payload?: Payload,
    options?: (SendOptions | AckOptions) & RawOption,
  ): boolean | Promise<void> {
    const isChecked = this.#rpc && options?.raw !== true
    return this.#transmit(Kind.MESSAGE, 'message to', target, '', payload, isChecked, options)
  }

  /** Sends to every client whose full name matches a mask: `?` for one part, `*` for all that follow. */
  broadcast(mask: string, payload: Payload, options: AckOptions): Promise<void>
  broadcast(mask: string, payload?: Payload, options?: SendOptions): boolean
  broadcast(mask: string, payload: Payload, options: SendOptions | AckOptions): boolean | Promise<void>
  broadcast(mask: string, payload?: Payload, options?: SendOptions | AckOptions): boolean | Promise<void> {
    return this.#transmit(Kind.BROADCAST, 'broadcast to', mask, '', payload, false, options)
  }

  /** Publishes to the subscribers of a topic. `for` narrows them to one primary name. */
  publish(topic: string, payload: Payload, options: AckOptions & ForOption): Promise<void>
  publish(topic: string, payload?: Payload, options?: SendOptions & ForOption): boolean
  publish(
    topic: string,
    payload: Payload,
    options: (SendOptions | AckOptions) & ForOption,
  ): boolean | Promise<void>
  publish(
    topic: string,
    payload?: Payload,
    options?: (SendOptions | AckOptions) & ForOption,
  ): boolean | Promise<void> {
    const receiver = options?.for
    if (receiver === undefined) {
      return this.#transmit(Kind.PUBLISH, 'publication to', topic, '', payload, false, options)
    }
    return this.#transmit(Kind.PUBLISH_FOR, 'publication to', topic, receiver, payload, false, options)
  }

  #transmit(
    kind: number,
    what: string,
    first: string,
    second: string,
    payload: Payload,
    isChecked: boolean,
    options: SendOptions | AckOptions | undefined,
  ): boolean | Promise<void> {
    const flags = options?.realtime === true ? Flag.REALTIME : 0
    if (options?.ack === true) {
      return this.#acked(kind, what, first, second, flags, options, () =>
        this.#bytes(kind, what, first, second, payload, isChecked),
      )
    }
    const bytes = this.#bytes(kind, what, first, second, payload, isChecked)
    return this.#link.submit(kind, flags, first, second, 0, 0, bytes)
  }

  /** The payload of a message, checked. */
  #bytes(
    kind: number,
    what: string,
    first: string,
    second: string,
    payload: Payload,
    isChecked: boolean,
  ): Uint8Array | string | undefined {
    if (kind === Kind.PUBLISH_FOR && second === '') {
      throw new BusError('ERR_BUS_ARGUMENT', 'for is a client name, not an empty string')
    }
    const bytes = messageBytes(payload)
    if (isChecked) checkNotRpc(bytes)
    checkSize(this.#link.limitBytes, what, first, second, 0, bytes)
    return bytes
  }

  /** Submits an operation and waits for the broker's answer. Whatever is wrong rejects. */
  #acked(
    kind: number,
    what: string,
    first: string,
    second: string,
    flags: number,
    options: WaitOptions | undefined,
    bytes: () => Uint8Array | string | undefined,
  ): Promise<void> {
    return new Promise((resolve, reject) => {
      // Encoded first: what cannot be sent takes no number.
      const payload = bytes()
      const op = this.#acks.add(entry(what, first, false, resolve, reject), options)
      try {
        this.#link.submit(kind, flags | Flag.ACK, first, second, 0, op, payload)
      } catch (error) {
        this.#acks.take(op)
        throw error
      }
    })
  }

  #acknowledged(op: number, code: number): void {
    if (op >= FAILURES_ONLY) {
      this.#caller.refused(op - FAILURES_ONLY, code)
      return
    }
    const waiting = this.#acks.take(op)
    if (waiting === undefined) return
    if (code === 0) waiting.resolve()
    else waiting.reject(wireError(code, `${waiting.what} ${waiting.target}`))
  }

  // ---- flow

  /**
   * Resolves when the client may send on after a verb returned false. Rejects if the connection ends first, or with
   * the reason of `signal`.
   */
  drained(options?: { signal?: AbortSignal }): Promise<void> {
    const signal = options?.signal
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted()
      this.#checkOpen()
      if (!this.#link.isCongested) {
        resolve()
        return
      }
      boundary.hold()
      const settle = (finish: () => void): void => {
        const index = this.#drained.indexOf(waiting)
        if (index < 0) return
        this.#drained.splice(index, 1)
        boundary.release()
        signal?.removeEventListener('abort', aborted)
        finish()
      }
      const aborted = (): void => settle(() => reject(signal?.reason))
      const waiting = {
        resolve: () => settle(resolve),
        reject: (error: unknown) => settle(() => reject(error)),
      }
      signal?.addEventListener('abort', aborted, { once: true })
      this.#drained.push(waiting)
    })
  }

  #relieved(): void {
    for (const waiting of [...this.#drained]) waiting.resolve()
    this.#guarded(() => this.emit('drain'))
  }

  /** Resolves when the broker has taken everything sent before: one round trip for a socket, none in process. */
  async flush(options?: WaitOptions): Promise<void> {
    this.#checkOpen()
    this.#link.flush()
    if (!this.#link.isLocal) await this.#roundTrip('flush to', options)
  }

  /** Milliseconds to the broker and back. In process it is the time to hand over one operation. */
  async rtt(options?: WaitOptions): Promise<number> {
    const begin = performance.now()
    await this.#roundTrip('round trip to', options)
    return performance.now() - begin
  }

  async #roundTrip(what: string, options: WaitOptions | undefined): Promise<void> {
    try {
      await this.#acked(Kind.UNSUBSCRIBE, what, this.name, '', 0, options, () => NOBODY)
    } catch (error) {
      // Any answer of the broker will do.
      if (!(error instanceof BusError && error.wireCode !== undefined)) throw error
    }
  }

  // ---- subscriptions

  /**
   * Subscribes to topic masks: `+` for one level, `#` for one or more at the end. The subscription is in force when its
   * `ready` resolves. A message that several masks match is given once.
   */
  subscribe<T = unknown>(
    masks: string | readonly string[],
    options: SubscribeOptions<T> = {},
  ): Subscription<T> {
    this.#checkOpen()
    const list = maskList('masks', masks)
    list.forEach(checkName)
    const excluded = options.exclude === undefined ? [] : maskList('exclude', options.exclude)
    excluded.forEach(checkName)
    return new Subscription<T>(this.#subscriptionOwner, list, excluded, options, (subscription) =>
      this.#streams.addTopics(subscription as unknown as Subscription<never>),
    )
  }

  /** What others send to this client itself: messages that are not RPC, and broadcasts. */
  messages<T = unknown>(options: SubscribeOptions<T> = {}): Subscription<T> {
    this.#checkOpen()
    return new Subscription<T>(this.#subscriptionOwner, [], [], options, (subscription) =>
      this.#streams.addMessages(subscription as unknown as Subscription<never>),
    )
  }

  readonly #subscriptionOwner = {
    end: (subscription: Subscription<never>): Promise<void> => this.#streams.remove(subscription),
    slow: (subscription: Subscription<never>): void => this.#guarded(() => this.emit('slow', subscription)),
    fault: (error: unknown): void => this.#fault(error),
  }

  /** Leaves topics out of everything this client is subscribed to, until {@link Client.unexclude}. */
  async exclude(masks: string | readonly string[]): Promise<void> {
    await this.#maskOperation(Kind.EXCLUDE, 'exclusion of', maskList('masks', masks))
  }

  /** Ends exclusions. */
  async unexclude(masks: string | readonly string[]): Promise<void> {
    await this.#maskOperation(Kind.UNEXCLUDE, 'unexclusion of', maskList('masks', masks))
  }

  async #maskOperation(kind: number, what: string, masks: readonly string[]): Promise<void> {
    masks.forEach(checkName)
    // A client that has left is subscribed to nothing.
    if (kind === Kind.UNSUBSCRIBE && !this.connected) return
    const joined = masks.join('\0')
    const shown = masks.length === 1 ? (masks[0] as string) : `${masks.length} masks`
    await this.#acked(kind, what, shown, '', 0, undefined, () => {
      checkSize(this.#link.limitBytes, what, '', '', 0, joined)
      return joined
    })
  }

  // ---- RPC

  /**
   * Calls a method of another client and resolves with its result. Params are sent as MessagePack, a `Uint8Array` as
   * it is; the result is read as MessagePack unless `raw`.
   *
   * Rejects with {@link RpcError} if the handler failed, `ERR_BUS_NOT_REGISTERED` if there is no such client,
   * `ERR_BUS_TIMEOUT` after `timeout` milliseconds (default 5,000), `ERR_BUS_DISCONNECTED` if the connection ends, and
   * with the reason of `signal`. With `reply: false` it resolves once the broker has delivered the call.
   */
  call(
    target: string,
    method: string,
    params: unknown,
    options: CallOptions & { reply: false },
  ): Promise<void>
  call<R = unknown>(target: string, method: string, params?: unknown, options?: CallOptions): Promise<R>
  call(target: string, method: string, params?: unknown, options?: CallOptions): Promise<unknown> {
    if (!this.#rpc) return Promise.reject(noRpc())
    if (options?.reply !== false) return this.#caller.call(target, method, params, options)
    const flags = options.realtime === true ? Flag.REALTIME : 0
    return this.#acked(Kind.REQUEST, 'call to', target, method, flags, options, () => {
      const payload = rpcBytes(params)
      checkSize(this.#link.limitBytes, 'call to', target, method, 5, payload)
      return payload
    })
  }

  /** Sends an RPC notification: the receiver's `onNotification` gets it. Payloads as for {@link Client.send}. */
  notify(target: string, payload?: Payload): boolean {
    if (!this.#rpc) throw noRpc()
    const bytes = messageBytes(payload)
    checkSize(this.#link.limitBytes, 'notification to', target, '', 1, bytes)
    return this.#link.submit(Kind.NOTIFICATION, 0, target, '', 0, 0, bytes)
  }

  /**
   * Answers calls of these methods. A handler gets the params and a context, and returns the result or a Promise of
   * it; undefined is an empty result. What it throws is answered with "internal error" (-32603) and raises `fault`; an
   * {@link RpcError} is answered as it is. Throws `ERR_BUS_ARGUMENT` if one of the methods is served already.
   */
  serve(handlers: Record<string, Handler>, options: ServeOptions = {}): RpcServer {
    this.#checkOpen()
    if (!this.#rpc) throw noRpc()
    return this.#server.serve(handlers, options)
  }

  /** A handler wants to know when its caller leaves. */
  #watchLeaving(): void {
    if (this.#watching || !this.connected) return
    this.#watching = true
    const left = ({ data }: { data: Uint8Array }): void => {
      const event = announcement(data)
      if (event?.s === 'unreg' && typeof event.d === 'string') this.#server.left(event.d)
    }
    // Where it is denied, only cancelling is learned.
    this.subscribe(BROKER_INFO, { callback: left }).ready.catch(() => undefined)
  }

  // ---- life

  /**
   * Opens a further connection of this client, named `<primary>%%<number>`: a client of its own with its own queue and
   * subscriptions, which the broker ends with its primary.
   */
  async secondary(): Promise<Client> {
    this.#checkOpen()
    const [primary] = this.name.split('%%') as [string]
    for (let tries = 16; ; tries -= 1) {
      const name = `${primary}%%${this.#secondaries}`
      this.#secondaries += 1
      try {
        return await Client.open(this.#rpc, (deliveries) => this.#link.another(name, deliveries))
      } catch (error) {
        // Any connection of this client may have taken the number.
        if (tries > 1 && error instanceof BusError && error.code === 'ERR_BUS_BUSY') continue
        throw error
      }
    }
  }

  /** The open client keeps its thread alive. The default of `connect()`. */
  ref(): this {
    this.#link.hold(true)
    return this
  }

  /** The thread may end while the client is open. The default of `broker.client()`. What is awaited holds it all the same. */
  unref(): this {
    this.#link.hold(false)
    return this
  }

  /**
   * Ends the connection once what was sent is on its way. Calls that wait reject with `ERR_BUS_CLOSED`, iterators end.
   * Closing again does nothing.
   */
  async close(): Promise<void> {
    await this.#link.close()
  }

  /** As {@link Client.close}. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  #ended(error: BusError | undefined): void {
    if (this.#reason !== undefined) return
    const reason = error ?? new BusError('ERR_BUS_CLOSED', `client ${this.name} is closed`)
    this.#reason = reason
    this.#acks.fail(reason)
    this.#caller.fail(reason)
    this.#server.finish(reason)
    this.#streams.finish(error)
    for (const waiting of [...this.#drained]) waiting.reject(reason)
    this.#resolveClosed(error)
    this.#guarded(() => this.emit('close', error))
  }

  #checkOpen(): void {
    if (this.#reason !== undefined) throw this.#reason
  }

  /** Something of the user's threw: it is told, and nothing else is harmed by it. */
  #fault(error: unknown): void {
    if (this.listenerCount('fault') > 0) {
      try {
        this.emit('fault', error)
        return
      } catch (second) {
        warn(second)
      }
    }
    warn(error)
  }

  /** Runs listeners of the user: what they throw is a fault. */
  #guarded(run: () => void): void {
    try {
      run()
    } catch (error) {
      this.#fault(error)
    }
  }
}

/** What the broker announces; what makes no sense announces nothing. */
function announcement(data: Uint8Array): { s?: unknown; d?: unknown } | null | undefined {
  try {
    return decode(data) as { s?: unknown; d?: unknown } | null
  } catch {
    return undefined
  }
}

function noRpc(): BusError {
  return new BusError('ERR_BUS_NOT_SUPPORTED', 'this client was opened with rpc: false')
}

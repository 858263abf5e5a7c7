// Calls this client answers: finding the handler, running it, and telling it that nobody waits any more.

import { Flag, Kind } from './batch'
import { BusError, RpcError } from './errors'
import type { Link, Name } from './link'
import { decode, encode } from './msgpack'
import { integer, type ServeOptions } from './options'
import { checkSize, isBytes, rpcBytes } from './payload'

const PARSE = -32700
const METHOD_NOT_FOUND = -32601
const INTERNAL = -32603
/** -32000 minus the bus codes "busy" and "data". */
const BUSY = -32118
const DATA = -32114

const CONCURRENCY = 4096

/** A handler: params in, result or a Promise of it out. */
export type Handler = (params: never, context: CallContext) => unknown

/** What a handler may know about its call. */
export class CallContext {
  /** The full name of the caller. */
  readonly sender: string
  /** The method as called. */
  readonly method: string
  /** True if the caller asked for realtime. */
  readonly realtime: boolean
  readonly #owner: ServerOwner
  #abort: AbortController | undefined
  /** Why nobody waits any more. */
  #reason: BusError | undefined

  /** @internal */
  constructor(sender: string, method: string, realtime: boolean, owner: ServerOwner) {
    this.sender = sender
    this.method = method
    this.realtime = realtime
    this.#owner = owner
  }

  /**
   * Aborts when the caller cancels or goes away, or this client is closed: nobody will see the result. Going away is
   * learned from the broker's announcements, for primary names.
   */
  get signal(): AbortSignal {
    if (this.#abort === undefined) {
      this.#abort = new AbortController()
      // The handler may look only after it happened.
      if (this.#reason !== undefined) this.#abort.abort(this.#reason)
      else this.#owner.watchLeaving()
    }
    return this.#abort.signal
  }

  /** Nobody waits any more. @internal */
  abandon(reason: BusError): void {
    this.#reason = reason
    this.#abort?.abort(reason)
  }

  /** The handler was told that nobody waits. @internal */
  get wasAborted(): boolean {
    return this.#abort?.signal.aborted === true
  }
}

/** Methods that are served until it is closed. */
export interface RpcServer extends Disposable {
  /** The methods it answers. */
  readonly methods: readonly string[]
  /** Calls of it that are at work. */
  readonly active: number
  /** Answers no further call; those at work are finished. */
  close(): void
}

class Served implements RpcServer {
  readonly methods: readonly string[]
  readonly options: ServeOptions
  readonly most: number
  readonly #close: (served: Served) => void
  active = 0

  constructor(methods: string[], options: ServeOptions, close: (served: Served) => void) {
    this.methods = Object.freeze(methods)
    this.options = options
    this.most = integer('concurrency', options.concurrency, 1, 2 ** 31) ?? CONCURRENCY
    this.#close = close
  }

  close(): void {
    this.#close(this)
  }

  [Symbol.dispose](): void {
    this.close()
  }
}

/** A method that is served, and by whom. */
interface Method {
  readonly served: Served
  readonly handler: Handler
}

/** What the server side needs from its client. */
export interface ServerOwner {
  link(): Link
  fault(error: unknown): void
  /** From now on `left` has to be called when a client leaves the broker. */
  watchLeaving(): void
}

/** The handlers of one client. */
export class Server {
  readonly #owner: ServerOwner
  readonly #methods = new Map<string, Method>()
  readonly #servers = new Set<Served>()
  readonly #running = new Map<string, CallContext>()

  constructor(owner: ServerOwner) {
    this.#owner = owner
  }

  /** Serves methods until the returned server is closed. */
  serve(handlers: Record<string, Handler>, options: ServeOptions): RpcServer {
    const { onNotification } = options
    if (onNotification !== undefined && typeof onNotification !== 'function') {
      throw new BusError('ERR_BUS_ARGUMENT', `onNotification is a function, not ${typeof onNotification}`)
    }
    const entries = new Map(Object.entries(handlers))
    for (const [method, handler] of entries) {
      if (typeof handler !== 'function') {
        throw new BusError(
          'ERR_BUS_ARGUMENT',
          `handler of ${JSON.stringify(method)} is a function, not ${typeof handler}`,
        )
      }
      if (this.#methods.has(method)) {
        throw new BusError('ERR_BUS_ARGUMENT', `method ${JSON.stringify(method)} is served already`)
      }
    }
    const served = new Served([...entries.keys()], options, (closed) => this.#close(closed))
    for (const [method, handler] of entries) this.#methods.set(method, { served, handler })
    this.#servers.add(served)
    return served
  }

  #close(served: Served): void {
    if (!this.#servers.delete(served)) return
    for (const method of served.methods) this.#methods.delete(method)
  }

  notification(realtime: boolean, sender: Name, data: Uint8Array): void {
    for (const { options } of [...this.#servers]) {
      if (options.onNotification === undefined) continue
      try {
        const result = options.onNotification(data, { sender: sender.text, realtime })
        if (isThenable(result)) result.then(undefined, (error: unknown) => this.#owner.fault(error))
      } catch (error) {
        this.#owner.fault(error)
      }
    }
  }

  request(realtime: boolean, sender: Name, method: Name | undefined, id: number, params: Uint8Array): void {
    const caller = sender.text
    if (method === undefined) {
      this.#fail(caller, id, realtime, new RpcError(DATA, 'method is not UTF-8'))
      return
    }
    const found = this.#methods.get(method.text)
    if (found === undefined) {
      this.#fail(caller, id, realtime, new RpcError(METHOD_NOT_FOUND))
      return
    }
    if (found.served.active >= found.served.most) {
      this.#fail(caller, id, realtime, new RpcError(BUSY))
      return
    }
    this.#run(found, new CallContext(caller, method.text, realtime, this.#owner), id, params)
  }

  #run({ served, handler }: Method, context: CallContext, id: number, bytes: Uint8Array): void {
    const { sender: caller, realtime } = context
    let params: unknown = bytes
    if (served.options.raw !== true) {
      try {
        params = bytes.length === 0 ? undefined : decode(bytes)
      } catch (error) {
        this.#fail(
          caller,
          id,
          realtime,
          new RpcError(PARSE, error instanceof Error ? error.message : undefined),
        )
        return
      }
    }
    let result: unknown
    let promise: Promise<unknown> | undefined
    try {
      result = handler(params as never, context)
      // What merely looks like a Promise may throw where it is looked at, or settle twice.
      if (isThenable(result)) promise = Promise.resolve(result)
    } catch (error) {
      this.#failed(served, caller, id, realtime, error)
      return
    }
    if (promise === undefined) {
      this.#answer(served, caller, id, realtime, result)
      return
    }
    // A number of 0 names many calls, so it cancels none.
    const key = id === 0 ? undefined : `${id} ${caller}`
    if (key !== undefined) this.#running.set(key, context)
    served.active += 1
    const finish = (): void => {
      served.active -= 1
      if (key !== undefined && this.#running.get(key) === context) this.#running.delete(key)
    }
    promise.then(
      (value) => {
        finish()
        this.#answer(served, caller, id, realtime, value)
      },
      (error: unknown) => {
        finish()
        // It stopped because nobody waits, as it was asked to.
        if (context.wasAborted) return
        this.#failed(served, caller, id, realtime, error)
      },
    )
  }

  #answer(served: Served, caller: string, id: number, realtime: boolean, result: unknown): void {
    if (id === 0 || !this.#owner.link().isOpen) return
    try {
      const link = this.#owner.link()
      const bytes = rpcBytes(result)
      checkSize(link.limitBytes, 'reply to', caller, '', 5, bytes)
      link.submit(Kind.REPLY, realtime ? Flag.REALTIME : 0, caller, '', id, 0, bytes)
    } catch (error) {
      // The caller is told at once instead of running into its deadline.
      this.#failed(served, caller, id, realtime, error)
    }
  }

  #failed(served: Served, caller: string, id: number, realtime: boolean, error: unknown): void {
    if (error instanceof RpcError) {
      this.#fail(caller, id, realtime, error)
      return
    }
    const text = served.options.exposeErrors === true && error instanceof Error ? error.message : undefined
    this.#fail(caller, id, realtime, new RpcError(INTERNAL, text))
    this.#owner.fault(error)
  }

  #fail(caller: string, id: number, realtime: boolean, error: RpcError): void {
    if (id === 0 || !this.#owner.link().isOpen) return
    try {
      const bytes = errorBytes(error.data)
      this.#owner.link().submitError(caller, id, error.rpcCode, realtime ? Flag.REALTIME : 0, bytes)
    } catch (failure) {
      this.#owner.fault(failure)
    }
  }

  /** The caller no longer waits. */
  cancel(sender: Name, id: number): void {
    const key = `${id} ${sender.text}`
    const running = this.#running.get(key)
    if (running === undefined) return
    this.#running.delete(key)
    running.abandon(new BusError('ERR_BUS_TIMEOUT', `${sender.text} no longer waits`))
  }

  /** A client has left the broker. */
  left(name: string): void {
    for (const [key, running] of this.#running) {
      if (running.sender !== name && !running.sender.startsWith(`${name}%%`)) continue
      this.#running.delete(key)
      running.abandon(new BusError('ERR_BUS_DISCONNECTED', `${name} has left`))
    }
  }

  /** The connection has ended. */
  finish(error: BusError): void {
    for (const running of this.#running.values()) running.abandon(error)
    this.#running.clear()
    for (const served of [...this.#servers]) this.#close(served)
  }
}

/** What is sent with an error: text and bytes as they are, the rest as MessagePack. */
function errorBytes(data: unknown): Uint8Array | string {
  if (data === undefined) return ''
  if (typeof data === 'string' || isBytes(data)) return data
  // A small integer would be a byte that reads as text; 64 bits of one never do.
  return encode(Number.isSafeInteger(data) ? BigInt(data as number) : data)
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  // Bytes are the most frequent result, and a look-up that finds nothing costs as much as it takes to send them.
  if (value === null || typeof value !== 'object' || value instanceof Uint8Array) return false
  return typeof (value as { then?: unknown }).then === 'function'
}

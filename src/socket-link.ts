// The link of a client over a socket: Node's socket, Rust's codec. Reading goes into one buffer, is decoded in one call
// and delivered before the next; what a turn submits is encoded by Rust and leaves in one write.

import net from 'node:net'
import { Kind } from './batch'
import { type BoundaryLink, boundary } from './boundary'
import { BusError, native, wireError } from './errors'
import type { Deliveries, Link } from './link'
import { type ConnectOptions, connectLimits } from './options'

const READ_BYTES = 64 << 10
const FRAME_BYTES_UNIX = 64 << 20
const FRAME_BYTES_NETWORK = 16 << 20
/** Longest path of a UNIX socket, in bytes: a longer one would be cut, and lead to another socket. */
const PATH_BYTES = process.platform === 'linux' ? 107 : 103
/** How long a closed link waits for the broker to end its side, in milliseconds. */
const LINGER = 1_000

/** Where a socket goes. */
export type SocketAddress = { path: string } | { host: string; port: number }

/** A path or host and port; throws if the text is neither. */
export function socketAddress(text: string): SocketAddress {
  const unix = /^unix:(?:\/\/)?(.+)$/s.exec(text)?.[1]
  if (unix !== undefined) return { path: checkedPath(unix) }
  if (text.startsWith('/') || /\.(?:sock|socket|ipc)$/.test(text)) return { path: checkedPath(text) }
  const [, host, port] = /^(?:tcp:\/\/)?(\[[^\]]+\]|[^/:]+):(\d{1,5})\/?$/.exec(text) ?? []
  if (host === undefined || Number(port) > 65_535) {
    throw new BusError(
      'ERR_BUS_ADDRESS',
      `${JSON.stringify(text)} is neither unix:/path nor tcp://host:port nor the address of a broker in this process`,
    )
  }
  return { host: host.replace(/^\[|\]$/g, ''), port: Number(port) }
}

function checkedPath(path: string): string {
  if (process.platform === 'win32') {
    const shown = JSON.stringify(path.slice(0, 64))
    throw new BusError(
      'ERR_BUS_ADDRESS',
      `cannot connect to ${shown}: UNIX sockets are not available on this platform`,
    )
  }
  const bytes = Buffer.byteLength(path)
  if (bytes <= PATH_BYTES && !path.includes('\0')) return path
  const fault =
    bytes > PATH_BYTES ? `has ${bytes} bytes, the limit of a socket path is ${PATH_BYTES}` : 'holds a NUL'
  throw new BusError('ERR_BUS_ADDRESS', `${JSON.stringify(path.slice(0, 64))} ${fault}`)
}

/** Settings of a socket link, checked. */
type Settings = ReturnType<typeof settings>

function settings(text: string, options: ConnectOptions) {
  const address = socketAddress(text)
  const limits = connectLimits(options)
  const frameBytes = limits.frameBytes ?? ('path' in address ? FRAME_BYTES_UNIX : FRAME_BYTES_NETWORK)
  return { ...limits, address, text, rpc: options.rpc !== false, frameBytes }
}

/** Connects and logs in. */
export function dial(text: string, options: ConnectOptions, deliveries: Deliveries): Promise<Link> {
  return SocketLink.dial(settings(text, options), options.name, options.signal, deliveries)
}

class SocketLink implements Link, BoundaryLink {
  readonly name: string
  readonly deliveries: Deliveries
  readonly isLocal = false
  readonly #settings: Settings
  readonly id: number
  readonly #socket: net.Socket
  #connected = false
  #dirty = false
  #congested = false
  #error: BusError | undefined
  #loggedIn: ((error: BusError | undefined) => void) | undefined
  #heard = performance.now()
  #ticked = performance.now()
  #ticker: NodeJS.Timeout | undefined
  readonly #gone: Promise<void>

  static dial(
    settings: Settings,
    name: string,
    signal: AbortSignal | undefined,
    deliveries: Deliveries,
  ): Promise<Link> {
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted()
      const link = new SocketLink(settings, name, deliveries)
      const late = `${settings.text} did not let ${name} in within ${settings.timeout} ms`
      const timer = setTimeout(() => settle(new BusError('ERR_BUS_TIMEOUT', late)), settings.timeout)
      const aborted = (): void => settle(signal?.reason)
      const settle = (error: unknown): void => {
        clearTimeout(timer)
        signal?.removeEventListener('abort', aborted)
        link.#loggedIn = undefined
        if (error === undefined) {
          link.#keepAlive()
          deliveries.opened(link)
          resolve(link)
          return
        }
        link.#abandon(new BusError('ERR_BUS_CLOSED', `${name} did not connect`))
        reject(error)
      }
      signal?.addEventListener('abort', aborted, { once: true })
      link.#loggedIn = settle
    })
  }

  private constructor(settings: Settings, name: string, deliveries: Deliveries) {
    this.name = name
    this.deliveries = deliveries
    this.#settings = settings
    this.id = native(() => boundary.native.socket(name, settings.frameBytes, settings.rpc))
    boundary.open(this)
    const chunk = Buffer.allocUnsafeSlow(READ_BYTES)
    this.#socket = net.connect({
      ...settings.address,
      noDelay: true,
      onread: {
        buffer: chunk,
        callback: (bytes: number) => this.#read(chunk, bytes),
      },
    })
    this.#socket.on('connect', () => {
      this.#connected = true
    })
    this.#socket.on('drain', () => this.relieved())
    this.#socket.on('error', (error) => this.#failed(error))
    this.#gone = new Promise((resolve) => {
      this.#socket.on('close', () => {
        this.#end(this.#disconnected('the broker ended the connection'))
        resolve()
      })
    })
    // The login goes out as soon as the socket is connected.
    this.written()
  }

  get limitBytes(): number {
    return this.#settings.frameBytes
  }

  get isOpen(): boolean {
    return this.#error === undefined
  }

  get isCongested(): boolean {
    return this.#congested
  }

  #read(chunk: Uint8Array, bytes: number): boolean {
    this.#heard = performance.now()
    if (this.#error !== undefined) return true
    const readsOn = boundary.receive(this, chunk, bytes)
    // A step of the login is answered at once.
    if (this.#loggedIn !== undefined) this.written()
    return readsOn
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
    this.#check()
    boundary.write(kind, flags, this.id, first, second, call, op, payload)
    return !this.#congested
  }

  submitError(target: string, call: number, code: number, flags: number, data: Uint8Array | string): void {
    this.#check()
    boundary.writeError(this.id, target, call, code, flags, data)
  }

  #check(): void {
    if (this.#error !== undefined) throw this.#error
    if (this.#congested && this.#socket.writableLength >= this.#settings.queueBytes) {
      const { writableLength } = this.#socket
      throw new BusError(
        'ERR_BUS_OVERFLOW',
        `${writableLength} bytes wait for ${this.#settings.text}, the limit is ${this.#settings.queueBytes}`,
      )
    }
    if (!this.#dirty) {
      this.#dirty = true
      boundary.markDirty(this)
    }
  }

  flush(): void {
    boundary.submit()
  }

  /** The batch was submitted: takes what Rust made of it to the socket. */
  written(): void {
    this.#dirty = false
    const bytes = boundary.take(this.id)
    if (bytes !== undefined && !this.#socket.write(bytes)) this.#congested = true
  }

  readOn(): void {
    if (this.#loggedIn !== undefined) this.written()
    this.#socket.resume()
  }

  congested(): void {
    this.#congested = true
  }

  relieved(): void {
    this.#congested = false
    this.deliveries.relieved()
  }

  refused(code: number): void {
    this.deliveries.refused(code)
  }

  loggedIn(code: number): void {
    this.#loggedIn?.(code === 0 ? undefined : wireError(code, `login of ${this.name.slice(0, 64)}`))
  }

  /** Pings, and watches for a broker that says nothing. */
  #keepAlive(): void {
    const { pingInterval, silenceLimit } = this.#settings
    this.#ticker = setInterval(() => {
      const now = performance.now()
      // While this process was busy it did not listen, which is no silence of the broker's.
      const late = now - this.#ticked - pingInterval
      if (late > pingInterval) this.#heard = Math.min(now, this.#heard + late)
      this.#ticked = now
      if (now - this.#heard > silenceLimit) {
        this.#abandon(
          new BusError('ERR_BUS_TIMEOUT', `${this.#settings.text} said nothing for ${silenceLimit} ms`),
        )
      } else if (!this.#congested) {
        this.submit(Kind.PING, 0, '', '', 0, 0, undefined)
      }
    }, pingInterval)
    this.#ticker.unref()
    this.#ticked = performance.now()
  }

  hold(hold: boolean): void {
    if (hold) this.#socket.ref()
    else this.#socket.unref()
  }

  another(name: string, deliveries: Deliveries): Promise<Link> {
    return SocketLink.dial(this.#settings, name, undefined, deliveries)
  }

  close(): Promise<void> {
    if (this.#error === undefined) {
      boundary.submit()
      this.#socket.end()
      const timer = setTimeout(() => this.#socket.destroy(), LINGER)
      this.#end(undefined)
      void this.#gone.then(() => clearTimeout(timer))
    }
    return this.#gone
  }

  ended(reason: string): void {
    this.#abandon(new BusError('ERR_BUS_PROTOCOL', reason))
  }

  #failed(error: Error): void {
    const connecting = !this.#connected
    const text = connecting
      ? `cannot connect to ${this.#settings.text}`
      : `connection to ${this.#settings.text} failed`
    const code = connecting ? 'ERR_BUS_ADDRESS' : 'ERR_BUS_DISCONNECTED'
    this.#end(new BusError(code, `${text}: ${error.message}`, { cause: error }))
  }

  #disconnected(reason: string): BusError {
    return new BusError(
      'ERR_BUS_DISCONNECTED',
      `${this.name} is disconnected from ${this.#settings.text}: ${reason}`,
    )
  }

  /** Ends the connection at once. */
  #abandon(error: BusError): void {
    this.#socket.destroy()
    this.#end(error)
  }

  #end(error: BusError | undefined): void {
    if (this.#error !== undefined) return
    this.#error = error ?? new BusError('ERR_BUS_CLOSED', `client ${this.name} is closed`)
    clearInterval(this.#ticker)
    boundary.close(this.id)
    const loggedIn = this.#loggedIn
    if (loggedIn !== undefined) loggedIn(this.#error)
    else this.deliveries.closed(error)
  }
}

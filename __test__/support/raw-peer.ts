// One end of a connection whose bytes a test writes and reads by hand.

import net from 'node:net'
import type { Owner } from './temp'
import { soon } from './within'

/** A turn of the event loop with all that was ready in it: what was written before has been read by now. */
export async function turn(): Promise<void> {
  // One immediate may run before sockets are looked at, the second comes after.
  for (let index = 0; index < 2; index += 1) await new Promise((resolve) => setImmediate(resolve))
}

/** A connected socket. */
export class RawPeer {
  readonly socket: net.Socket
  /** Resolves once the other side has ended, or the connection is gone. */
  readonly ended: Promise<void>
  #received = Buffer.alloc(0)
  #keeps = true
  #hasEnded = false
  #waiting: (() => void)[] = []

  /** Connects to `unix:/path` or `tcp://host:port`; gone when the test is over. */
  static connect(t: Owner, address: string): Promise<RawPeer> {
    const [, path] = /^unix:(.+)$/.exec(address) ?? []
    const { hostname, port } = path === undefined ? new URL(address) : { hostname: '', port: '' }
    const socket =
      path === undefined
        ? net.connect({ host: hostname, port: Number(port), noDelay: true })
        : net.connect(path)
    t.teardown(() => socket.destroy())
    const connected = new Promise<RawPeer>((resolve, reject) => {
      const peer = new RawPeer(socket)
      socket.once('connect', () => resolve(peer))
      socket.once('error', reject)
    })
    return soon(connected, `a connection to ${address}`)
  }

  constructor(socket: net.Socket) {
    this.socket = socket
    // Whoever is cut off in the middle of a write sees its end, which is all a test asks for.
    socket.on('error', () => undefined)
    socket.on('data', (chunk) => {
      if (this.#keeps) this.#received = Buffer.concat([this.#received, chunk])
      this.#wake()
    })
    this.ended = new Promise((resolve) => {
      const end = (): void => {
        this.#hasEnded = true
        this.#wake()
        resolve()
      }
      socket.on('end', end)
      socket.on('close', end)
    })
  }

  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve()
  }

  /** Bytes received and not taken. */
  get waiting(): number {
    return this.#received.length
  }

  get hasEnded(): boolean {
    return this.#hasEnded
  }

  /** Writes bytes; false if they wait for the other side to read. */
  write(bytes: Uint8Array | readonly number[]): boolean {
    return this.socket.write(bytes instanceof Uint8Array ? bytes : Uint8Array.from(bytes))
  }

  /** Writes bytes one part at a time, so that the other side reads them one by one. */
  async writeSplit(...parts: readonly Uint8Array[]): Promise<void> {
    for (const part of parts) {
      if (part.length > 0) this.write(part)
      await turn()
    }
  }

  /** Waits for more bytes or the end, at most `ms` milliseconds; false if neither came. */
  async more(ms: number): Promise<boolean> {
    if (this.#hasEnded) return true
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<false>((resolve) => {
      timer = setTimeout(() => resolve(false), ms)
    })
    const came = new Promise<true>((resolve) => this.#waiting.push(() => resolve(true)))
    const result = await Promise.race([came, late])
    clearTimeout(timer)
    return result
  }

  /** At most `count` of the bytes received. */
  takeReady(count = this.#received.length): Buffer {
    const taken = this.#received.subarray(0, count)
    this.#received = this.#received.subarray(taken.length)
    return taken
  }

  /** Exactly the next `count` bytes. */
  take(count: number, what = `${count} bytes`): Promise<Buffer> {
    return soon(this.#take(count, what), what)
  }

  async #take(count: number, what: string): Promise<Buffer> {
    while (this.#received.length < count) {
      if (this.#hasEnded) throw new Error(`the connection ended instead of giving ${what}`)
      await new Promise<void>((resolve) => this.#waiting.push(resolve))
    }
    return this.takeReady(count)
  }

  /** Reads on and forgets what it reads. */
  discard(): void {
    this.#keeps = false
    this.#received = Buffer.alloc(0)
    this.socket.resume()
  }

  /** Ends the sending side once everything is written. */
  end(): void {
    this.socket.end()
  }

  /** Ends the connection at once. */
  destroy(): void {
    this.socket.destroy()
  }
}

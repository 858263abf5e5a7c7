// A peer that speaks the broker's side of the wire by hand, for answers a real broker gives rarely or never.

import net from 'node:net'
import type { ExecutionContext } from 'ava'
import { socketPath } from './temp'
import { soon } from './within'

/** What it greets with: magic and version 1. */
export const GREETING = Buffer.from([0xeb, 0x01, 0x00])
const DONE = 0x01

/** One operation it received. */
export interface Operation {
  readonly id: number
  /** Operation and QoS bits. */
  readonly flags: number
  readonly body: Buffer
}

/** A listening server that is gone with its connections when the test is over. */
export async function serveRaw(t: ExecutionContext, accept: (socket: net.Socket) => void): Promise<string> {
  const sockets = new Set<net.Socket>()
  const server = net.createServer((socket) => {
    sockets.add(socket)
    // A client that leaves in the middle is nobody's failure.
    socket.on('error', () => undefined)
    accept(socket)
  })
  const path = process.platform === 'win32' ? undefined : socketPath(t)
  await new Promise<void>((resolve) =>
    path === undefined ? server.listen(0, '127.0.0.1', resolve) : server.listen(path, resolve),
  )
  t.teardown(async () => {
    for (const socket of sockets) socket.destroy()
    await new Promise((resolve) => server.close(resolve))
  })
  return path === undefined ? `tcp://127.0.0.1:${(server.address() as net.AddressInfo).port}` : `unix:${path}`
}

/** Lets one client in and leaves every answer to the test. */
export class FakeBroker {
  readonly #operations: Operation[] = []
  readonly #waiting: ((operation: Operation) => void)[] = []
  #received = Buffer.alloc(0)
  #socket: net.Socket | undefined
  #step: 'greeting' | 'name' | 'open' = 'greeting'
  address = ''

  /** Listens; `login` is its answer to the name. */
  static async listen(t: ExecutionContext, login = DONE): Promise<FakeBroker> {
    const broker = new FakeBroker()
    broker.address = await serveRaw(t, (socket) => {
      broker.#socket = socket
      socket.on('data', (chunk) => broker.#read(chunk, login))
      socket.write(GREETING)
    })
    return broker
  }

  #read(chunk: Buffer, login: number): void {
    this.#received = Buffer.concat([this.#received, chunk])
    if (this.#step === 'greeting' && this.#received.length >= 3) {
      this.#received = this.#received.subarray(3)
      this.#step = 'name'
      this.write([DONE])
    }
    if (this.#step === 'name' && this.#received.length >= 2) {
      const length = 2 + this.#received.readUInt16LE(0)
      if (this.#received.length < length) return
      this.#received = this.#received.subarray(length)
      this.#step = 'open'
      this.write([login])
    }
    while (this.#step === 'open' && this.#received.length >= 9) {
      const flags = this.#received[4] as number
      const length = flags === 0 ? 0 : this.#received.readUInt32LE(5)
      if (this.#received.length < 9 + length) return
      const operation = {
        id: this.#received.readUInt32LE(0),
        flags,
        body: this.#received.subarray(9, 9 + length),
      }
      this.#received = this.#received.subarray(9 + length)
      // Pings are answered by nobody.
      if (flags !== 0) (this.#waiting.shift() ?? ((one) => this.#operations.push(one)))(operation)
    }
  }

  /** The next operation. */
  next(): Promise<Operation> {
    const operation = this.#operations.shift()
    if (operation !== undefined) return Promise.resolve(operation)
    return soon(new Promise((resolve) => this.#waiting.push(resolve)), 'an operation reaches the broker')
  }

  /** Operations that were received and not taken. */
  get pending(): number {
    return this.#operations.length
  }

  /** Sends bytes. */
  write(bytes: Uint8Array | readonly number[]): void {
    this.#socket?.write(Uint8Array.from(bytes))
  }

  /** Acknowledges an operation; 1 is "done". */
  acknowledge(id: number, code: number): void {
    const bytes = Buffer.from([0xfe, 0, 0, 0, 0, code])
    bytes.writeUInt32LE(id, 1)
    this.write(bytes)
  }

  /** Reads no more, so that what the client sends stays with the client. */
  pause(): void {
    this.#socket?.pause()
  }

  /** Reads on. */
  resume(): void {
    this.#socket?.resume()
  }

  /** Ends the connection at once. */
  end(): void {
    this.#socket?.destroy()
  }
}

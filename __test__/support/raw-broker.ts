// The broker's side of the wire, byte by byte: frames, and a listener that says only what a test lets it say. Run as a
// program it lets everybody in and floods them.

import net from 'node:net'
import type { ExecutionContext } from 'ava'
import { GREETING, type Operation, serveRaw } from './fake-broker'
import { RawPeer } from './raw-peer'
import { soon } from './within'

/** Kinds of event frames. */
export const Event = { PING: 0x00, PUBLISH: 0x01, MESSAGE: 0x12, BROADCAST: 0x13, ACK: 0xfe } as const

const DONE = 0x01
const NUL = Buffer.from([0])

/** An event frame; `length` is what its header says. */
export function eventFrame(kind: number, body: Uint8Array, realtime = 0, length = body.length): Buffer {
  const frame = Buffer.alloc(6 + body.length)
  frame[0] = kind
  frame.writeUInt32LE(length, 1)
  frame[5] = realtime
  frame.set(body, 6)
  return frame
}

/** A text with its NUL. */
export function text(field: string): Buffer {
  return Buffer.from(`${field}\0`)
}

/** A message, or a broadcast. */
export function message(sender: string, payload: Uint8Array | string, kind: number = Event.MESSAGE): Buffer {
  return eventFrame(kind, Buffer.concat([text(sender), Buffer.from(payload)]))
}

/** A publication. */
export function publication(sender: string, topic: string, payload: Uint8Array | string): Buffer {
  return eventFrame(Event.PUBLISH, Buffer.concat([text(sender), text(topic), Buffer.from(payload)]))
}

/** An acknowledgement. */
export function acknowledgement(id: number, code: number = DONE): Buffer {
  const frame = Buffer.alloc(6)
  frame[0] = Event.ACK
  frame.writeUInt32LE(id, 1)
  frame[5] = code
  return frame
}

/** RPC frames, as payloads of messages. */
export const rpc = {
  notification: (data: Uint8Array | string) => Buffer.concat([Buffer.from([0x00]), Buffer.from(data)]),
  request: (id: number, method: Uint8Array | string, params: Uint8Array = Buffer.alloc(0)) =>
    Buffer.concat([numbered(0x01, id), Buffer.from(method), NUL, params]),
  reply: (id: number, result: Uint8Array | string) =>
    Buffer.concat([numbered(0x11, id), Buffer.from(result)]),
  error: (id: number, code: number, data: Uint8Array | string = '') => {
    const bytes = Buffer.alloc(2)
    bytes.writeInt16LE(code)
    return Buffer.concat([numbered(0x12, id), bytes, Buffer.from(data)])
  },
  cancel: (id: number) => numbered(0x13, id),
}

function numbered(kind: number, id: number): Buffer {
  const bytes = Buffer.alloc(5)
  bytes[0] = kind
  bytes.writeUInt32LE(id, 1)
  return bytes
}

/** A message's target and payload, or a publication's topic and payload. */
export function parted(body: Buffer): [first: string, rest: Buffer] {
  const end = body.indexOf(0)
  return [body.toString('utf8', 0, end), body.subarray(end + 1)]
}

/** A client that was let in. */
export class RawSession {
  readonly peer: RawPeer
  /** The name it gave. */
  readonly name: string

  constructor(peer: RawPeer, name: string) {
    this.peer = peer
    this.name = name
  }

  write(...frames: readonly Uint8Array[]): boolean {
    return this.peer.write(Buffer.concat(frames))
  }

  /** The next operation; pings are passed over. */
  async operation(): Promise<Operation> {
    for (;;) {
      const head = await this.peer.take(9, 'an operation')
      const flags = head[4] as number
      if (flags === 0) continue
      const body = await this.peer.take(head.readUInt32LE(5), 'the body of an operation')
      return { id: head.readUInt32LE(0), flags, body }
    }
  }

  /** The next operation, acknowledged as done if that was asked for. */
  async acknowledged(): Promise<Operation> {
    const operation = await this.operation()
    if ((operation.flags & 0x40) !== 0) this.write(acknowledgement(operation.id))
    return operation
  }
}

/** A listener whose connections are played by hand. */
export class RawBroker {
  readonly #accepted: RawPeer[] = []
  readonly #waiting: ((peer: RawPeer) => void)[] = []
  address = ''

  static async listen(t: ExecutionContext): Promise<RawBroker> {
    const broker = new RawBroker()
    broker.address = await serveRaw(t, (socket) => {
      const peer = new RawPeer(socket)
      const waiting = broker.#waiting.shift()
      if (waiting === undefined) broker.#accepted.push(peer)
      else waiting(peer)
    })
    return broker
  }

  /** The next connection; nothing was said on it yet. */
  accept(): Promise<RawPeer> {
    const peer = this.#accepted.shift()
    if (peer !== undefined) return Promise.resolve(peer)
    return soon(new Promise((resolve) => this.#waiting.push(resolve)), 'a connection')
  }

  /** The next connection, let in under the name it gives. */
  async letIn(): Promise<RawSession> {
    const peer = await this.accept()
    peer.write(GREETING)
    await peer.take(GREETING.length, 'a greeting')
    peer.write([DONE])
    const length = (await peer.take(2, 'a name')).readUInt16LE(0)
    const name = (await peer.take(length, 'a name')).toString()
    peer.write([DONE])
    return new RawSession(peer, name)
  }
}

/** Bytes of one write of a flood. */
const FLOOD_CHUNK = 64 << 10

/** Lets everybody in without listening to what they say, and sends as fast as they read. */
function flood(path: string, frame: Buffer): void {
  const chunk = Buffer.alloc(Math.floor(FLOOD_CHUNK / frame.length) * frame.length).fill(frame)
  const server = net.createServer((socket) => {
    const pour = (): void => {
      while (socket.write(chunk));
    }
    socket.on('error', () => undefined)
    socket.on('drain', pour)
    socket.on('data', () => undefined)
    socket.write(Buffer.from([...GREETING, DONE, DONE]))
    pour()
  })
  server.listen(path, () => console.log('listening'))
}

if (require.main === module) {
  const [path, frame] = process.argv.slice(2) as [string, string]
  flood(path, Buffer.from(frame, 'hex'))
}

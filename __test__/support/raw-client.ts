// The client's side of the wire, byte by byte: logins and operations of somebody who does not use our client.

import { GREETING } from './fake-broker'
import { RawPeer } from './raw-peer'
import type { Owner } from './temp'
import { soon } from './within'

/** Operations, without the bits of the QoS. */
export const Op = {
  PUBLISH: 0x01,
  SUBSCRIBE: 0x02,
  UNSUBSCRIBE: 0x03,
  EXCLUDE: 0x04,
  UNEXCLUDE: 0x05,
  PUBLISH_FOR: 0x06,
  MESSAGE: 0x12,
  BROADCAST: 0x13,
} as const

/** QoS bit: the broker answers. */
export const ACK = 0x40

/** What the broker answers. */
export const Code = { DONE: 0x01, DATA: 0x72, BUSY: 0x76, NOT_DELIVERED: 0x77, ACCESS: 0x79 } as const

/** An operation of a client; `length` is what its header says. */
export function operation(
  flags: number,
  body: Uint8Array | string,
  id = 1,
  length?: number,
): Buffer<ArrayBuffer> {
  const bytes = Buffer.from(body)
  const head = Buffer.alloc(9)
  head.writeUInt32LE(id)
  head[4] = flags
  head.writeUInt32LE(length ?? bytes.length, 5)
  return Buffer.concat([head, bytes])
}

/** A greeting and a name in one piece. */
export function loginBytes(name: Uint8Array | string): Buffer {
  const bytes = Buffer.from(name)
  const length = Buffer.alloc(2)
  length.writeUInt16LE(bytes.length)
  return Buffer.concat([GREETING, length, bytes])
}

/** Tries to log in: the connection and the broker's answer to the name, `undefined` if it just ends. */
export async function tryLogin(
  t: Owner,
  address: string,
  name: Uint8Array | string,
): Promise<[peer: RawPeer, code: number | undefined]> {
  const peer = await RawPeer.connect(t, address)
  peer.write(loginBytes(name))
  const answer = await soon(upTo(peer, 5), 'the answer to a login')
  return [peer, answer.length === 5 ? (answer[4] as number) : undefined]
}

/** Logs in. */
export async function login(t: Owner, address: string, name: string): Promise<RawPeer> {
  const [peer, code] = await tryLogin(t, address, name)
  if (code !== Code.DONE) throw new Error(`${name.slice(0, 40)} was answered ${code}`)
  return peer
}

/** Exactly `count` bytes, or fewer if the connection ends. */
async function upTo(peer: RawPeer, count: number): Promise<Buffer> {
  while (peer.waiting < count && !peer.hasEnded) await peer.more(15_000)
  return peer.takeReady(count)
}

/** The code of the next acknowledgement, `undefined` if the connection ends before; pings are passed over. */
export async function acknowledgementOf(peer: RawPeer): Promise<{ id: number; code: number } | undefined> {
  for (;;) {
    const frame = await soon(upTo(peer, 6), 'an acknowledgement')
    if (frame.length < 6) return undefined
    if (frame[0] === 0xfe) return { id: frame.readUInt32LE(1), code: frame[5] as number }
    if (frame[0] !== 0) throw new Error(`a frame of kind ${frame[0]} instead of an acknowledgement`)
  }
}

/** Sends one operation and waits for its answer. */
export async function ask(peer: RawPeer, flags: number, body: Uint8Array | string, id = 1): Promise<number> {
  peer.write(operation(flags | ACK, body, id))
  const answer = await acknowledgementOf(peer)
  if (answer === undefined) throw new Error('the connection ended instead of an answer')
  if (answer.id !== id) throw new Error(`the answer is for ${answer.id}, not ${id}`)
  return answer.code
}

/** How many of all acknowledgements received so far have which code; pings are left out, nothing else may be there. */
export function codesOf(peer: RawPeer): Map<number, number> {
  const codes = new Map<number, number>()
  const bytes = peer.takeReady(peer.waiting - (peer.waiting % 6))
  for (let at = 0; at < bytes.length; at += 6) {
    if (bytes[at] === 0) continue
    if (bytes[at] !== 0xfe) throw new Error(`a frame of kind ${bytes[at]} among acknowledgements`)
    const code = bytes[at + 5] as number
    codes.set(code, (codes.get(code) ?? 0) + 1)
  }
  return codes
}

/**
 * Writes `chunk` again and again, no faster than the other side takes it. Gives up where it takes nothing for
 * `patience` milliseconds, or the connection is gone. The bytes that left this side.
 */
export async function pour(
  { socket }: RawPeer,
  chunk: Uint8Array,
  times: number,
  patience = 15_000,
): Promise<number> {
  const before = socket.bytesWritten - socket.writableLength
  for (let index = 0; index < times && socket.writable; index += 1) {
    if (socket.write(chunk)) continue
    const drained = await new Promise<boolean>((resolve) => {
      const end = (isDrained: boolean) => (): void => {
        clearTimeout(timer)
        socket.off('drain', drain).off('close', close)
        resolve(isDrained)
      }
      const [drain, close] = [end(true), end(false)]
      const timer = setTimeout(close, patience)
      socket.on('drain', drain).on('close', close)
      // It may have closed meanwhile.
      if (socket.destroyed) close()
    })
    if (!drained) break
  }
  return socket.bytesWritten - socket.writableLength - before
}

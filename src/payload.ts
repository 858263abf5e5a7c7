// What users give as payload, as bytes.

import { types } from 'node:util'
import { checkName } from './batch'
import { BusError } from './errors'
import { encode } from './msgpack'

/**
 * What can be sent: bytes (`Uint8Array`, `ArrayBuffer`) and strings (as UTF-8) go as they are, everything else as
 * MessagePack. Integers go as the smallest that holds them, a bigint as 64 bits.
 */
export type Payload = Uint8Array | string | object | number | bigint | boolean | null | undefined

/**
 * Whether a value is bytes, of this context or of another: a program may have several, each with a `Uint8Array` of its
 * own, by `node:vm` or as the pages of Electron. The question for those is slower and only asked of what is no `Object`
 * of this one.
 */
export function isBytes(value: unknown): value is Uint8Array {
  return value instanceof Uint8Array || (!(value instanceof Object) && types.isUint8Array(value))
}

function isArrayBuffer(value: unknown): value is ArrayBuffer {
  return value instanceof ArrayBuffer || (!(value instanceof Object) && types.isArrayBuffer(value))
}

/** The payload of a message. MessagePack bytes are valid until the next call. */
export function messageBytes(payload: Payload): Uint8Array | string | undefined {
  if (payload === undefined || typeof payload === 'string' || isBytes(payload)) return payload
  return isArrayBuffer(payload) ? new Uint8Array(payload) : encode(payload)
}

/** The params or the result of a call: bytes as they are, strings too as MessagePack, because peers unpack them. */
export function rpcBytes(value: unknown): Uint8Array | undefined {
  if (isBytes(value)) return value
  return value === undefined ? undefined : encode(value)
}

/** Throws if a message would be taken for an RPC frame. */
export function checkNotRpc(payload: Uint8Array | string | undefined): void {
  if (payload === undefined || payload.length === 0) return
  const first = typeof payload === 'string' ? payload.charCodeAt(0) : payload[0]
  if (first === 0x00 || first === 0x01 || first === 0x11 || first === 0x12 || first === 0x13) {
    throw new BusError(
      'ERR_BUS_PAYLOAD',
      `payload begins with byte 0x${first.toString(16).padStart(2, '0')} and would be read as an RPC frame: ` +
        'set raw to send it all the same',
    )
  }
}

/** Throws if an operation is larger than a frame may be. `more` counts what the RPC layer puts in front. */
export function checkSize(
  limit: number,
  what: string,
  first: string,
  second: string,
  more: number,
  bytes: Uint8Array | string | undefined,
): void {
  if (typeof first !== 'string' || typeof second !== 'string') {
    checkName(first)
    checkName(second)
  }
  const length = bytes === undefined ? 0 : typeof bytes === 'string' ? 3 * bytes.length : bytes.length
  // Counted exactly only where it may matter.
  if (length + 3 * (first.length + second.length) + 16 <= limit) return
  checkName(first)
  checkName(second)
  const payload = typeof bytes === 'string' ? Buffer.byteLength(bytes) : length
  const names = Buffer.byteLength(first) + 1 + (second === '' ? 0 : Buffer.byteLength(second) + 1)
  if (names + more + payload <= limit) return
  throw new BusError(
    'ERR_BUS_PAYLOAD',
    `${what} ${first} has ${names + more + payload} bytes, the limit of a frame is ${limit}`,
  )
}

// MessagePack, and the only import of the package that does it. What is plain and small does not need it: see
// `msgpack-plain.ts`.

import { types } from 'node:util'
import type * as library from '@msgpack/msgpack'
import { BusError } from './errors'
import { decodePlain, encodePlain, NONE } from './msgpack-plain'

/** What the decoder has inside and we rely on; `msgpack.spec.ts` notices when it changes. */
interface DecoderParts {
  view: DataView
  stack: { length: number }
  pushArrayState(size: number): void
  pushMapState(size: number): void
  readU64AsBigInt(): bigint | number
  readI64AsBigInt(): bigint | number
}

/** How deep values may be nested, either way. */
const DEPTH = 128

/**
 * A decoder whose memory follows the bytes received: an array is made as long as its header says before its elements
 * are read, and a header of five bytes may say four thousand million. Every element takes a byte at least, so all
 * headers together may not announce more elements than there are bytes.
 */
function boundedDecoder({ Decoder }: typeof library): library.Decoder<undefined> {
  const decoder = new Decoder({ useBigInt64: true })
  const parts = decoder as unknown as DecoderParts
  const { pushArrayState, pushMapState, readU64AsBigInt, readI64AsBigInt } = parts
  let view: DataView | undefined
  let announced = 0
  const announce = (size: number): void => {
    if (view !== parts.view) {
      view = parts.view
      announced = 0
    }
    announced += size
    if (announced > view.byteLength) throw new RangeError('more elements announced than bytes received')
    if (parts.stack.length >= DEPTH) throw new RangeError(`nested deeper than ${DEPTH}`)
  }
  parts.pushArrayState = function (this: DecoderParts, size) {
    announce(size)
    pushArrayState.call(this, size)
  }
  parts.pushMapState = function (this: DecoderParts, size) {
    announce(2 * size)
    pushMapState.call(this, size)
  }
  // 64 bits that fit a number exactly are one; only what does not is a bigint.
  const narrowed = (value: bigint | number): bigint | number => {
    const number = Number(value)
    return Number.isSafeInteger(number) ? number : value
  }
  parts.readU64AsBigInt = function (this: DecoderParts) {
    return narrowed(readU64AsBigInt.call(this))
  }
  parts.readI64AsBigInt = function (this: DecoderParts) {
    return narrowed(readI64AsBigInt.call(this))
  }
  return decoder
}

/** What the encoder has inside and we rely on. */
interface EncoderParts {
  encodeObject(value: unknown, depth: number): void
  encodeBigInt64(value: bigint): void
  encodeBinary(value: ArrayBufferView): void
}

/** An encoder that writes a bigint as 64 bits and refuses what it would lose without a word. */
function completeEncoder({ Encoder }: typeof library): library.Encoder<undefined> {
  const encoder = new Encoder({ maxDepth: DEPTH, ignoreUndefined: true })
  const parts = encoder as unknown as EncoderParts
  const { encodeObject } = parts
  parts.encodeObject = function (this: EncoderParts, value, depth) {
    if (typeof value === 'bigint') {
      if (BigInt.asUintN(64, value) !== value && BigInt.asIntN(64, value) !== value) {
        throw new RangeError(`${value} has more than 64 bits`)
      }
      this.encodeBigInt64(value)
    } else if (types.isAnyArrayBuffer(value)) {
      this.encodeBinary(new Uint8Array(value))
    } else if (types.isMap(value) || types.isSet(value)) {
      throw new TypeError(`a ${value.constructor.name} is no value of it: make an object or an array of it`)
    } else if (!(value instanceof Date) && types.isDate(value)) {
      // One of another context, which the library takes for an object without fields.
      encodeObject.call(this, new Date(value.getTime()), depth)
    } else encodeObject.call(this, value, depth)
  }
  return encoder
}

interface Codec {
  readonly decoder: library.Decoder<undefined>
  readonly encoder: library.Encoder<undefined>
}

let loaded: Codec | undefined

/** The library, loaded when it is needed first: its dozen files are a good part of what loading this package takes. */
function codec(): Codec {
  if (loaded === undefined) {
    const found = require('@msgpack/msgpack') as typeof library
    loaded = { decoder: boundedDecoder(found), encoder: completeEncoder(found) }
  }
  return loaded
}

/** The value of MessagePack bytes. Throws what the decoder throws. */
export function decode(bytes: Uint8Array): unknown {
  const value = decodePlain(bytes)
  return value === NONE ? codec().decoder.decode(bytes) : value
}

/** MessagePack bytes of a value; they are valid until the next call. */
export function encode(value: unknown): Uint8Array {
  try {
    return encodePlain(value) ?? codec().encoder.encodeSharedRef(value)
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error)
    throw new BusError('ERR_BUS_PAYLOAD', `payload cannot be encoded as MessagePack: ${text}`, {
      cause: error,
    })
  }
}

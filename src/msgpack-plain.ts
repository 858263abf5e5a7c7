// MessagePack of what most messages are made of: null, booleans, numbers, strings, lists and plain objects, none of
// them large or deep. It gives what the library in `msgpack.ts` gives; whatever it does not know, and every fault, is
// left to that. It is here because the library takes four fifths of a call in the process.

/** Nesting and sizes beyond these are left to the library. */
const DEPTH = 32
const SCRATCH_BYTES = 16 << 10
/** Longest string that is written and read character by character: a call costs more than this many take. */
const SHORT = 50
const LONG_ASCII = 1 << 10

const scratch = new Uint8Array(SCRATCH_BYTES)
const text = Buffer.from(scratch.buffer)
const numbers = new DataView(scratch.buffer)

const objectPrototype = Object.prototype
const arrayPrototype = Array.prototype

// ---- writing

let at = 0
let isWriting = false

/** The bytes of a value, valid until the next call; undefined if it is not for here. */
export function encodePlain(value: unknown): Uint8Array | undefined {
  // A getter may send something itself. And what somebody adds to all objects is no field of any.
  if (isWriting || isExtended()) return undefined
  isWriting = true
  at = 0
  try {
    return write(value, DEPTH) ? new Uint8Array(scratch.buffer, 0, at) : undefined
  } finally {
    isWriting = false
  }
}

function isExtended(): boolean {
  for (const _ in objectPrototype) return true
  return false
}

function write(value: unknown, depth: number): boolean {
  // Room for any number, or for the head of anything else.
  if (at + 9 > SCRATCH_BYTES) return false
  switch (typeof value) {
    case 'string':
      return writeString(value)
    case 'number':
      writeNumber(value)
      return true
    case 'boolean':
      scratch[at++] = value ? 0xc3 : 0xc2
      return true
    case 'undefined':
      scratch[at++] = 0xc0
      return true
    case 'object':
      if (value === null) {
        scratch[at++] = 0xc0
        return true
      }
      if (depth === 0) return false
      if (Array.isArray(value)) return writeList(value, depth - 1)
      return writeObject(value, depth - 1)
    default:
      return false
  }
}

function writeNumber(value: number): void {
  if (!Number.isSafeInteger(value)) {
    scratch[at++] = 0xcb
    numbers.setFloat64(at, value)
    at += 8
  } else if (value >= 0) {
    if (value < 0x80) {
      scratch[at++] = value
    } else if (value < 0x100) {
      scratch[at++] = 0xcc
      scratch[at++] = value
    } else if (value < 0x10000) {
      scratch[at++] = 0xcd
      write16(value)
    } else if (value < 0x1_0000_0000) {
      scratch[at++] = 0xce
      write32(value)
    } else {
      scratch[at++] = 0xcf
      write32(Math.floor(value / 0x1_0000_0000))
      write32(value >>> 0)
    }
  } else if (value >= -0x20) {
    scratch[at++] = value & 0xff
  } else if (value >= -0x80) {
    scratch[at++] = 0xd0
    scratch[at++] = value & 0xff
  } else if (value >= -0x8000) {
    scratch[at++] = 0xd1
    write16(value)
  } else if (value >= -0x8000_0000) {
    scratch[at++] = 0xd2
    write32(value)
  } else {
    scratch[at++] = 0xd3
    write32(Math.floor(value / 0x1_0000_0000))
    write32(value >>> 0)
  }
}

function write16(value: number): void {
  scratch[at++] = (value >>> 8) & 0xff
  scratch[at++] = value & 0xff
}

function write32(value: number): void {
  scratch[at++] = (value >>> 24) & 0xff
  scratch[at++] = (value >>> 16) & 0xff
  scratch[at++] = (value >>> 8) & 0xff
  scratch[at++] = value & 0xff
}

function writeString(value: string): boolean {
  const { length } = value
  if (length > SHORT) return writeLongString(value)
  if (at + 2 + length > SCRATCH_BYTES) return false
  const begin = at
  if (length >= 32) {
    scratch[at++] = 0xd9
    scratch[at++] = length
  } else scratch[at++] = 0xa0 | length
  for (let index = 0; index < length; index += 1) {
    const unit = value.charCodeAt(index)
    if (unit >= 0x80) {
      at = begin
      return writeForeignString(value)
    }
    scratch[at++] = unit
  }
  return true
}

/** A short string that is not all ASCII. */
function writeForeignString(value: string): boolean {
  const { length } = value
  let bytes = 0
  for (let index = 0; index < length; index += 1) {
    const unit = value.charCodeAt(index)
    // Pairs, and halves of them.
    if (unit >= 0xd800 && unit < 0xe000) return false
    bytes += unit < 0x80 ? 1 : unit < 0x800 ? 2 : 3
  }
  if (at + 2 + bytes > SCRATCH_BYTES) return false
  writeStringHead(bytes)
  for (let index = 0; index < length; index += 1) {
    const unit = value.charCodeAt(index)
    if (unit < 0x80) scratch[at++] = unit
    else {
      if (unit < 0x800) scratch[at++] = 0xc0 | (unit >> 6)
      else {
        scratch[at++] = 0xe0 | (unit >> 12)
        scratch[at++] = 0x80 | ((unit >> 6) & 0x3f)
      }
      scratch[at++] = 0x80 | (unit & 0x3f)
    }
  }
  return true
}

function writeLongString(value: string): boolean {
  if (value.length > SCRATCH_BYTES) return false
  const bytes = Buffer.byteLength(value)
  if (at + 3 + bytes > SCRATCH_BYTES) return false
  writeStringHead(bytes)
  at += text.write(value, at, 'utf8')
  return true
}

function writeStringHead(bytes: number): void {
  if (bytes < 32) scratch[at++] = 0xa0 | bytes
  else if (bytes < 0x100) {
    scratch[at++] = 0xd9
    scratch[at++] = bytes
  } else {
    scratch[at++] = 0xda
    write16(bytes)
  }
}

function writeList(list: readonly unknown[], depth: number): boolean {
  const { length } = list
  if (Object.getPrototypeOf(list) !== arrayPrototype || length >= 0x10000) return false
  if (length < 16) scratch[at++] = 0x90 | length
  else {
    scratch[at++] = 0xdc
    write16(length)
  }
  for (let index = 0; index < length; index += 1) {
    if (!write(list[index], depth)) return false
  }
  return true
}

function writeObject(object: object, depth: number): boolean {
  const prototype: unknown = Object.getPrototypeOf(object)
  if ((prototype !== objectPrototype && prototype !== null) || ArrayBuffer.isView(object)) return false
  const head = at
  at += 1
  let count = 0
  // All its fields are its own: see `isExtended`.
  for (const key in object) {
    const value = (object as Record<string, unknown>)[key]
    if (value === undefined) continue
    count += 1
    if (!writeString(key) || !write(value, depth)) return false
  }
  if (count < 16) {
    scratch[head] = 0x80 | count
    return true
  }
  // The head of more takes two more bytes.
  if (count >= 0x10000 || at + 2 > SCRATCH_BYTES) return false
  scratch.copyWithin(head + 3, head + 1, at)
  const stop = at + 2
  at = head
  scratch[at++] = 0xde
  write16(count)
  at = stop
  return true
}

// ---- reading

/** What {@link decodePlain} gives for bytes that are not for here: no value is this one. */
export const NONE: unique symbol = Symbol('none')
/** Names of fields that were read before, by their hash: the same few come again and again. */
const KEYS = 256
const keys: string[] = new Array<string>(KEYS).fill('')

let source: Uint8Array = scratch
let from = 0
let end = 0
let left = 0
let isReading = false

/** The value of bytes, or {@link NONE}. */
export function decodePlain(bytes: Uint8Array): unknown {
  // Somebody's setter on the prototype of all objects may come back here.
  if (isReading) return NONE
  isReading = true
  source = bytes
  from = 0
  end = bytes.length
  // Each element takes a byte at least.
  left = end
  try {
    const value = read(DEPTH)
    return from === end ? value : NONE
  } finally {
    isReading = false
    source = scratch
  }
}

function read(depth: number): unknown {
  if (from >= end) return NONE
  const head = source[from++] as number
  if (head < 0x80) return head
  if (head < 0x90) return readObject(head & 0x0f, depth)
  if (head < 0xa0) return readList(head & 0x0f, depth)
  if (head < 0xc0) return readString(head & 0x1f)
  if (head >= 0xe0) return head - 0x100
  switch (head) {
    case 0xc0:
      return null
    case 0xc2:
      return false
    case 0xc3:
      return true
    case 0xca:
    case 0xcb:
      return readFloat(head)
    case 0xcc:
      return from < end ? source[from++] : NONE
    case 0xcd:
      return from + 2 <= end ? read16() : NONE
    case 0xce:
      return from + 4 <= end ? read32() >>> 0 : NONE
    case 0xcf:
      return read64(0)
    case 0xd0:
      return from < end ? ((source[from++] as number) << 24) >> 24 : NONE
    case 0xd1:
      return from + 2 <= end ? (read16() << 16) >> 16 : NONE
    case 0xd2:
      return from + 4 <= end ? read32() : NONE
    case 0xd3:
      return read64(1)
    case 0xd9:
      return from < end ? readString(source[from++] as number) : NONE
    case 0xda:
      return from + 2 <= end ? readString(read16()) : NONE
    case 0xdc:
      return from + 2 <= end ? readList(read16(), depth) : NONE
    case 0xde:
      return from + 2 <= end ? readObject(read16(), depth) : NONE
    default:
      return NONE
  }
}

function read16(): number {
  const value = ((source[from] as number) << 8) | (source[from + 1] as number)
  from += 2
  return value
}

/** With its sign. */
function read32(): number {
  const value =
    ((source[from] as number) << 24) |
    ((source[from + 1] as number) << 16) |
    ((source[from + 2] as number) << 8) |
    (source[from + 3] as number)
  from += 4
  return value
}

function read64(signed: 0 | 1): unknown {
  if (from + 8 > end) return NONE
  const high = read32()
  const value = (signed === 1 ? high : high >>> 0) * 0x1_0000_0000 + (read32() >>> 0)
  // What fits no number is a bigint.
  return Number.isSafeInteger(value) ? value : NONE
}

/** The bytes of one number are copied here: asking a payload for its buffer costs more. */
const oneBytes = new Uint8Array(8)
const one = new DataView(oneBytes.buffer)

function readFloat(head: number): unknown {
  const bytes = head === 0xcb ? 8 : 4
  if (from + bytes > end) return NONE
  for (let index = 0; index < bytes; index += 1) oneBytes[index] = source[from++] as number
  return bytes === 8 ? one.getFloat64(0) : one.getFloat32(0)
}

function readString(length: number): unknown {
  const stop = from + length
  if (stop > end) return NONE
  if (length > SHORT) return readLongString(stop)
  let value = ''
  // A call for four costs as much as one for one.
  while (from + 4 <= stop) {
    const a = source[from] as number
    const b = source[from + 1] as number
    const c = source[from + 2] as number
    const d = source[from + 3] as number
    if ((a | b | c | d) >= 0x80) return readForeignString(value, stop)
    value += String.fromCharCode(a, b, c, d)
    from += 4
  }
  while (from < stop) {
    const unit = source[from] as number
    if (unit >= 0x80) return readForeignString(value, stop)
    value += String.fromCharCode(unit)
    from += 1
  }
  return value
}

/** The rest of a short string: characters of two or three bytes that are as they should be. */
function readForeignString(begun: string, stop: number): unknown {
  let value = begun
  while (from < stop) {
    const first = source[from++] as number
    let unit = first
    if (first >= 0x80) {
      const more = first >= 0xc2 && first < 0xe0 ? 1 : first >= 0xe0 && first < 0xf0 ? 2 : 0
      if (more === 0 || from + more > stop) return NONE
      unit = first & (more === 1 ? 0x1f : 0x0f)
      for (let index = 0; index < more; index += 1) {
        const next = source[from++] as number
        if ((next & 0xc0) !== 0x80) return NONE
        unit = (unit << 6) | (next & 0x3f)
      }
      if (more === 2 && (unit < 0x800 || (unit >= 0xd800 && unit < 0xe000))) return NONE
    }
    value += String.fromCharCode(unit)
  }
  return value
}

function readLongString(stop: number): unknown {
  if (stop - from > LONG_ASCII) return NONE
  const begin = from
  let bits = 0
  while (from < stop) bits |= source[from++] as number
  if (bits >= 0x80) return NONE
  const { buffer, byteOffset } = source
  return Buffer.from(buffer, byteOffset + begin, stop - begin).toString('latin1')
}

function readList(length: number, depth: number): unknown {
  left -= length
  if (left < 0 || depth === 0) return NONE
  // It grows with what is there, not with what is announced.
  const list: unknown[] = []
  for (let index = 0; index < length; index += 1) {
    const value = read(depth - 1)
    if (value === NONE) return NONE
    list.push(value)
  }
  return list
}

function readObject(length: number, depth: number): unknown {
  left -= 2 * length
  if (left < 0 || depth === 0) return NONE
  const object: Record<string, unknown> = {}
  for (let index = 0; index < length; index += 1) {
    const key = readKey()
    if (key === undefined) return NONE
    const value = read(depth - 1)
    if (value === NONE) return NONE
    object[key] = value
  }
  return object
}

/** The name of a field; undefined for one that is not a short string of ASCII, or is refused. */
function readKey(): string | undefined {
  if (from >= end) return undefined
  const length = (source[from++] as number) ^ 0xa0
  const stop = from + length
  if (length >= 32 || stop > end) return undefined
  let hash = length
  for (let index = from; index < stop; index += 1) {
    const unit = source[index] as number
    if (unit >= 0x80) return undefined
    hash = (Math.imul(hash, 31) + unit) | 0
  }
  const place = (hash ^ (hash >>> 8)) & (KEYS - 1)
  const known = keys[place] as string
  if (known.length === length && length > 0) {
    let index = 0
    while (index < length && known.charCodeAt(index) === source[from + index]) index += 1
    if (index === length) {
      from = stop
      return known
    }
  }
  const name = readString(length) as string
  // It would not become a field, and the library says so.
  if (name === '__proto__') return undefined
  // The string that V8 itself keeps for a field's name: others are looked up each time they are used as one.
  const kept = Object.keys({ [name]: 0 })[0] as string
  keys[place] = kept
  return kept
}

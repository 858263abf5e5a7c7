// The wire of the bus, as far as a program needs it that writes frames prepared beforehand and counts what it gets.

export const GREETING = Buffer.from([0xeb, 0x01, 0x00])
const OP_HEAD = 9
const EVENT_HEAD = 6
const PUBLISH = 0x01
const ACK = 0xfe

/** The greeting and the name of a client in one piece. */
export function login(name) {
  const length = Buffer.alloc(2)
  length.writeUInt16LE(name.length)
  return Buffer.concat([GREETING, length, Buffer.from(name)])
}

/** An op frame. */
export function op(kind, body) {
  const head = Buffer.alloc(OP_HEAD)
  head[4] = kind
  head.writeUInt32LE(body.length, 5)
  return Buffer.concat([head, body])
}

/** A publication as a client sends it. */
export function publication(topic, payload) {
  return op(PUBLISH, Buffer.concat([Buffer.from(`${topic}\0`), payload]))
}

/** A subscription without acknowledgement. */
export function subscription(topic) {
  return op(0x02, Buffer.from(topic))
}

/** A publication as a broker sends it. */
export function delivery(sender, topic, payload) {
  const body = Buffer.concat([Buffer.from(`${sender}\0${topic}\0`), payload])
  const head = Buffer.alloc(EVENT_HEAD)
  head[0] = PUBLISH
  head.writeUInt32LE(body.length, 1)
  return Buffer.concat([head, body])
}

/** The acknowledgement of an op frame that begins at `at`. */
export function acknowledgement(bytes, at) {
  return Buffer.concat([Buffer.from([ACK]), bytes.subarray(at, at + 4), Buffer.from([1])])
}

/** Walks whole frames; `length(bytes, at)` says how long one is. Gives what a frame is missing to the next piece. */
function walker(head, length, taken) {
  let rest
  return (chunk) => {
    const bytes = rest === undefined ? chunk : Buffer.concat([rest, chunk])
    let at = 0
    while (bytes.length - at >= head) {
      const end = at + length(bytes, at)
      if (end > bytes.length) break
      taken(bytes, at, end)
      at = end
    }
    rest = at === bytes.length ? undefined : bytes.subarray(at)
  }
}

/** Calls `taken(bytes, from, to)` for each op frame. */
export function opFrames(taken) {
  const length = (bytes, at) => OP_HEAD + (bytes[at + 4] === 0 ? 0 : bytes.readUInt32LE(at + 5))
  return walker(OP_HEAD, length, taken)
}

/** Calls `taken(bytes, from, to)` for each event frame. */
export function eventFrames(taken) {
  const length = (bytes, at) => {
    const kind = bytes[at]
    return EVENT_HEAD + (kind === 0 || kind === ACK ? 0 : bytes.readUInt32LE(at + 1))
  }
  return walker(EVENT_HEAD, length, taken)
}

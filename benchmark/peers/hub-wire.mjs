// The wire of the hand-written hub, for both ends: `u32 length, u8 operation, u16 length of the topic, topic, payload`.

export const SUBSCRIBE = 0
export const PUBLISH = 1
export const SUBSCRIBED = 2

const HEAD = 7
const BLOCK = 64 << 10

/** Gathers frames and writes them in one piece: when a block is full, and when told to. */
export class Outgoing {
  #socket
  #block = Buffer.allocUnsafeSlow(BLOCK)
  #at = 0

  constructor(socket) {
    this.#socket = socket
  }

  /** Room for so many bytes, and where it begins. */
  #room(bytes) {
    if (this.#at + bytes > this.#block.length) {
      this.flush()
      if (bytes > this.#block.length) this.#block = Buffer.allocUnsafeSlow(bytes)
    }
    const at = this.#at
    this.#at += bytes
    return at
  }

  /** A frame. */
  frame(operation, topic, payload) {
    const topicBytes = Buffer.byteLength(topic)
    const at = this.#room(HEAD + topicBytes + payload.length)
    const block = this.#block
    block.writeUInt32LE(HEAD - 4 + topicBytes + payload.length, at)
    block[at + 4] = operation
    block.writeUInt16LE(topicBytes, at + 5)
    block.write(topic, at + HEAD, 'utf8')
    block.set(payload, at + HEAD + topicBytes)
  }

  /** Bytes that are a frame already. */
  copy(bytes, from, to) {
    const at = this.#room(to - from)
    bytes.copy(this.#block, at, from, to)
  }

  /** Writes what was gathered; false if the socket has enough. */
  flush() {
    if (this.#at === 0) return true
    const bytes = this.#block.subarray(0, this.#at)
    // The socket may keep the bytes; a block that was hardly used is worth a copy.
    const goesOn = this.#socket.write(this.#at < BLOCK / 4 ? Buffer.from(bytes) : bytes)
    if (this.#at >= BLOCK / 4) this.#block = Buffer.allocUnsafeSlow(BLOCK)
    this.#at = 0
    return goesOn
  }
}

/** Calls `taken(bytes, from, to, operation, topic, payloadAt)` for each whole frame of what a socket reads. */
export function readFrames(socket, taken, done) {
  let rest
  socket.on('data', (chunk) => {
    const bytes = rest === undefined ? chunk : Buffer.concat([rest, chunk])
    let at = 0
    while (bytes.length - at >= HEAD) {
      const end = at + 4 + bytes.readUInt32LE(at)
      if (end > bytes.length) break
      const payloadAt = at + HEAD + bytes.readUInt16LE(at + 5)
      taken(bytes, at, end, bytes[at + 4], bytes.toString('utf8', at + HEAD, payloadAt), payloadAt)
      at = end
    }
    rest = at === bytes.length ? undefined : bytes.subarray(at)
    done?.()
  })
}

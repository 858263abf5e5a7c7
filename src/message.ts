// What a subscription gives: one delivery.

import { Kind } from './batch'
import { decode } from './msgpack'

/** How a message came: to this client alone, to a name mask, or to a topic. */
export type MessageKind = 'message' | 'broadcast' | 'publish'

const KINDS: MessageKind[] = ['message', 'message', 'message', 'message']
KINDS[Kind.BROADCAST] = 'broadcast'
KINDS[Kind.PUBLISH] = 'publish'

/** One delivery. All subscriptions of a client that it matches are given the same object. */
export class Message<T = unknown> {
  /** How it came. */
  readonly kind: MessageKind
  /** The full name of the client that sent it. */
  readonly sender: string
  /** The topic of a publication; undefined otherwise. */
  readonly topic: string | undefined
  /** True if the sender asked for realtime delivery. */
  readonly realtime: boolean
  /**
   * The payload. It is a view, shared with other subscriptions: read it, do not write to it. It stays valid for as
   * long as you keep it, but keeps up to 256 KiB of memory around it alive: use {@link Message.copy} for what you
   * keep for long.
   */
  readonly data: Uint8Array

  /** @internal */
  constructor(kind: number, sender: string, topic: string | undefined, realtime: boolean, data: Uint8Array) {
    this.kind = KINDS[kind] as MessageKind
    this.sender = sender
    this.topic = topic
    this.realtime = realtime
    this.data = data
  }

  /** The sender's name without the mark of a secondary connection. */
  get primarySender(): string {
    const mark = this.sender.indexOf('%%')
    return mark < 0 ? this.sender : this.sender.slice(0, mark)
  }

  /**
   * Gives the message bytes of its own if it would keep an arena alive that is much larger. For one that waits in a
   * queue: it costs what it says. @internal
   */
  settle(): void {
    if (this.data.length * 4 >= this.data.buffer.byteLength) return
    // From the pool of small buffers.
    const { buffer, byteOffset, byteLength } = Buffer.from(this.data)
    ;(this as { data: Uint8Array }).data = new Uint8Array(buffer, byteOffset, byteLength)
  }

  /** A copy of the payload, yours to keep and to change. */
  copy(): Uint8Array {
    return this.data.slice()
  }

  /** The payload read as MessagePack. Throws a `RangeError` or `DecodeError` if it is none; an empty one is undefined. */
  decode(): T {
    return (this.data.length === 0 ? undefined : decode(this.data)) as T
  }

  /** The payload read as UTF-8; what is not becomes U+FFFD. */
  text(): string {
    const { buffer, byteOffset, byteLength } = this.data
    return Buffer.from(buffer, byteOffset, byteLength).toString('utf8')
  }
}

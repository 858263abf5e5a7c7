// What a client stands on: a way to hand operations over, and whom frames are delivered to. In-process and socket
// links are built on the boundary's records; another transport implements the same two interfaces.

import type { BusError } from './errors'

/** A sender, topic or method. The same object comes again for the same name, so it can be a key. */
export interface Name {
  readonly text: string
}

/** A registered client's connection to a broker. */
export interface Link {
  /** The full name under which the client is registered. */
  readonly name: string
  /** Most bytes an operation's names and payload may have together. */
  readonly limitBytes: number
  /**
   * Hands over one operation: a kind and flags of `batch.ts`, the names it takes, its ids, its payload, which is copied
   * before this returns. False above the high-water mark.
   *
   * Throws `ERR_BUS_OVERFLOW` if the queue is full, `ERR_BUS_CLOSED` or `ERR_BUS_DISCONNECTED` if the link has ended.
   */
  submit(
    kind: number,
    flags: number,
    first: string,
    second: string,
    call: number,
    op: number,
    payload: Uint8Array | string | undefined,
  ): boolean
  /** Sends the error reply of a call. */
  submitError(target: string, call: number, code: number, flags: number, data: Uint8Array | string): void
  /** Hands over what was submitted now, instead of at the end of the microtask. */
  flush(): void
  /** True while the last operation found itself above the high-water mark. */
  readonly isCongested: boolean
  /** True while operations can be submitted. */
  readonly isOpen: boolean
  /** True if the broker's answer needs no round trip. */
  readonly isLocal: boolean
  /** Whether the open link alone keeps the process alive. */
  hold(hold: boolean): void
  /** Opens another connection under another name to the same broker. */
  another(name: string, deliveries: Deliveries): Promise<Link>
  /** Ends the connection once what was submitted is on its way. Resolves when it has ended. */
  close(): Promise<void>
}

/** Where a link delivers. Payloads are views: they stay as they are, and keep their arena alive. */
export interface Deliveries {
  /** The client is registered. Comes first, and once. */
  opened(link: Link): void
  /** A message, broadcast or publication, by its kind of `batch.ts`. */
  message(kind: number, realtime: boolean, sender: Name, topic: Name | undefined, data: Uint8Array): void
  /** An RPC notification. */
  notification(realtime: boolean, sender: Name, data: Uint8Array): void
  /** A call; no method if its name is not text. */
  request(realtime: boolean, sender: Name, method: Name | undefined, id: number, params: Uint8Array): void
  /** The result of a call. */
  reply(sender: Name, id: number, result: Uint8Array): void
  /** The failure of a call. */
  error(sender: Name, id: number, code: number, data: Uint8Array): void
  /** The caller no longer waits. */
  cancel(sender: Name, id: number): void
  /** The broker's answer to an operation: 0, or its code. */
  acknowledged(op: number, code: number): void
  /** A message nobody asked an acknowledgement for was refused. */
  refused(code: number): void
  /** The link is below its high-water mark again. */
  relieved(): void
  /** The link has ended; no error if it was closed from this side. */
  closed(error: BusError | undefined): void
}

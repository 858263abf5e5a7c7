// One subscription: messages to a callback, or through a bounded queue to an async iterator.

import { types } from 'node:util'
import { boundary } from './boundary'
import { BusError } from './errors'
import type { Message } from './message'
import { integer, type SubscribeOptions, within } from './options'

const MESSAGES = 65_536
const BYTES = 16 << 20

/** What a subscription needs from its client. */
export interface SubscriptionOwner {
  /** Ends it at the client, and at the broker what nobody else wants. */
  end(subscription: Subscription<never>): Promise<void>
  /** Its queue is full. */
  slow(subscription: Subscription<never>): void
  /** Its callback threw. */
  fault(error: unknown): void
}

interface Reader<T> {
  resolve(result: IteratorResult<Message<T>, undefined>): void
  reject(error: unknown): void
}

/**
 * Messages of some masks, or those sent to the client itself. Read it with `for await`; leaving the loop ends the
 * subscription. With a callback it cannot be iterated.
 */
export class Subscription<T = unknown> implements AsyncIterable<Message<T>, undefined>, AsyncDisposable {
  /** Its topic masks; none for `messages()`. */
  readonly masks: readonly string[]
  /** Topic masks it leaves out. */
  readonly excluded: readonly string[]
  /** Resolves when the broker has it in force; rejects with `ERR_BUS_ACCESS` if that was denied. */
  readonly ready: Promise<void>

  readonly #owner: SubscriptionOwner
  readonly #callback: ((message: Message<T>) => void) | undefined
  readonly #most: number
  readonly #mostBytes: number
  readonly #dropsOldest: boolean
  readonly #signal: AbortSignal | undefined
  readonly #aborted = (): void => void this.unsubscribe().catch(() => undefined)

  #queue: Message<T>[] = []
  #head = 0
  #bytes = 0
  #dropped = 0
  #isSlow = false
  #readers: Reader<T>[] = []
  #ended = false
  #error: unknown

  /** @internal */
  constructor(
    owner: SubscriptionOwner,
    masks: readonly string[],
    excluded: readonly string[],
    options: SubscribeOptions<T>,
    ready: (subscription: Subscription<T>) => Promise<void>,
  ) {
    const { callback, overflow = 'drop-newest' } = options
    if (callback !== undefined && typeof callback !== 'function') {
      throw new BusError('ERR_BUS_ARGUMENT', `callback is a function, not ${typeof callback}`)
    }
    if (overflow !== 'drop-newest' && overflow !== 'drop-oldest') {
      throw new BusError(
        'ERR_BUS_ARGUMENT',
        `overflow is "drop-newest" or "drop-oldest", not ${String(overflow)}`,
      )
    }
    this.#owner = owner
    this.masks = masks
    this.excluded = excluded
    this.#callback = callback
    this.#most = integer('highWaterMark', options.highWaterMark, 1, 2 ** 31) ?? MESSAGES
    this.#mostBytes = within('highWaterMarkBytes', options.highWaterMarkBytes, 1, 2 ** 40) ?? BYTES
    this.#dropsOldest = overflow === 'drop-oldest'
    this.#signal = options.signal
    options.signal?.throwIfAborted()
    this.ready = ready(this)
    // Whoever iterates is told by the iterator; nobody has to look here.
    this.ready.catch((error: unknown) => this.finish(error))
    this.#signal?.addEventListener('abort', this.#aborted, { once: true })
  }

  /** Messages that wait for the iterator. */
  get pending(): number {
    return this.#queue.length - this.#head
  }

  /** Messages dropped because the queue was full. */
  get dropped(): number {
    return this.#dropped
  }

  /** Takes a message. @internal */
  push(message: Message): void {
    // Another callback may have ended it a moment ago.
    if (this.#ended) return
    const given = message as Message<T>
    if (this.#callback !== undefined) {
      this.#call(this.#callback, given)
      return
    }
    const reader = this.#readers.shift()
    if (reader !== undefined) {
      boundary.release()
      reader.resolve({ done: false, value: given })
      return
    }
    while (
      this.pending >= this.#most ||
      (this.pending > 0 && this.#bytes + given.data.length > this.#mostBytes)
    ) {
      this.#drop()
      if (!this.#dropsOldest) return
      this.#take()
    }
    given.settle()
    this.#queue.push(given)
    this.#bytes += given.data.length
  }

  #call(callback: (message: Message<T>) => unknown, message: Message<T>): void {
    try {
      const result = callback(message)
      // Also one of another context of the program, such as those of `node:vm`.
      if (result !== undefined && types.isPromise(result)) {
        result.catch((error: unknown) => this.#owner.fault(error))
      }
    } catch (error) {
      this.#owner.fault(error)
    }
  }

  #drop(): void {
    this.#dropped += 1
    if (this.#isSlow) return
    this.#isSlow = true
    this.#owner.slow(this as unknown as Subscription<never>)
  }

  #take(): Message<T> | undefined {
    if (this.#head === this.#queue.length) return undefined
    const message = this.#queue[this.#head] as Message<T>
    this.#queue[this.#head] = undefined as unknown as Message<T>
    this.#head += 1
    this.#bytes -= message.data.length
    if (this.#head === this.#queue.length) {
      this.#queue = []
      this.#head = 0
    } else if (this.#head >= 4096 && this.#head * 2 >= this.#queue.length) {
      this.#queue = this.#queue.slice(this.#head)
      this.#head = 0
    }
    return message
  }

  /** No message comes any more: readers are told once the queue is empty. @internal */
  finish(error?: unknown): void {
    if (this.#ended) return
    this.#ended = true
    this.#error = error
    this.#signal?.removeEventListener('abort', this.#aborted)
    for (const reader of this.#readers.splice(0)) {
      boundary.release()
      if (error === undefined) reader.resolve({ done: true, value: undefined })
      else reader.reject(error)
    }
  }

  #next(): Promise<IteratorResult<Message<T>, undefined>> {
    const message = this.#take()
    // The stall is over once its reader has caught up.
    if (this.pending === 0) this.#isSlow = false
    if (message !== undefined) return Promise.resolve({ done: false, value: message })
    if (this.#ended) {
      const error = this.#error
      // An error is told once; after it the iterator is at its end.
      this.#error = undefined
      return error === undefined ? Promise.resolve({ done: true, value: undefined }) : Promise.reject(error)
    }
    // Who waits for a message keeps the process alive.
    boundary.hold()
    return new Promise((resolve, reject) => this.#readers.push({ resolve, reject }))
  }

  /** Reads the messages. Several iterators share them. */
  [Symbol.asyncIterator](): AsyncIterator<Message<T>, undefined> {
    if (this.#callback !== undefined) {
      throw new BusError('ERR_BUS_ARGUMENT', 'a subscription with a callback cannot be iterated')
    }
    return {
      next: () => this.#next(),
      return: async () => {
        await this.unsubscribe().catch(() => undefined)
        return { done: true, value: undefined }
      },
    }
  }

  /**
   * Ends the subscription: no message is delivered from here on, and what waits is dropped. Resolves when the broker
   * has carried it out.
   */
  async unsubscribe(): Promise<void> {
    this.#queue = []
    this.#head = 0
    this.#bytes = 0
    if (this.#ended) return
    this.finish()
    await this.#owner.end(this as unknown as Subscription<never>)
  }

  /** As {@link Subscription.unsubscribe}. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.unsubscribe()
  }
}

// The subscriptions of one client: which of them a message is for, and which masks the broker has to know.

import { BusError } from './errors'
import type { Name } from './link'
import { Message } from './message'
import { topicMatches } from './native'
import type { Subscription } from './subscription'

/** Topics whose subscriptions are remembered; beyond it all are looked up again. */
const ROUTES = 16_384

type Any = Subscription<never>

/** How the masks reach the broker. */
export interface MaskOperations {
  subscribe(mask: string): Promise<void>
  unsubscribe(masks: readonly string[]): Promise<void>
}

/** A mask the broker was asked for, as long as somebody wants it. */
interface Mask {
  readonly text: string
  readonly ready: Promise<void>
  count: number
}

/** The subscriptions of one client. */
export class Streams {
  readonly #operations: MaskOperations
  readonly #masks = new Map<string, Mask>()
  /** Subscriptions by topics, each with its masks. */
  readonly #topics = new Map<Any, readonly Mask[]>()
  readonly #messages: Any[] = []
  /** Topics that were resolved, valid until a subscription changes. */
  readonly #routes = new Map<Name, readonly Any[]>()
  /** The topic of the last publication, and whom it was for: most repeat it. */
  #lastTopic: Name | undefined
  #lastRoute: readonly Any[] = []

  constructor(operations: MaskOperations) {
    this.#operations = operations
  }

  /** Adds a subscription by topics; resolves when the broker has its masks in force. */
  addTopics(subscription: Any): Promise<void> {
    const masks = [...new Set(subscription.masks)].map((text) => this.#masks.get(text) ?? this.#ask(text))
    for (const mask of masks) mask.count += 1
    this.#topics.set(subscription, masks)
    this.#forgetRoutes()
    const ready = Promise.all(masks.map((mask) => mask.ready)).then(() => undefined)
    // Denied: those that were not are of no use to this subscription either.
    ready.catch(() => void this.remove(subscription).catch(() => undefined))
    return ready
  }

  /** Asks the broker for a mask: each by itself, so that one that is denied is denied to nobody else. */
  #ask(text: string): Mask {
    const mask: Mask = { text, ready: this.#operations.subscribe(text), count: 0 }
    this.#masks.set(text, mask)
    // Whoever wants it next asks again.
    mask.ready.catch(() => this.#forget(mask))
    return mask
  }

  #forget(mask: Mask): boolean {
    return this.#masks.get(mask.text) === mask && this.#masks.delete(mask.text)
  }

  /** Adds a subscription to what is sent to the client itself. */
  addMessages(subscription: Any): Promise<void> {
    this.#messages.push(subscription)
    return Promise.resolve()
  }

  /** Takes a subscription out; resolves when the broker has forgotten the masks nobody wants any more. */
  remove(subscription: Any): Promise<void> {
    const index = this.#messages.indexOf(subscription)
    if (index >= 0) this.#messages.splice(index, 1)
    const masks = this.#topics.get(subscription)
    if (masks === undefined) return Promise.resolve()
    this.#topics.delete(subscription)
    this.#forgetRoutes()
    for (const mask of masks) mask.count -= 1
    const unwanted = masks.filter((mask) => mask.count === 0 && this.#forget(mask)).map((mask) => mask.text)
    return unwanted.length > 0 ? this.#operations.unsubscribe(unwanted) : Promise.resolve()
  }

  /** Hands a delivery to whom it is for. */
  deliver(kind: number, realtime: boolean, sender: Name, topic: Name | undefined, data: Uint8Array): void {
    let subscriptions: readonly Any[] = this.#messages
    if (topic !== undefined) {
      if (topic !== this.#lastTopic) {
        this.#lastRoute = this.#routes.get(topic) ?? this.#resolve(topic)
        this.#lastTopic = topic
      }
      subscriptions = this.#lastRoute
    }
    if (subscriptions.length === 0) return
    const message = new Message(kind, sender.text, topic?.text, realtime, data)
    if (subscriptions.length === 1) {
      ;(subscriptions[0] as Any).push(message)
      return
    }
    // A callback may end subscriptions while this goes on.
    for (const subscription of subscriptions.slice()) subscription.push(message)
  }

  #resolve(topic: Name): readonly Any[] {
    const { text } = topic
    const matches = (mask: string): boolean => mask === text || topicMatches(mask, text)
    const found = [...this.#topics.keys()].filter(
      (subscription) => subscription.masks.some(matches) && !subscription.excluded.some(matches),
    )
    if (this.#routes.size >= ROUTES) this.#routes.clear()
    this.#routes.set(topic, found)
    return found
  }

  #forgetRoutes(): void {
    this.#routes.clear()
    this.#lastTopic = undefined
    this.#lastRoute = []
  }

  /** The connection has ended. */
  finish(error: BusError | undefined): void {
    for (const subscription of [...this.#topics.keys(), ...this.#messages]) subscription.finish(error)
    this.#topics.clear()
    this.#messages.length = 0
    this.#masks.clear()
    this.#forgetRoutes()
  }
}

/** Masks as a list; throws if there is none. */
export function maskList(name: string, masks: string | readonly string[]): readonly string[] {
  const list = typeof masks === 'string' ? [masks] : masks
  if (!Array.isArray(list) || list.length === 0) {
    throw new BusError('ERR_BUS_ARGUMENT', `${name} is a mask or a list of at least one`)
  }
  return Object.freeze([...(list as readonly string[])])
}

// Reading what arrives in a bounded time.

import type { Message, Subscription } from 'elbus-node'
import { soon } from './within'

/** The next message of a subscription; its iterator is not ended. */
export async function next<T>(subscription: Subscription<T>, what = 'a message'): Promise<Message<T>> {
  const result = await soon(subscription[Symbol.asyncIterator]().next(), what)
  if (result.done === true) throw new Error(`the subscription ended instead of giving ${what}`)
  return result.value
}

/** The next `count` messages. */
export async function take<T>(subscription: Subscription<T>, count: number): Promise<Message<T>[]> {
  const messages: Message<T>[] = []
  while (messages.length < count) {
    messages.push(await next(subscription, `message ${messages.length + 1} of ${count}`))
  }
  return messages
}

/** The next `count` messages as text. */
export async function texts<T>(subscription: Subscription<T>, count: number): Promise<string[]> {
  return (await take(subscription, count)).map((message) => message.text())
}

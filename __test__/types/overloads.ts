// Which form of a verb the options select, and that no variable can select the wrong one. Nothing is run.

import type { AckOptions, CallOptions, Client, ForOption, RawOption, SendOptions } from 'elbus-node'

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false
/** Compiles if a value has exactly this type. */
declare function exactly<T>(): <V>(value: V, same: Same<V, T>) => void

declare const client: Client
declare const flag: boolean
declare const either: SendOptions | AckOptions
declare const send: SendOptions
declare const ack: AckOptions

// ---- alone, and with options written out

exactly<boolean>()(client.send('a'), true)
exactly<boolean>()(client.send('a', 'x'), true)
exactly<boolean>()(client.send('a', 'x', {}), true)
exactly<boolean>()(client.send('a', 'x', { realtime: true }), true)
exactly<boolean>()(client.send('a', 'x', { raw: true }), true)
exactly<boolean>()(client.send('a', 'x', { ack: false }), true)
exactly<Promise<void>>()(client.send('a', 'x', { ack: true }), true)
exactly<Promise<void>>()(client.send('a', 'x', { ack: true, raw: true, timeout: 5 }), true)
exactly<boolean>()(client.broadcast('a'), true)
exactly<boolean>()(client.broadcast('a', 'x', {}), true)
exactly<Promise<void>>()(client.broadcast('a', 'x', { ack: true }), true)
exactly<boolean>()(client.publish('a'), true)
exactly<boolean>()(client.publish('a', 'x', { for: 'b' }), true)
exactly<Promise<void>>()(client.publish('a', 'x', { ack: true, for: 'b' }), true)

// ---- with variables

exactly<boolean>()(client.send('a', 'x', send), true)
exactly<Promise<void>>()(client.send('a', 'x', ack), true)
exactly<boolean | Promise<void>>()(client.send('a', 'x', either), true)
exactly<boolean | Promise<void>>()(client.send('a', 'x', { ack: flag }), true)
exactly<boolean | Promise<void>>()(client.broadcast('a', 'x', either), true)
exactly<boolean | Promise<void>>()(client.broadcast('a', 'x', { ack: flag }), true)
exactly<boolean | Promise<void>>()(client.publish('a', 'x', either), true)
exactly<boolean | Promise<void>>()(client.publish('a', 'x', { ack: flag, for: 'b' }), true)
declare const both: (SendOptions | AckOptions) & RawOption & ForOption
exactly<boolean | Promise<void>>()(client.publish('a', 'x', both), true)

// `as const` is not needed for options that are kept.
const kept = { ack: true } satisfies AckOptions
exactly<Promise<void>>()(client.send('a', 'x', kept), true)
// A literal whose `ack` was widened is either.
const widened = { ack: true }
exactly<boolean | Promise<void>>()(client.send('a', 'x', widened), true)

// @ts-expect-error: the result of either form is not a boolean
const _wrong: boolean = client.send('a', 'x', { ack: flag })
// @ts-expect-error: nor a Promise
const _wrongToo: Promise<void> = client.send('a', 'x', either)

// ---- options that belong to the other form, or to none

// @ts-expect-error: without acknowledgement nothing is waited for
client.send('a', 'x', { timeout: 5 })
// @ts-expect-error: as above
client.send('a', 'x', { ack: false, signal: new AbortController().signal })
// @ts-expect-error: `for` narrows publications
client.send('a', 'x', { for: 'b' })
// @ts-expect-error: publications are never taken for RPC
client.publish('a', 'x', { raw: true })
// @ts-expect-error: nor broadcasts
client.broadcast('a', 'x', { ack: true, raw: true })
// @ts-expect-error: a misspelt option
client.send('a', 'x', { realTime: true })
// @ts-expect-error: a mistyped option
client.send('a', 'x', { ack: 'yes' })
// @ts-expect-error: a number of milliseconds
client.send('a', 'x', { ack: true, timeout: '5s' })

// ---- targets and payloads

// @ts-expect-error: a target is a string
client.send(7, 'x')
// @ts-expect-error: a symbol is no payload
client.send('a', Symbol('x'))
// @ts-expect-error: one target
client.send(['a', 'b'], 'x')
for (const payload of [
  new Uint8Array(1),
  Buffer.alloc(1),
  'x',
  1,
  1n,
  true,
  null,
  undefined,
  { a: 1 },
  [1],
]) {
  client.send('a', payload)
}
interface Reading {
  value: number
}
declare const reading: Reading
client.publish('a', reading)

// ---- calls

exactly<Promise<unknown>>()(client.call('a', 'm'), true)
exactly<Promise<Reading>>()(client.call<Reading>('a', 'm', { x: 1 }), true)
exactly<Promise<Reading>>()(client.call<Reading>('a', 'm', null, { timeout: 5, realtime: true }), true)
exactly<Promise<Uint8Array>>()(client.call<Uint8Array>('a', 'm', null, { raw: true }), true)
exactly<Promise<void>>()(client.call('a', 'm', null, { reply: false }), true)
declare const callOptions: CallOptions
exactly<Promise<Reading>>()(client.call<Reading>('a', 'm', null, callOptions), true)
// @ts-expect-error: without a reply there is no result
const _none: Promise<Reading> = client.call('a', 'm', null, { reply: false })
// @ts-expect-error: params come before options
client.call('a', 'm', { timeout: 5 }, { ack: true })
// @ts-expect-error: an unknown option
client.call('a', 'm', null, { ack: true })

exactly<boolean>()(client.notify('a'), true)
// @ts-expect-error: a notification is not acknowledged
client.notify('a', 'x', { ack: true })

// ---- the others

exactly<Promise<void>>()(client.drained(), true)
exactly<Promise<void>>()(client.flush({ timeout: 5 }), true)
exactly<Promise<number>>()(client.rtt({ signal: new AbortController().signal }), true)
exactly<Promise<Client>>()(client.secondary(), true)
exactly<Promise<void>>()(client.exclude('a'), true)
exactly<Promise<void>>()(client.exclude(['a', 'b'] as const), true)
exactly<Promise<Error | undefined>>()(client.closed, true)
// @ts-expect-error: its state is not set from outside
client.name = 'x'
// @ts-expect-error: a client is made by connect() or broker.client()
client.open

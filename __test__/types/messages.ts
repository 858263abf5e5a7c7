// Generics of subscriptions, messages and handlers, events, and what is readonly. Nothing is run.

import {
  type AaaEntry,
  AaaMap,
  Broker,
  BusError,
  type BusErrorCode,
  type CallContext,
  type Client,
  type ClientEvents,
  connect,
  type Handler,
  type Message,
  type MessageKind,
  RpcError,
  type Rule,
  type Subscription,
} from 'elbus-node'

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false
declare function exactly<T>(): <V>(value: V, same: Same<V, T>) => void

interface Reading {
  value: number
}

declare const client: Client

// ---- subscriptions

exactly<Subscription<unknown>>()(client.subscribe('a'), true)
exactly<Subscription<Reading>>()(client.subscribe<Reading>('a'), true)
exactly<Subscription<Reading>>()(client.messages<Reading>(), true)
client.subscribe(['a', 'b'] as const)
client.subscribe<Reading>('a', {
  callback: (message) => exactly<Reading>()(message.decode(), true),
  exclude: ['b'],
  highWaterMark: 5,
  highWaterMarkBytes: 5,
  overflow: 'drop-oldest',
  signal: new AbortController().signal,
})

async function _read(subscription: Subscription<Reading>): Promise<void> {
  for await (const message of subscription) {
    exactly<Message<Reading>>()(message, true)
    exactly<Reading>()(message.decode(), true)
    exactly<Uint8Array>()(message.data, true)
    exactly<Uint8Array>()(message.copy(), true)
    exactly<string>()(message.text(), true)
    exactly<string | undefined>()(message.topic, true)
    exactly<MessageKind>()(message.kind, true)
    // @ts-expect-error: what was received is not changed
    message.topic = 'x'
    // @ts-expect-error: as above
    message.data = new Uint8Array()
  }
  await using owned = subscription
  const { value, done } = await owned[Symbol.asyncIterator]().next()
  if (done !== true) exactly<Message<Reading>>()(value, true)
}

async function _readAnything(): Promise<void> {
  for await (const message of client.subscribe('a')) {
    exactly<unknown>()(message.decode(), true)
    // @ts-expect-error: of what nobody vouched for nothing is known
    message.decode().value
  }
}

declare const subscription: Subscription<Reading>
exactly<Promise<void>>()(subscription.ready, true)
exactly<number>()(subscription.pending, true)
exactly<readonly string[]>()(subscription.masks, true)
// @ts-expect-error: the masks are those it was made with
subscription.masks.push('x')
// @ts-expect-error: counted, not set
subscription.dropped = 0
// @ts-expect-error: no such policy
client.subscribe('a', { overflow: 'block' })
// @ts-expect-error: a mask is a string
client.subscribe(5)
// @ts-expect-error: a misspelt option
client.subscribe('a', { highWatermark: 5 })
// @ts-expect-error: a callback takes a message
client.subscribe('a', { callback: (text: string) => text })
// @ts-expect-error: a subscription of one type is not one of another
const _other: Subscription<{ text: string }> = subscription

// ---- handlers

client.serve({
  add: ({ a, b }: { a: number; b: number }) => a + b,
  later: async (_params: unknown, context: CallContext) => {
    exactly<AbortSignal>()(context.signal, true)
    exactly<string>()(context.sender, true)
    return context.method
  },
  nothing: () => undefined,
})
const handler: Handler = (params: Reading) => params.value
client.serve(
  { handler },
  { concurrency: 5, exposeErrors: true, raw: false, onNotification: (data) => data.length },
)
// @ts-expect-error: a handler is a function
client.serve({ handler: 5 })
// @ts-expect-error: two parameters at the most
client.serve({ handler: (_a: unknown, _b: CallContext, _c: unknown) => 1 })

// ---- events

client.on('close', (error) => exactly<Error | undefined>()(error, true))
client.on('slow', (slow) => exactly<number>()(slow.dropped, true))
client.on('fault', (error) => exactly<unknown>()(error, true))
client.on('refused', (error) => exactly<BusErrorCode>()(error.code, true))
client.once('drain', () => undefined)
exactly<[error: BusError]>()(undefined as unknown as ClientEvents['refused'], true)
// @ts-expect-error: no such event
client.on('message', () => undefined)

// ---- brokers

async function _brokers(): Promise<void> {
  await using broker = await Broker.start({
    listen: ['unix:/x', { url: 'tcp://x:0', mode: 0o600 }],
    queue: { frames: 5 },
  })
  exactly<string>()(broker.address, true)
  exactly<string>()(await broker.listen('tcp://x:0'), true)
  exactly<Client>()(await broker.client('a', { rpc: false }), true)
  exactly<Client>()(await connect('unix:/x', { name: 'a', timeout: 5 }), true)
  broker.on('client', (event) => exactly<'reg' | 'unreg'>()(event.type, true))
  broker.on('denied', (event) => exactly<number>()(event.count, true))
  // @ts-expect-error: a name is needed
  await connect('unix:/x', {})
  // @ts-expect-error: and options to say it
  await connect('unix:/x')
  // @ts-expect-error: a broker is started, not constructed
  new Broker()
  // @ts-expect-error: a plain object is no access map
  await Broker.start({ aaa: {} })
  // @ts-expect-error: a listener has a url
  await broker.listen({ mode: 0o600 })
  // @ts-expect-error: options of sockets do not concern a client in the process
  await broker.client('a', { timeout: 5 })
}

// ---- access maps

const map = new AaaMap({
  a: { publish: ['x/#'], subscribe: true, p2p: false, hosts: ['10.0.0.0/8'], peer: { uid: 0 } },
})
new AaaMap([['a', {}]])
new AaaMap(new Map<string, AaaEntry>())
map.set('a', { publish: ['a'] as const }).update('a', { publish: undefined })
const got = map.get('a') as AaaEntry
exactly<Rule | undefined>()(got.publish, true)
// @ts-expect-error: an entry is a frozen copy; change it with set() or update()
got.publish = true
if (Array.isArray(got.hosts)) {
  const hosts: readonly string[] = got.hosts
  // @ts-expect-error: its lists too
  hosts.push('x')
}
// @ts-expect-error: its lists too
got.hosts?.push('x')
// @ts-expect-error: and what it says of the peer
if (got.peer !== undefined) got.peer.uid = 5
// @ts-expect-error: a misspelt right would be one that is not narrowed
map.set('a', { publsh: false })
// @ts-expect-error: a rule is true, false or a list
map.set('a', { publish: 'x/#' })

// ---- errors

function handle(error: unknown): number | undefined {
  if (error instanceof RpcError) {
    exactly<number>()(error.rpcCode, true)
    exactly<unknown>()(error.data, true)
  }
  if (!(error instanceof BusError)) return undefined
  switch (error.code) {
    case 'ERR_BUS_ACCESS':
      return error.wireCode
    // @ts-expect-error: no such code
    case 'ERR_BUS_ACESS':
      return 0
    default:
      return undefined
  }
}
new BusError('ERR_BUS_IO', 'text', { cause: handle, wireCode: undefined })
// @ts-expect-error: codes are those of the list
new BusError('ERR_MINE', 'text')
// @ts-expect-error: a code is not changed
new BusError('ERR_BUS_IO', 'text').code = 'ERR_BUS_DATA'

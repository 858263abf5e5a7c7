// One pass through everything that crosses into the addon, in whatever host loads this: see `addon.spec.ts` and
// `electron.spec.ts`.

import { once } from 'node:events'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { AaaMap, Broker, type Client, connect } from 'elbus-node'
import type { Job } from './environments-worker'
import { next } from './messages'

/** Sizes of payloads: inline, beside the batch, and larger than what a socket takes at once. */
const SIZES = [0, 1, 100, 64 << 10, 1 << 20]

/** What a pass gives where everything works; the sums are of bytes that arrived and were right. */
export const BROAD = {
  messages: 6 * SIZES.reduce((sum, size) => sum + size),
  calls: 6 * SIZES.reduce((sum, size) => sum + size),
  topics: 2_000,
  refused: ['ERR_BUS_ACCESS', 'ERR_BUS_NOT_REGISTERED'],
  threads: ['inside', 'socket'],
}

const PAYLOADS = SIZES.map((size) => Buffer.from(Array.from({ length: size }, (_, index) => index * 7)))

/** Publishes and calls with payloads of all sizes; how many bytes came back as they should. */
async function exchange(from: Client, to: Client): Promise<[messages: number, calls: number]> {
  const subscription = to.subscribe(`of/${from.name}/+`)
  await subscription.ready
  let [messages, calls] = [0, 0]
  for (const payload of PAYLOADS) {
    from.publish(`of/${from.name}/${payload.length}`, payload)
    const { data } = await next(subscription)
    if (payload.equals(data)) messages += payload.length
    const answer = await from.call<Uint8Array>(to.name, 'echo', payload, { raw: true })
    if (payload.equals(answer)) calls += payload.length
  }
  await subscription.unsubscribe()
  return [messages, calls]
}

/** Why a promise is rejected, by the code of its error. */
function refusal(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => 'nothing',
    (error: { code: string }) => error.code,
  )
}

/** Calls a thread that serves, and waits until the broker has seen it end. */
async function throughThread(broker: Broker, caller: Client, address: string, name: string): Promise<void> {
  const workerData: Job = { job: 'serve', address, name }
  const worker = new Worker(join(__dirname, 'environments-worker.js'), { workerData })
  await once(worker, 'message')
  const params = { name, bytes: new Uint8Array(64 << 10) }
  const answer = await caller.call<typeof params>(name, 'echo', params)
  if (answer.bytes.length !== params.bytes.length) throw new Error(`${name} lost bytes`)
  await worker.terminate()
  while (broker.clients(name).length > 0) await new Promise((resolve) => setImmediate(resolve))
}

/** Messages, calls, topics, a socket client, an access map and threads; gives {@link BROAD}. */
export async function broad(socket: string): Promise<typeof BROAD> {
  const guests = `unix:${socket}.guests`
  const broker = await Broker.start({ listen: [`unix:${socket}`] })
  const local = await broker.client('local')
  const other = await connect(broker.address, { name: 'other' })
  const remote = await connect(`unix:${socket}`, { name: 'remote' })
  const clients = [local, other, remote]
  for (const client of clients) client.serve({ echo: (params: Uint8Array) => params }, { raw: true })
  const sums = { messages: 0, calls: 0 }
  for (const from of clients) {
    for (const to of clients.filter((client) => client !== from)) {
      const [messages, calls] = await exchange(from, to)
      sums.messages += messages
      sums.calls += calls
    }
  }

  let topics = 0
  await remote.subscribe('many/#', { callback: () => (topics += 1) }).ready
  for (let index = 0; index < BROAD.topics; index += 1) local.publish(`many/${index}`, { index })
  while (topics < BROAD.topics) await new Promise((resolve) => setImmediate(resolve))

  const rights = new AaaMap({ guest: { publish: ['open/#'] } })
  await broker.listen({ url: guests, aaa: rights })
  const guest = await connect(guests, { name: 'guest' })
  await guest.publish('open/x', 'x', { ack: true })
  const refused = [
    await refusal(guest.publish('closed/x', 'x', { ack: true })),
    await refusal(local.call('nobody', 'echo')),
  ]
  rights.update('guest', { publish: true })
  if (rights.apply('guest') !== 1) throw new Error('the edit reached nobody')
  await guest.publish('closed/x', 'x', { ack: true })

  const threads = BROAD.threads
  await throughThread(broker, local, broker.address, 'inside')
  await throughThread(broker, remote, `unix:${socket}`, 'socket')
  await Promise.all([guest, remote, other].map((client) => client.close()))
  await broker.close()
  return { ...sums, topics, refused, threads }
}

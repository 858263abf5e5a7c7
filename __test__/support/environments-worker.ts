// Run in a thread by environments.spec.ts and environments-program.ts: a client of somebody else's broker, or a broker.

import { parentPort, workerData } from 'node:worker_threads'
import { Broker, type Client, connect } from 'elbus-node'

/** What such a thread is to do. */
export interface Job {
  readonly job: 'serve' | 'flood' | 'own' | 'exit' | 'end' | 'idle' | 'throw'
  /** The broker to join, or the path to listen at. */
  readonly address: string
  readonly name: string
}

const { job, address, name } = workerData as Job

/** Sends to everybody, in all ways, until it is ended. */
async function flood(client: Client, topic: string): Promise<void> {
  const bytes = new Uint8Array(300).fill(120)
  const large = new Uint8Array(30_000).fill(121)
  client.on('refused', () => undefined)
  for (let round = 0; ; round += 1) {
    let isFree = true
    for (let index = 0; index < 50 && isFree; index += 1) isFree = client.publish(`${topic}/${index}`, bytes)
    if (isFree) isFree = client.publish(`${topic}/large`, large)
    client.call(name, 'echo', { round }, { timeout: 1_000 }).catch(() => undefined)
    client.call('main', 'echo', { round }, { timeout: 1_000 }).catch(() => undefined)
    if (!isFree) await client.drained()
    await new Promise((resolve) => setImmediate(resolve))
  }
}

async function main(): Promise<void> {
  if (job === 'own') {
    const broker = await Broker.start({ listen: [address] })
    const client = await broker.client(name)
    client.serve({ echo: (params: unknown) => params })
    parentPort?.postMessage(broker.address)
    await flood(client, 'own')
  }
  const client = await connect(address, { name })
  client.serve({ echo: (params: unknown) => params })
  const subscription = client.subscribe('#', { callback: () => undefined })
  await subscription.ready
  parentPort?.postMessage('ready')
  // Its end is its owner's business: nothing here keeps the thread.
  if (job === 'end') client.unref()
  if (job === 'exit') process.exit(3)
  if (job === 'throw') {
    setImmediate(() => {
      throw new Error('thrown in the thread')
    })
  }
  if (job === 'flood') await flood(client, 'flood')
}

void main()

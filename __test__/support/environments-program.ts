// Run by environments.spec.ts in a process of its own: what would end a process that is not careful.

import { once } from 'node:events'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { Broker, type Client, connect } from 'elbus-node'
import type { Job } from './environments-worker'

const WORKER = join(__dirname, 'environments-worker.js')

function thread(workerData: Job): Worker {
  return new Worker(WORKER, { workerData })
}

/** Resolves when a client of this name has come or gone. */
function told(broker: Broker, wanted: 'reg' | 'unreg', name: string): Promise<void> {
  return new Promise((resolve) => {
    const look = ({ type, client }: { type: string; client: string }): void => {
      if (type !== wanted || client !== name) return
      broker.off('client', look)
      resolve()
    }
    broker.on('client', look)
  })
}

interface Busy {
  readonly broker: Broker
  readonly main: Client
  readonly counts: { own: number; other: number }
  close(): Promise<void>
}

/** A broker with two clients that talk all the time, and count. */
async function busy(path: string): Promise<Busy> {
  const broker = await Broker.start({ listen: [path] })
  const main = await broker.client('main')
  const second = await broker.client('second')
  const counts = { own: 0, other: 0 }
  for (const client of [main, second]) client.serve({ echo: (params: unknown) => params })
  await main.subscribe('steady/#', { callback: () => (counts.own += 1) }).ready
  await second.subscribe('flood/#', { callback: () => (counts.other += 1) }).ready
  const beat = setInterval(() => second.publish('steady/beat', 'x'), 1)
  const close = async (): Promise<void> => {
    clearInterval(beat)
    await broker.close({ drain: 0 })
  }
  return { broker, main, counts, close }
}

/** Terminates threads in the middle of their traffic. */
async function terminated(path: string, rounds: number): Promise<void> {
  const { broker, main, counts, close } = await busy(path)
  for (let round = 0; round < rounds; round += 1) {
    const [one, two] = [`inside${round}`, `socket${round}`]
    const gone = Promise.all([told(broker, 'unreg', one), told(broker, 'unreg', two)])
    const workers = [
      thread({ job: 'flood', address: broker.address, name: one }),
      thread({ job: 'flood', address: path, name: two }),
    ]
    await Promise.all(workers.map((worker) => once(worker, 'message')))
    const before = counts.other
    while (counts.other < before + 100) await new Promise((resolve) => setImmediate(resolve))
    // Some while a call of ours is at work there.
    const call = main.call(one, 'echo', round, { timeout: 20 }).catch((error: { code: string }) => error.code)
    await Promise.all(workers.map((worker) => worker.terminate()))
    await gone
    await call
  }
  const steady = counts.own
  while (counts.own < steady + 10) await new Promise((resolve) => setImmediate(resolve))
  console.log(
    JSON.stringify({
      clients: broker.clients().map(({ name }) => name),
      echo: await main.call('second', 'echo', 1),
    }),
  )
  await close()
}

/** Terminates threads that own a broker, with clients from here. */
async function owners(path: string, rounds: number): Promise<void> {
  const ends: string[] = []
  for (let round = 0; round < rounds; round += 1) {
    const worker = thread({ job: 'own', address: path, name: 'owner' })
    const [address] = (await once(worker, 'message')) as [string]
    const clients = await Promise.all([
      connect(path, { name: 'socket' }),
      connect(address, { name: 'inside' }),
    ])
    for (const client of clients) {
      let received = 0
      await client.subscribe('own/#', { callback: () => (received += 1) }).ready
      while (received < 100) await new Promise((resolve) => setImmediate(resolve))
    }
    const pending = clients[1].call('owner', 'missing').catch(() => undefined)
    await pending
    await worker.terminate()
    const errors = await Promise.all(clients.map((client) => client.closed))
    ends.push(...errors.map((error) => (error as { code?: string } | undefined)?.code ?? 'closed'))
    const late = await connect(address, { name: 'late' }).catch((error: { code: string }) => error.code)
    ends.push(String(late))
  }
  console.log(JSON.stringify({ ends: [...new Set(ends)].sort(), count: ends.length }))
}

/** Loads the package again and again, with clients of every copy that talk to each other. */
async function reloaded(path: string, rounds: number): Promise<void> {
  const broker = await Broker.start({ listen: [path] })
  const main = await broker.client('main')
  main.serve({ echo: (params: unknown) => params })
  let received = 0
  await main.subscribe('copy/#', { callback: () => (received += 1) }).ready
  for (let round = 0; round < rounds; round += 1) {
    for (const key of Object.keys(require.cache)) delete require.cache[key]
    const copy = require('elbus-node') as typeof import('elbus-node')
    if (copy.Broker === Broker) throw new Error('it was not loaded again')
    const client = await copy.connect(broker.address, { name: `copy${round}` })
    const remote = await copy.connect(path, { name: `remote${round}` })
    for (const one of [client, remote]) {
      if ((await one.call('main', 'echo', round)) !== round) throw new Error('no echo')
      await one.publish(`copy/${round}`, 'x', { ack: true })
      const error = await one.call('nobody', 'x').catch((reason: unknown) => reason)
      if (!(error instanceof copy.BusError)) throw new Error('an error of another copy')
    }
    const own = await copy.Broker.start()
    await (await own.client('x')).rtt()
    await own.close()
    if (round % 2 === 0) await Promise.all([client.close(), remote.close()])
    // The others stay open beside those of later copies.
  }
  while (received < 2 * rounds) await new Promise((resolve) => setImmediate(resolve))
  console.log(JSON.stringify({ received, clients: broker.clients('copy').length }))
  process.exit(0)
}

const [scenario, path = '', rounds] = process.argv.slice(2)
const run = { terminated, owners, reloaded }[scenario as 'terminated']
void run(path, Number(rounds))

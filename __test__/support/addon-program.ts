// Run by addon.spec.ts in a process of its own: the addon in hosts that are unlike a plain Node. The package is imported
// where a scenario says so and not before, because when it is loaded is what they are about. The last line is JSON.

import { secureHeapUsed } from 'node:crypto'
import { once } from 'node:events'
import { copyFileSync, readdirSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { compileFunction, createContext, runInContext } from 'node:vm'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

/** Goes through everything once. Loads the package. */
async function pass(socket: string): Promise<unknown> {
  const { broad } = require('./broad') as typeof import('./broad')
  return await broad(socket)
}

// ---- in worker threads, which the main thread starts before it has the addon itself

/** What a thread of this program is to do. */
interface Task {
  /** `wait` until it is told to go through everything; else a broker of its own, and how it ends. */
  readonly task: 'wait' | (typeof ENDS)[number]
  readonly socket: string
}

const ENDS = ['closes', 'exits', 'terminated', 'throws'] as const

/** In a thread: a broker with a call in flight on every way to it. */
async function own(task: Task['task'], socket: string): Promise<void> {
  const { Broker, connect } = require('elbus-node') as typeof import('elbus-node')
  const broker = await Broker.start({ listen: [`unix:${socket}`], workers: 1 })
  const clients = [await broker.client('local'), await connect(`unix:${socket}`, { name: 'remote' })]
  const [local, remote] = clients as [(typeof clients)[0], (typeof clients)[0]]
  let calls = 0
  const inFlight = new Promise<void>((resolve) => {
    const never = (): Promise<never> => {
      calls += 1
      if (calls === clients.length) resolve()
      return new Promise(() => undefined)
    }
    local.serve({ never, echo: (params: Uint8Array) => params }, { raw: true })
  })
  await remote.call('local', 'echo', new Uint8Array(100_000), { raw: true })
  for (const client of clients) {
    client.call('local', 'never', null, { timeout: Number.POSITIVE_INFINITY }).catch(() => undefined)
  }
  await inFlight
  if (task === 'closes') await broker.close({ drain: 0 })
  parentPort?.postMessage('in the middle')
  if (task === 'exits') process.exit(3)
  if (task === 'throws') {
    setImmediate(() => {
      throw new Error('thrown in the thread')
    })
  }
}

/** What the process has open. */
interface Held {
  readonly threads: number
  readonly files: number
}

function held(): Held {
  return {
    threads: readdirSync('/proc/self/task').length,
    files: readdirSync('/proc/self/fd').length,
  }
}

/** Memory of the process that is its own, in KiB. */
function ownKib(): number {
  const anonymous = readFileSync('/proc/self/smaps_rollup', 'utf8').match(/^Anonymous: *(\d+) kB$/m)
  return Number(anonymous?.[1])
}

/** Loads the addon in one thread after the other, none of which ends like the one before. */
async function threads(socket: string, rounds: string): Promise<unknown> {
  const ends: Record<string, number> = {}
  let before: (Held & { kib: number }) | undefined
  for (let round = 0; round < Number(rounds); round += 1) {
    // What the process keeps for good is there after some of each.
    if (round === Number(rounds) / 5) before = { ...held(), kib: ownKib() }
    const task = ENDS[round % ENDS.length] as (typeof ENDS)[number]
    const worker = new Worker(__filename, { workerData: { task, socket } satisfies Task })
    // Not `once` of node:events, which an error rejects, and it may overtake the message.
    const exited = new Promise<number>((resolve) => worker.once('exit', resolve))
    await new Promise((resolve) => worker.once('message', resolve).once('error', resolve))
    if (task === 'terminated') await worker.terminate()
    const code = await exited
    ends[`${task} ${code}`] = (ends[`${task} ${code}`] ?? 0) + 1
  }
  if (before === undefined) throw new Error('too few rounds')
  const { kib, ...open } = before
  // A thread that was joined is gone from /proc a moment later.
  const late = performance.now() + 5_000
  while (JSON.stringify(held()) !== JSON.stringify(open) && performance.now() < late) await turn()
  const grownKib = ownKib() - kib
  return {
    ends,
    more: { threads: held().threads - open.threads, files: held().files - open.files },
    grownKib,
  }
}

// ---- after many other libraries

function dlopen(file: string): void {
  process.dlopen({ exports: {} }, file)
}

/** Loads copies of a library until it cannot be loaded any more, or `most` are; how many, and what stopped it. */
function loadCopies(file: string, most: number): { count: number; stopped?: string } {
  for (let count = 0; count < most; count += 1) {
    // Without a name of its own in it, a library is the same as another only if it is the same file.
    const copy = `${file}.${count}`
    copyFileSync(file, copy)
    try {
      dlopen(copy)
    } catch (error) {
      return { count, stopped: (error as Error).message }
    }
  }
  return { count: most }
}

/** Tells a thread that waits to go through everything. */
async function told(worker: Worker, socket: string): Promise<unknown> {
  worker.postMessage(socket)
  const [report] = await once(worker, 'message')
  await worker.terminate()
  return report
}

async function waiting(): Promise<Worker> {
  const worker = new Worker(__filename, { workerData: { task: 'wait', socket: '' } satisfies Task })
  await once(worker, 'message')
  return worker
}

/** Fills what the loader keeps for late libraries, then loads the addon in this thread, an older and a newer one. */
async function late(socket: string, folder: string, first: string): Promise<unknown> {
  const older = await waiting()
  const dynamic = loadCopies(join(folder, 'dynamic.so'), 250)
  const small = loadCopies(join(folder, 'initial.so'), 5_000)
  const control = loadCopies(join(folder, 'control.so'), 1)
  const passes: unknown[] = []
  if (first === 'thread') passes.push(await told(older, socket))
  passes.push(await pass(socket))
  if (first !== 'thread') passes.push(await told(older, socket))
  passes.push(await told(await waiting(), socket))
  return { dynamic: dynamic.count, small: small.stopped, control: control.stopped, passes }
}

/** The library of {@link late} that cannot be loaded there, at once. */
async function control(_socket: string, folder: string): Promise<unknown> {
  return loadCopies(join(folder, 'control.so'), 1)
}

// ---- in contexts of `node:vm`

/** Loads the package's modules with the globals of a context, as test runners do; the addon is that of the process. */
function loadInto(context: object): typeof import('elbus-node') {
  const loaded = new Map<string, { exports: unknown }>()
  const load = (file: string): unknown => {
    const known = loaded.get(file)
    if (known !== undefined) return known.exports
    const module = { exports: {} }
    loaded.set(file, module)
    const outer = createRequire(file)
    if (file.endsWith('.json')) return outer(file)
    const inner = (name: string): unknown => (name.startsWith('.') ? load(outer.resolve(name)) : outer(name))
    const parameters = ['module', 'exports', 'require']
    const body = compileFunction(readFileSync(file, 'utf8'), parameters, {
      filename: file,
      parsingContext: context,
    })
    body(module, module.exports, inner)
    return module.exports
  }
  return load(require.resolve('elbus-node')) as typeof import('elbus-node')
}

async function contexts(socket: string, rounds: string): Promise<unknown> {
  const outer = require('elbus-node') as typeof import('elbus-node')
  const broker = await outer.Broker.start({ listen: [`unix:${socket}`] })
  const main = await broker.client('main')
  main.serve({ echo: (params: unknown) => params })
  let right = 0
  for (let round = 0; round < Number(rounds); round += 1) {
    const context = createContext({ process, Buffer, performance, TextDecoder, TextEncoder, queueMicrotask })
    Object.assign(context, {
      setTimeout,
      clearTimeout,
      setImmediate,
      clearImmediate,
      setInterval,
      clearInterval,
    })
    const { Broker, connect, BusError } = loadInto(context)
    if (Broker === outer.Broker) throw new Error('it was not loaded again')
    const make = (source: string): Uint8Array => runInContext(source, context) as Uint8Array
    const bytes = make('new Uint8Array(70_000).fill(7)')
    if (bytes instanceof Uint8Array) throw new Error('bytes of this context')
    const mine = await Broker.start()
    const clients = [
      await connect(broker.address, { name: `inside${round}` }),
      await connect(socket, { name: `socket${round}` }),
      await mine.client('mine'),
    ]
    for (const client of clients) {
      client.serve({ length: (params: Uint8Array) => params.length }, { raw: true })
      for (const payload of [bytes, Buffer.alloc(70_000, 7)]) {
        if ((await client.call(client.name, 'length', payload)) === 70_000) right += 1
      }
      if ((await client.call(client.name, 'none').catch((error: unknown) => error)) instanceof BusError)
        right += 1
    }
    if ((await clients[0]?.call('main', 'echo', round)) === round) right += 1
    await Promise.all(clients.map((client) => client.close()))
    await mine.close()
  }
  await broker.close()
  return { right }
}

// ----

async function inThread({ task, socket }: Task): Promise<void> {
  if (task !== 'wait') return await own(task, socket)
  parentPort?.once('message', async (path: string) => parentPort?.postMessage(await pass(path)))
  parentPort?.postMessage('waiting')
}

async function inMain([scenario, socket = '', ...rest]: readonly string[]): Promise<void> {
  const [first = '', second = ''] = rest
  const scenarios: Record<string, () => Promise<unknown>> = {
    broad: async () => ({ secureHeap: secureHeapUsed()?.total ?? 0, pass: await pass(socket) }),
    threads: () => threads(socket, first),
    late: () => late(socket, first, second),
    control: () => control(socket, first),
    contexts: () => contexts(socket, first),
  }
  console.log(JSON.stringify(await scenarios[scenario as string]?.()))
}

void (isMainThread ? inMain(process.argv.slice(2)) : inThread(workerData as Task))

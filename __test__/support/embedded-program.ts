// Run by embedded.ts in a process of its own: a broker embedded in a program that goes on working beside it, or two
// clients on sockets that notice when a broker is slow. Told what to do, and asked, over the channel to its parent.

import { readFileSync } from 'node:fs'
import { Broker, type BrokerOptions, type Client, connect, type ListenOptions } from 'elbus-node'

/** What a program of the other kind is started with. */
export type Task =
  | {
      readonly kind: 'broker'
      readonly options: BrokerOptions
      readonly listen: readonly ListenOptions[]
      /** Whether it listens for the events of the broker. */
      readonly listeners: boolean
      /** Topics whose publications are counted by sender, and as an end of messages the client `watcher`. */
      readonly watch?: readonly string[]
      /** Clients that are in the process besides, with names of `bytes` bytes. */
      readonly crowd?: { readonly count: number; readonly bytes: number }
    }
  | { readonly kind: 'probe'; readonly address: string }

/** The worst that was seen since the last look, in milliseconds. */
export interface Worst {
  /** Round trip of a message and its answer. */
  readonly trip: number
  /** How late a timer of 2 ms came. */
  readonly delay: number
  readonly trips: number
  /** Messages that were never answered. */
  readonly lost: number
}

/** Events a broker has raised. */
export type Events = Readonly<Record<'denied' | 'fault' | 'slow' | 'client', readonly unknown[]>>

/** Commands, and what they give. */
export interface Commands {
  /** The worst since the last look. */
  worst(): Worst
  /** Time of the processor it has used, in milliseconds. */
  cpu(): number
  /** Resident memory, after what can be collected is. */
  memory(): number
  /** Most resident memory since the last look. */
  peak(): number
  events(): Events
  /** Frames that reached `watcher`, by sender. */
  seen(): Readonly<Record<string, number>>
  stats(): ReturnType<Broker['stats']>
  clients(filter?: string): ReturnType<Broker['clients']>
  /** What it returned or threw, what reached `watcher` of that client when it returned, and the time. */
  forceDisconnect(name: string): { result: boolean | string; seen: number; at: number }
  /** Logs in and leaves, of the probe: how long the login took, or the code it was refused with. */
  login(name: string): number | string
  quit(): void
}

const INTERVAL = 2
const PAGE = 4096
/** After so long a message is lost and another one is sent, in milliseconds. */
const LOST = 1_000
/** Enough to see what happened, too few to be memory themselves. */
const MOST_EVENTS = 2_000

/** Two innocent clients. */
class Exchange {
  #trip = 0
  #trips = 0
  #lost = 0
  #delay = 0
  #sentAt: number | undefined
  #beatAt = performance.now()
  readonly #timer: NodeJS.Timeout

  constructor(first: Client, second: Client) {
    second.messages({
      callback: ({ sender }) => {
        if (sender !== first.name) return
        try {
          second.send(sender, 'pong')
        } catch {
          // As below.
        }
      },
    })
    first.messages({
      callback: ({ sender }) => {
        if (sender !== second.name || this.#sentAt === undefined) return
        this.#trip = Math.max(this.#trip, performance.now() - this.#sentAt)
        this.#trips += 1
        this.#sentAt = undefined
      },
    })
    this.#timer = setInterval(() => {
      const now = performance.now()
      this.#delay = Math.max(this.#delay, now - this.#beatAt - INTERVAL)
      this.#beatAt = now
      if (this.#sentAt !== undefined) {
        if (now - this.#sentAt < LOST) return
        this.#trip = Math.max(this.#trip, now - this.#sentAt)
        this.#lost += 1
      }
      this.#sentAt = now
      try {
        first.send(second.name, 'ping')
      } catch {
        // Refused: it counts as lost, because no answer comes.
      }
    }, INTERVAL)
  }

  look(): Worst {
    // One that is still under way counts for as long as it has been.
    const open = this.#sentAt === undefined ? 0 : performance.now() - this.#sentAt
    const worst = {
      trip: Math.max(this.#trip, open),
      delay: this.#delay,
      trips: this.#trips,
      lost: this.#lost,
    }
    this.#trip = 0
    this.#delay = 0
    this.#trips = 0
    this.#lost = 0
    return worst
  }

  stop(): void {
    clearInterval(this.#timer)
  }
}

function resident(): number {
  return Number(readFileSync('/proc/self/statm', 'latin1').split(' ')[1]) * PAGE
}

function cpu(): number {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1_000
}

type Answers = { [Name in keyof Commands]?: (argument: never) => unknown }

function serve(answers: Answers): void {
  process.on(
    'message',
    ({ id, command, argument }: { id: number; command: keyof Commands; argument: unknown }) => {
      void (async () => process.send?.({ id, value: await answers[command]?.(argument as never) }))()
    },
  )
}

async function broker({
  options,
  listen,
  listeners,
  watch,
  crowd,
}: Task & { kind: 'broker' }): Promise<void> {
  const events = {
    denied: [] as unknown[],
    fault: [] as unknown[],
    slow: [] as unknown[],
    client: [] as unknown[],
  }
  const embedded = await Broker.start(options)
  if (listeners) {
    for (const [name, list] of Object.entries(events)) {
      embedded.on(name as keyof Events, (event: unknown) => list.length < MOST_EVENTS && list.push(event))
    }
  }
  const addresses: string[] = []
  for (const one of listen) addresses.push(await embedded.listen(one))
  const exchange = new Exchange(await embedded.client('inside.a'), await embedded.client('inside.b'))
  const seen: Record<string, number> = {}
  if (watch !== undefined) {
    const watcher = await embedded.client('watcher')
    const count = ({ sender }: { sender: string }): void => {
      seen[sender] = (seen[sender] ?? 0) + 1
    }
    watcher.messages({ callback: count })
    await watcher.subscribe(watch, { callback: count }).ready
  }
  for (let index = 0; index < (crowd?.count ?? 0); index += 1) {
    await embedded.client(`crowd.${index}.`.padEnd(crowd?.bytes ?? 0, 'a'))
  }
  let peak = 0
  const sampler = setInterval(() => {
    peak = Math.max(peak, resident())
  }, 10)
  serve({
    worst: () => exchange.look(),
    cpu,
    memory: () => {
      globalThis.gc?.()
      globalThis.gc?.()
      return resident()
    },
    peak: () => {
      const most = peak
      peak = 0
      return most
    },
    events: () => events,
    seen: () => seen,
    stats: () => embedded.stats(),
    clients: (filter?: string) => embedded.clients(filter),
    forceDisconnect: (name: string) => {
      let result: boolean | string
      try {
        result = embedded.forceDisconnect(name)
      } catch (error) {
        result = (error as { code: string }).code
      }
      return { result, seen: seen[name] ?? 0, at: Number(process.hrtime.bigint()) }
    },
    quit: async () => {
      clearInterval(sampler)
      exchange.stop()
      await embedded.close({ drain: 0 })
      leave()
    },
  })
  process.send?.(addresses)
}

async function probe({ address }: Task & { kind: 'probe' }): Promise<void> {
  const clients = [
    await connect(address, { name: 'outside.a' }),
    await connect(address, { name: 'outside.b' }),
  ] as const
  const exchange = new Exchange(...clients)
  serve({
    worst: () => exchange.look(),
    cpu,
    login: async (name: string) => {
      const start = performance.now()
      try {
        const client = await connect(address, { name })
        const ms = performance.now() - start
        await client.close()
        return ms
      } catch (error) {
        return String(error)
      }
    },
    quit: async () => {
      exchange.stop()
      for (const client of clients) await client.close()
      leave()
    },
  })
  process.send?.([])
}

/** Lets go of the channel once the answer has left; the process then ends by itself, if nothing is forgotten. */
function leave(): void {
  setImmediate(() => process.disconnect())
}

const task = JSON.parse(process.argv[2] as string) as Task
void (task.kind === 'broker' ? broker(task) : probe(task))

// A broker embedded in a Node process of its own, two clients inside it and two outside that notice when it is slow, and
// what has to hold for it however hostile its peers are: it lives, nobody waits, its memory comes back, it ends with 0.

import { type ChildProcess, spawn } from 'node:child_process'
import os from 'node:os'
import { join } from 'node:path'
import type { ExecutionContext } from 'ava'
import type { BrokerOptions, ListenOptions } from 'elbus-node'
import type { Commands, Task } from './embedded-program'
import { socketPath } from './temp'
import { soon, within } from './within'

/** What innocent clients and timers may wait longer than without the attack, in milliseconds. */
const ALLOWED = 20
/** The same where other programs keep the processors busy, and delay everybody: all that can be told then is a hang. */
const ALLOWED_IF_BUSY = 2_000
/** Share of the processors from which on they count as busy with other programs. */
const BUSY = 0.15
/** A busy machine gets so many measurements, of which the best counts. */
const ATTEMPTS = 8
/** Length of a control run, in milliseconds. */
const CONTROL = 400
/** Control runs after which one is taken as it is. */
const CONTROLS = 5
/** Memory has come back when it is this much of what it was, or when V8 and two allocators keep no more than this. */
const RETURNED = 1.1
const FLOOR = 24 << 20
export const MIB = 1 << 20

/** Set for a long run: the doses of the catalogue in full. */
export const isLong = process.env.ELBUS_LONG === '1'

type Command = keyof Commands

/** A program of embedded-program.ts. */
class Subject {
  readonly #child: ChildProcess
  readonly #ended: Promise<[code: number | null, signal: NodeJS.Signals | null]>
  readonly #waiting = new Map<number, (value: never) => void>()
  readonly addresses: Promise<string[]>
  #asked = 0
  #errors = ''

  constructor(t: ExecutionContext, task: Task) {
    const file = join(__dirname, 'embedded-program.js')
    // V8 keeps room for young objects, which would look like memory of the broker.
    const flags = ['--expose-gc', '--max-semi-space-size=1']
    this.#child = spawn(process.execPath, [...flags, file, JSON.stringify(task)], {
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    })
    this.#child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#errors += text
    })
    this.#ended = new Promise((resolve) => this.#child.on('close', (code, signal) => resolve([code, signal])))
    t.teardown(async () => {
      this.#child.kill('SIGKILL')
      await this.#ended
    })
    this.addresses = new Promise((resolve, reject) => {
      this.#child.once('message', (addresses: string[]) => {
        resolve(addresses)
        this.#child.on('message', ({ id, value }: { id: number; value: never }) => {
          this.#waiting.get(id)?.(value)
          this.#waiting.delete(id)
        })
      })
      void this.#ended.then(() => reject(new Error(`it did not start: ${this.#errors}`)))
    })
  }

  ask<Name extends Command>(
    command: Name,
    ...[argument]: Parameters<Commands[Name]>
  ): Promise<ReturnType<Commands[Name]>> {
    this.#asked += 1
    const id = this.#asked
    const answered = new Promise<ReturnType<Commands[Name]>>((resolve, reject) => {
      this.#waiting.set(id, resolve)
      void this.#ended.then((how) => reject(new Error(`it has ended with ${how}: ${this.#errors}`)))
    })
    this.#child.send({ id, command, argument })
    return soon(answered, `the program answers ${command}`)
  }

  /** Asks it to end, and checks that it does, in good order and without a word. */
  async quit(t: ExecutionContext): Promise<void> {
    await this.ask('quit')
    t.deepEqual(await soon(this.#ended, 'the program ends by itself'), [0, null], this.#errors)
    t.is(this.#errors, '')
  }
}

/** What a test wants of the broker. */
export interface EmbeddedOptions {
  /** Memory that may stay, where it is clients of the process that received a flood. */
  readonly keeps?: number
  readonly options?: BrokerOptions
  readonly listen?: Omit<ListenOptions, 'url'>
  /** Listens over TCP too. */
  readonly tcp?: boolean
  /** Default true. */
  readonly listeners?: boolean
  readonly watch?: readonly string[]
  readonly crowd?: { readonly count: number; readonly bytes: number }
}

/** The worst of all, in milliseconds. */
interface Measured {
  readonly inside: number
  readonly outside: number
  readonly loop: number
}

/** A broker under attack. */
export class Embedded {
  readonly #subject: Subject
  readonly #probe: Subject
  readonly #t: ExecutionContext
  /** Of its UNIX socket. */
  readonly address: string
  /** Of its TCP port, if it has one. */
  readonly tcp: string
  /** Memory before anything happened. */
  readonly start: number

  private constructor(
    t: ExecutionContext,
    subject: Subject,
    probe: Subject,
    addresses: string[],
    start: number,
  ) {
    this.#t = t
    this.#subject = subject
    this.#probe = probe
    this.address = addresses[0] as string
    this.tcp = addresses[1] ?? ''
    this.start = start
  }

  static async start(t: ExecutionContext, given: EmbeddedOptions = {}): Promise<Embedded> {
    const { options = {}, listen = {}, tcp = false, listeners = true, watch, crowd } = given
    const urls = [`unix:${socketPath(t)}`, ...(tcp ? ['tcp://127.0.0.1:0'] : [])]
    const subject = new Subject(t, {
      kind: 'broker',
      options,
      listen: urls.map((url) => ({ ...listen, url })),
      listeners,
      ...(watch && { watch }),
      ...(crowd && { crowd }),
    })
    const addresses = await soon(subject.addresses, 'the broker starts')
    const probe = new Subject(t, { kind: 'probe', address: addresses[0] as string })
    await soon(probe.addresses, 'the probe starts')
    // Code is compiled and pages are touched for the first time.
    await sleep(CONTROL)
    await subject.ask('memory')
    return new Embedded(t, subject, probe, addresses, await subject.ask('memory'))
  }

  ask<Name extends Command>(
    command: Name,
    ...argument: Parameters<Commands[Name]>
  ): Promise<ReturnType<Commands[Name]>> {
    return this.#subject.ask(command, ...argument)
  }

  async #worst(): Promise<Measured & { trips: number; lost: number }> {
    const [inside, outside] = await Promise.all([this.#subject.ask('worst'), this.#probe.ask('worst')])
    return {
      inside: inside.trip,
      outside: outside.trip,
      loop: inside.delay,
      trips: Math.min(inside.trips, outside.trips),
      lost: inside.lost + outside.lost,
    }
  }

  /** Time of all processors so far, and what of it was idle or ours: this process, the broker's, the probe's. */
  async #processors(): Promise<{ all: number; idle: number; own: number }> {
    const [subject, probe] = await Promise.all([this.#subject.ask('cpu'), this.#probe.ask('cpu')])
    const times = os.cpus().map((cpu) => cpu.times)
    const sum = (pick: (time: (typeof times)[number]) => number): number =>
      times.reduce((total, time) => total + pick(time), 0)
    const { user, system } = process.cpuUsage()
    return {
      all: sum((time) => time.user + time.nice + time.sys + time.idle + time.irq),
      idle: sum(({ idle }) => idle),
      own: subject + probe + (user + system) / 1_000,
    }
  }

  /**
   * Runs an attack, again if the machine was too busy to tell, and checks that nobody had to wait for it. It resolves
   * with what it did, in words, once its effects are over. Logs that with the measurements, and most memory it took.
   */
  async under(id: string, attack: () => Promise<string>): Promise<{ growth: number }> {
    const t = this.#t
    let best: { excess: number; allowed: number; text: string; growth: number } | undefined
    for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
      const control = await this.#control()
      await this.#subject.ask('peak')
      const before = await this.#processors()
      const said = await attack()
      const worst = await this.#worst()
      const after = await this.#processors()
      const foreign = 1 - (after.own - before.own + after.idle - before.idle) / (after.all - before.all)
      const allowed = foreign > BUSY ? ALLOWED_IF_BUSY : ALLOWED
      const growth = (await this.#subject.ask('peak')) - this.start
      const excess = Math.max(
        worst.inside - control.inside,
        worst.outside - control.outside,
        worst.loop - control.loop,
      )
      const text =
        `${id}: ${said}; memory at most +${(growth / MIB).toFixed(1)} MiB; worst round trip inside ` +
        `${pair(worst.inside, control.inside)}, outside ${pair(worst.outside, control.outside)}, ` +
        `event loop late by ${pair(worst.loop, control.loop)}${worst.lost > 0 ? `; ${worst.lost} messages lost` : ''}` +
        (foreign > BUSY ? `; ${(100 * foreign).toFixed(0)} % of the processors had other work` : '')
      if (best === undefined || excess - allowed < best.excess - best.allowed) {
        best = { excess, allowed, text, growth }
      }
      if (excess <= allowed) break
      t.log(`${text} (attempt ${attempt + 1})`)
    }
    const { excess, allowed, text, growth } = best as NonNullable<typeof best>
    t.log(text)
    t.true(excess <= allowed, `${id}: innocents waited ${excess.toFixed(1)} ms longer than without: ${text}`)
    return { growth }
  }

  /** As it is without an attack; a message that the last one lost may still be waited for, for a second. */
  async #control(): Promise<Measured> {
    let control: Measured
    let tries = 0
    do {
      await this.#worst()
      await sleep(CONTROL)
      control = await this.#worst()
      tries += 1
    } while (Math.max(control.inside, control.outside, control.loop) > ALLOWED && tries < CONTROLS)
    return control
  }

  /** A login by somebody else, in a process that does nothing besides. */
  honest(name: string): Promise<number | string> {
    return this.#probe.ask('login', name)
  }

  /**
   * Checks that everything is as before: memory but for `floor`, clients, event loop. Then it ends as asked.
   */
  async over(floor = FLOOR): Promise<void> {
    const t = this.#t
    const most = Math.max(this.start * RETURNED, this.start + floor)
    const deadline = performance.now() + 5_000
    let memory = await this.ask('memory')
    while (memory > most && performance.now() < deadline) {
      await sleep(50)
      memory = await this.ask('memory')
    }
    t.true(memory <= most, `memory stays at ${memory / MIB} MiB, having been ${this.start / MIB} MiB`)
    await this.#worst()
    const served = performance.now() + 5_000
    let trips = 0
    while (trips === 0 && performance.now() < served) {
      await sleep(50)
      trips = (await this.#worst()).trips
    }
    t.true(trips > 0, 'innocent clients are still served')
    await within(Promise.all([this.#probe.quit(t), this.#subject.quit(t)]), 20_000, 'both end')
  }

  /** Waits until no client has a name with this in it; how long that took. */
  async gone(filter: string, ms = 15_000): Promise<number> {
    const start = performance.now()
    while ((await this.ask('clients', filter)).length > 0) {
      if (performance.now() - start > ms) throw new Error(`${filter} is still there after ${ms} ms`)
      await sleep(20)
    }
    return performance.now() - start
  }
}

/** Polling where there is no event, and lengths of control runs. */
export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}

function pair(worst: number, control: number): string {
  return `${worst.toFixed(1)} ms (control ${control.toFixed(1)})`
}

// Those of the tour outside its thread, as it sees them: a worker thread, a process, or the Python client. Each says in
// lines what reached it.

import { type ChildProcess, fork, spawn } from 'node:child_process'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { Worker } from 'node:worker_threads'
import type { Command } from './tour-client'

/** How long anything may take that is on its way, in milliseconds. */
const LONG = 20_000
const CLIENT = join(__dirname, 'tour-client.js')
const PYTHON_CLIENT = join(__dirname, '..', 'crates', 'elbus', 'tests', 'python', 'tour_client.py')

/** The promise, or an error that says what was waited for. */
export async function within<T>(promise: PromiseLike<T>, what: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${LONG / 1000} s in vain: ${what}`)), LONG)
  })
  return await Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

export class Participant {
  readonly name: string
  /** What it is, for the reader. */
  readonly kind: string
  /** What it has said and nobody has expected yet. */
  readonly lines: string[] = []
  readonly #order: (command: Command) => void
  readonly #kill: () => void
  readonly #ended: Promise<number | null>
  #end: string | undefined
  #look: (() => void) | undefined

  private constructor(
    name: string,
    kind: string,
    order: (command: Command) => void,
    kill: () => void,
    ended: Promise<number | null>,
  ) {
    this.name = name
    this.kind = kind
    this.#order = order
    this.#kill = kill
    this.#ended = ended
    ended.then(
      (status) => this.#over(`it ended with status ${status}`),
      (error: unknown) => this.#over(String(error)),
    )
  }

  /** A worker thread of this process. */
  static thread(address: string, name: string, mask: string): Participant {
    const worker = new Worker(CLIENT, { workerData: [address, name, mask] })
    const ended = new Promise<number>((resolve, reject) => worker.on('exit', resolve).on('error', reject))
    const order = (command: Command): void => worker.postMessage(command)
    const thread = new Participant(name, 'a worker thread', order, () => void worker.terminate(), ended)
    worker.on('message', (line: string) => thread.#take(line))
    return thread
  }

  /** Another Node process. */
  static process(address: string, name: string, mask: string): Participant {
    // In a group of its own, so that Ctrl-C reaches the tour alone.
    const child = fork(CLIENT, [address, name, mask], { detached: true })
    const order = (command: Command): void => void child.send(command)
    const kind = `process ${child.pid}`
    const process = new Participant(name, kind, order, () => child.kill(), closing(child))
    child.on('message', (line: string) => process.#take(line))
    return process
  }

  /** The published Python client: it subscribes, publishes and calls on its own, then stays until it is ended. */
  static python(
    interpreter: string,
    address: string,
    name: string,
    target: string,
    options: string[],
  ): Participant {
    // Unbuffered, and no compiled files beside the sources.
    const args = ['-u', '-B', PYTHON_CLIENT, address, name, target, ...options]
    const child = spawn(interpreter, args, { detached: true, stdio: ['ignore', 'pipe', 'inherit'] })
    const ended = closing(child)
    const python = new Participant(
      name,
      'Python',
      () => child.kill(),
      () => child.kill(),
      ended,
    )
    createInterface({ input: child.stdout }).on('line', (line) => python.#take(line))
    return python
  }

  #take(line: string): void {
    this.lines.push(line)
    this.#look?.()
  }

  #over(end: string): void {
    this.#end = end
    this.#look?.()
  }

  /** Waits until it has said a line. */
  async expect(line: string): Promise<void> {
    const said = new Promise<void>((resolve, reject) => {
      this.#look = () => {
        const index = this.lines.indexOf(line)
        if (index >= 0) {
          this.lines.splice(index, 1)
          resolve()
        } else if (this.#end !== undefined)
          reject(new Error(`${this.name} did not say "${line}": ${this.#end}`))
      }
      this.#look()
    })
    await within(said, `${this.name} is to say "${line}"; it said ${JSON.stringify(this.lines)}`)
  }

  /** Tells it to do something. Of threads and processes of ours. */
  order(...command: Command): void {
    this.#order(command)
  }

  /** Lets it go. It has to end well, and to have said nothing that nobody expected. */
  async leave(): Promise<void> {
    if (this.lines.length > 0) throw new Error(`${this.name} said ${JSON.stringify(this.lines)} besides`)
    this.#order(['leave'])
    const status = await within(this.#ended, `the end of ${this.name}`)
    // No status: it was killed, as is the way with Python.
    if (status !== 0 && status !== null) throw new Error(`${this.name} ended with status ${status}`)
  }

  /** Ends it whatever it is doing. */
  kill(): void {
    if (this.#end === undefined) this.#kill()
  }
}

/** Resolves with the status once nothing comes any more. */
function closing(child: ChildProcess): Promise<number | null> {
  return new Promise((resolve, reject) => child.on('close', resolve).on('error', reject))
}

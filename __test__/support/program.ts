// Other programs: found by a variable of the environment, started, read line by line, gone when their test is over.

import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process'
import net from 'node:net'
import type { ExecutionContext } from 'ava'
import { socketPath } from './temp'
import { soon, until, within } from './within'

/** How long a program may take for anything it is expected to do, in milliseconds. */
const PATIENCE = 30_000

/** The program a variable names, or why there is none: for `testIf`. */
export function programOf(variable: string): { path: string; reason: string | undefined } {
  const path = process.env[variable] ?? ''
  return { path, reason: path === '' ? `${variable} names no program` : undefined }
}

/** A running program. Both its outputs are one sequence of lines. */
export class Program {
  readonly #child: ChildProcessWithoutNullStreams
  readonly #command: string
  readonly #lines: string[] = []
  readonly #ended: Promise<number | null>
  #read = 0
  #rest = { stdout: '', stderr: '' }
  #hasEnded = false
  #waiting: (() => void)[] = []

  constructor(t: Pick<ExecutionContext, 'teardown'>, command: string, args: readonly string[]) {
    this.#command = [command, ...args].join(' ')
    this.#child = spawn(command, args)
    for (const name of ['stdout', 'stderr'] as const) {
      this.#child[name].setEncoding('utf8').on('data', (piece: string) => this.#take(name, piece))
    }
    // A program that has ended takes no input.
    this.#child.stdin.on('error', () => undefined)
    this.#ended = new Promise((resolve, reject) => {
      this.#child.on('error', reject)
      this.#child.on('close', (status) => {
        this.#hasEnded = true
        for (const name of ['stdout', 'stderr'] as const) if (this.#rest[name] !== '') this.#take(name, '\n')
        this.#wake()
        resolve(status)
      })
    })
    this.#ended.catch(() => undefined)
    t.teardown(async () => {
      this.#child.kill('SIGKILL')
      await soon(
        this.#ended.catch(() => undefined),
        `the end of ${this.#command}`,
      )
    })
  }

  #take(name: 'stdout' | 'stderr', piece: string): void {
    const lines = (this.#rest[name] + piece).split('\n')
    this.#rest[name] = lines.pop() ?? ''
    this.#lines.push(...lines)
    this.#wake()
  }

  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve()
  }

  /** Everything it printed. */
  get output(): string {
    return this.#lines.join('\n')
  }

  get hasEnded(): boolean {
    return this.#hasEnded
  }

  /** Writes a line to its input. */
  say(line: string): void {
    this.#child.stdin.write(`${line}\n`)
  }

  /** Its next line, at most once each; undefined at the end of its output. */
  line(): Promise<string | undefined> {
    return within(this.#line(), PATIENCE, `a line of ${this.#command}, which printed:\n${this.output}`)
  }

  async #line(): Promise<string | undefined> {
    while (this.#read === this.#lines.length) {
      if (this.#hasEnded) return undefined
      await new Promise<void>((resolve) => this.#waiting.push(resolve))
    }
    this.#read += 1
    return this.#lines[this.#read - 1]
  }

  /** Waits for lines that hold these texts, in this order. */
  async expect(...texts: readonly string[]): Promise<void> {
    for (const wanted of texts) {
      for (;;) {
        const line = await this.line()
        if (line === undefined) throw new Error(`${this.#command} ended without ${wanted}:\n${this.output}`)
        if (line.includes(wanted)) break
      }
    }
  }

  /** Waits for its end; status and all output. */
  async finish(): Promise<{ status: number | null; output: string }> {
    this.#child.stdin.end()
    const status = await within(this.#ended, PATIENCE, `the end of ${this.#command}`)
    return { status, output: this.output }
  }
}

/** Starts a server of the reference's command line on a UNIX socket, and waits until it accepts. Its address. */
export async function startServer(t: ExecutionContext, program: string, ...args: string[]): Promise<string> {
  const path = socketPath(t)
  const server = new Program(t, program, ['-B', path, ...args])
  let accepts = false
  const knock = (): void => {
    const socket = net.connect(path)
    socket.on('connect', () => {
      accepts = true
      socket.destroy()
    })
    socket.on('error', () => setTimeout(knock, 10))
  }
  knock()
  await until(() => accepts || server.hasEnded, `${program} accepts connections`)
  if (!accepts) throw new Error(`${program} ended:\n${server.output}`)
  return `unix:${path}`
}

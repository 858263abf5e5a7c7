// Running a program of `support/` in a process of its own, with a bound on its time.

import { spawn } from 'node:child_process'
import { join } from 'node:path'
import type { ExecutionContext } from 'ava'

/** How a program ended. */
export interface Ending {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
}

/** A program that runs. */
export interface Running {
  readonly ended: Promise<Ending>
  /** Resolves once it has written a line; rejects if it ends before. */
  line(text: string): Promise<void>
  /** Writes to its standard input. */
  tell(text: string): void
  kill(signal?: NodeJS.Signals): void
}

/** Options of {@link start}. */
export interface ProgramOptions {
  /** Options of Node. */
  readonly node?: readonly string[]
  /** Longest time it may run, in milliseconds. */
  readonly most?: number
}

/** Starts `support/<program>.js` with arguments; it is gone when the test is over. */
export function start(
  t: Pick<ExecutionContext, 'teardown'>,
  program: string,
  args: readonly string[],
  { node = [], most = 60_000 }: ProgramOptions = {},
): Running {
  const child = spawn(process.execPath, [...node, join(__dirname, `${program}.js`), ...args], {
    stdio: ['pipe', 'pipe', 'pipe'],
  })
  let stdout = ''
  let stderr = ''
  let isOver = false
  let look = (): void => undefined
  child.stdout.on('data', (chunk: Buffer) => {
    stdout += chunk.toString()
    look()
  })
  child.stderr.on('data', (chunk: Buffer) => {
    stderr += chunk.toString()
  })
  // Its end may come before what it is told.
  child.stdin.on('error', () => undefined)
  const timer = setTimeout(() => child.kill('SIGKILL'), most)
  const ended = new Promise<Ending>((resolve) => {
    child.on('close', (code, signal) => {
      isOver = true
      clearTimeout(timer)
      look()
      resolve({ code, signal, stdout, stderr })
    })
  })
  t.teardown(async () => {
    child.kill('SIGKILL')
    await ended
  })
  return {
    ended,
    line: (text) =>
      new Promise((resolve, reject) => {
        look = () => {
          if (stdout.split('\n').includes(text)) resolve()
          else if (isOver) reject(new Error(`${program} ended before it wrote ${text}: ${stdout}${stderr}`))
        }
        look()
      }),
    tell: (text) => void child.stdin.write(text),
    kill: (signal = 'SIGKILL') => void child.kill(signal),
  }
}

// Scripts run as users run them: started with Node, read by lines, stopped by signals.

import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Owner } from './temp'
import { soon } from './within'

/** The folder of this repository; specs are compiled to one folder below it. */
export const root = join(__dirname, '..', '..')

/** How a script ended, with everything it said. */
export interface End {
  readonly status: number | null
  readonly signal: NodeJS.Signals | null
  /** Lines of standard output. */
  readonly lines: readonly string[]
  /** Standard error. */
  readonly errors: string
}

/** A running script. */
export class Script {
  readonly #child: ChildProcessWithoutNullStreams
  readonly #lines: string[] = []
  readonly #end: Promise<End>
  #errors = ''
  #looked = 0
  #isOver = false
  #look: (() => void) | undefined

  private constructor(child: ChildProcessWithoutNullStreams) {
    this.#child = child
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#errors += text
    })
    createInterface({ input: child.stdout }).on('line', (line) => {
      this.#lines.push(line)
      this.#look?.()
    })
    this.#end = new Promise((resolve, reject) => {
      child.on('error', reject)
      child.on('close', (status, signal) => {
        this.#isOver = true
        resolve({ status, signal, lines: this.#lines, errors: this.#errors })
        this.#look?.()
      })
    })
    // An input that nobody reads any more.
    child.stdin.on('error', () => undefined)
  }

  /**
   * Starts a script with Node; it is killed when the test is over, whatever becomes of it. `prefix` is a command that
   * becomes the program it is given, such as `ip netns exec`.
   */
  static start(
    t: Owner,
    file: string,
    args: readonly string[] = [],
    env: Record<string, string> = {},
    prefix: readonly string[] = [],
  ): Script {
    const [program, ...rest] = [...prefix, process.execPath, file, ...args] as [string, ...string[]]
    const child = spawn(program, rest, { cwd: root, env: { ...process.env, ...env } })
    t.teardown(() => void child.kill('SIGKILL'))
    return new Script(child)
  }

  /** Waits for a line, further down than the last one asked for. A text has to be the whole line. */
  async line(wanted: string | RegExp): Promise<string> {
    const said = new Promise<string>((resolve, reject) => {
      this.#look = () => {
        while (this.#looked < this.#lines.length) {
          const line = this.#lines[this.#looked] as string
          this.#looked += 1
          if (typeof wanted !== 'string' ? wanted.test(line) : line === wanted) {
            // A line that comes with this one is for who asks next.
            this.#look = undefined
            return resolve(line)
          }
        }
        if (this.#isOver) reject(new Error('it has ended'))
      }
      this.#look()
    })
    try {
      return await soon(said, `the script is to say ${wanted}`)
    } catch (error) {
      const all = `${this.#lines.join('\n')}\n${this.#errors}`
      throw new Error(`the script did not say ${wanted}; it said\n${all}`, { cause: error })
    } finally {
      this.#look = undefined
    }
  }

  /** Writes a line to its input. */
  write(line: string): void {
    this.#child.stdin.write(`${line}\n`)
  }

  /** Ends its input. */
  endInput(): void {
    this.#child.stdin.end()
  }

  /** Sends it a signal. */
  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal)
  }

  /** Waits for its end. */
  end(): Promise<End> {
    return soon(this.#end, 'the end of the script')
  }
}

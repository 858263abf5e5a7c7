// Clients of the reference project's Python packages, led by lines of JSON; see ../python/peer.py.

import path from 'node:path'
import type { ExecutionContext } from 'ava'
import { Program, programOf } from './program'

/** The interpreter, or why there is none. */
export const python = programOf('ELBUS_PYTHON')

/** The packages; `elbus-async` does not work on any Python that is still maintained. */
export const PACKAGES = ['busrt', 'busrt_async', 'elbus'] as const
export type Package = (typeof PACKAGES)[number]

const script = path.join(__dirname, '..', '..', '__test__', 'python', 'peer.py')

/** What a client received. */
export interface Received {
  readonly frame?: number
  readonly call?: string
  readonly notification?: string
  readonly sender: string
  readonly topic?: string | null
  readonly payload?: string
  readonly params?: string
  readonly id?: number
}

/** What came of a command. */
export interface Outcome {
  readonly did: string
  readonly code?: number
  readonly result?: string
  readonly error?: number
  readonly data?: string
}

/** One client in a process of its own. */
export class PythonPeer {
  readonly program: Program
  readonly #received: Received[] = []
  readonly #outcomes: Outcome[] = []

  /** Connects to a UNIX socket, `unix:/path`. The packages know clients for RPC and others. */
  static async start(
    t: ExecutionContext,
    name: Package,
    address: string,
    client: string,
    mode: 'messages' | 'rpc',
  ): Promise<PythonPeer> {
    const socket = address.replace(/^unix:/, '')
    const peer = new PythonPeer(new Program(t, python.path, ['-B', script, name, socket, client, mode]))
    await peer.#outcome()
    return peer
  }

  private constructor(program: Program) {
    this.program = program
  }

  /** Carries out a command. */
  command(command: object): Promise<Outcome> {
    this.program.say(JSON.stringify(command))
    return this.#outcome()
  }

  /** A message, broadcast or publication, by its operation. */
  async send(kind: number, target: string, payload: string, more: object = {}): Promise<number | undefined> {
    return (await this.command({ do: 'send', kind, target, payload: hex(payload), ...more })).code
  }

  async #outcome(): Promise<Outcome> {
    while (this.#outcomes.length === 0) await this.#read()
    return this.#outcomes.shift() as Outcome
  }

  /** The next thing it received. */
  async received(): Promise<Received> {
    while (this.#received.length === 0) await this.#read()
    return this.#received.shift() as Received
  }

  async #read(): Promise<void> {
    const line = await this.program.line()
    if (line === undefined) throw new Error(`the Python client ended:\n${this.program.output}`)
    // Other lines are what the packages log.
    if (!line.startsWith('{')) return
    const said = JSON.parse(line) as Outcome | Received
    if ('did' in said) this.#outcomes.push(said)
    else this.#received.push(said)
  }
}

/** The bytes of a text as hexadecimal digits. */
export function hex(text: string): string {
  return Buffer.from(text).toString('hex')
}

// Required before electron-app.ts by electron.spec.ts, to run that application where there is no Electron: its scripts
// start, talk and end, with a process for the utility process and a thread for each load of the page. It says nothing
// about Electron.

import { type ChildProcess, fork } from 'node:child_process'
import Module from 'node:module'
import { Worker } from 'node:worker_threads'

class Page {
  readonly #preload: string
  readonly #argv: string[]
  #thread: Worker | undefined
  readonly webContents = { reload: (): void => void this.#load() }

  constructor(options: { webPreferences: { preload: string; additionalArguments: string[] } }) {
    this.#preload = options.webPreferences.preload
    this.#argv = options.webPreferences.additionalArguments
  }

  async #load(): Promise<void> {
    await this.#thread?.terminate()
    this.#thread = new Worker(this.#preload, { argv: this.#argv })
  }

  loadURL(): Promise<void> {
    return this.#load()
  }

  destroy(): void {
    void this.#thread?.terminate()
  }
}

const standIn = {
  app: {
    whenReady: async () => undefined,
    exit: (code: number) => process.exit(code),
    on: () => undefined,
  },
  utilityProcess: { fork: (file: string, args: string[]): ChildProcess => fork(file, args) },
  BrowserWindow: Page,
}

interface Loader {
  _load(request: string, ...rest: unknown[]): unknown
}
const loader = Module as unknown as Loader
const { _load } = loader
loader._load = function (request, ...rest) {
  return request === 'electron' ? standIn : _load.call(this, request, ...rest)
}

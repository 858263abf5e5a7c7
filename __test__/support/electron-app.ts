// The main script of the application that electron.spec.ts starts: a broker in the main process, clients in the main
// process, in a utility process and in a page that is loaded twice. Writes what it saw to ELBUS_RESULT.

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Broker, connect } from 'elbus-node'
import { broad } from './broad'
import { soon } from './within'

/** What is used of Electron, as its documentation describes it; it is no dependency of this project. */
interface Electron {
  readonly app: {
    whenReady(): Promise<void>
    exit(code: number): void
    on(event: 'window-all-closed', listener: () => void): void
  }
  readonly utilityProcess: {
    /** Only after the application is ready. */
    fork(file: string, args: readonly string[]): { kill(): boolean; once(event: 'exit', f: () => void): void }
  }
  readonly BrowserWindow: new (options: {
    show: boolean
    webPreferences: {
      preload: string
      sandbox: boolean
      contextIsolation: boolean
      additionalArguments: readonly string[]
    }
  }) => { loadURL(url: string): Promise<void>; webContents: { reload(): void }; destroy(): void }
}

const { app, utilityProcess, BrowserWindow } = require('electron') as Electron
const PEER = join(__dirname, 'electron-peer.js')

/** What a peer says of itself. */
interface Hello {
  readonly type: string
  readonly bytes: number
}

async function main(socket: string): Promise<unknown> {
  await app.whenReady()
  // Without a listener Electron ends when the window is gone.
  app.on('window-all-closed', () => undefined)
  const pass = await broad(`${socket}.broad`)

  const broker = await Broker.start({ listen: [`unix:${socket}`] })
  const inside = await broker.client('main')
  const outside = await connect(socket, { name: 'socket' })
  const hellos: string[] = []
  let look = (): void => undefined
  inside.serve({
    bytes: (size: number) => new Uint8Array(size).fill(7),
    hello: ({ type, bytes }: Hello) => {
      hellos.push(`${type} ${bytes}`)
      look()
    },
  })
  const heard = (count: number): Promise<void> => {
    const all = new Promise<void>((resolve) => {
      look = () => {
        if (hellos.length >= count) resolve()
      }
      look()
    })
    return soon(all, `${count} peers have called, ${hellos}`)
  }
  const gone = (name: string): Promise<void> =>
    new Promise((resolve) => {
      broker.on('client', ({ type, client }) => {
        if (type === 'unreg' && client === name) resolve()
      })
    })

  const utility = utilityProcess.fork(PEER, ['--elbus-name=utility', `--elbus-socket=${socket}`])
  await heard(1)
  const answer = await outside.call('utility', 'echo', 'from a socket of the main process')
  const utilityGone = gone('utility')
  utility.kill()
  await soon(utilityGone, 'the utility process is gone')

  const page = new BrowserWindow({
    show: false,
    webPreferences: {
      preload: PEER,
      sandbox: false,
      contextIsolation: true,
      additionalArguments: ['--elbus-name=page', `--elbus-socket=${socket}`],
    },
  })
  await page.loadURL('about:blank')
  await heard(2)
  // The environment of the page ends with a connection open, and another begins in the same process.
  const pageGone = gone('page')
  page.webContents.reload()
  await soon(pageGone, 'the page is gone')
  await heard(3)
  const fromPage = await inside.call('page', 'echo', 'from the main process')
  page.destroy()
  await outside.close()
  await broker.close({ drain: 0 })
  return { pass, hellos, answers: [answer, fromPage] }
}

main(process.env.ELBUS_SOCKET as string).then(
  (result) => {
    writeFileSync(process.env.ELBUS_RESULT as string, JSON.stringify(result))
    app.exit(0)
  },
  (error: unknown) => {
    console.error(error)
    app.exit(1)
  },
)

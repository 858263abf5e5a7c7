// Electron itself, where there is one: named by ELECTRON_PATH, or brought by the npm package `electron`. What can be
// said of it without is in `addon.spec.ts`.

import { execFile } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import test, { type ExecutionContext } from 'ava'
import { BROAD } from './support/broad'
import { THREAD_OPTIONS } from './support/node-20'
import { testIf } from './support/skip'
import { socketPath, tempFolder } from './support/temp'

const run = promisify(execFile)
const support = (name: string): string => join(__dirname, 'support', `${name}.js`)

/** The program, or why there is none. The package is not imported: that would have it download one. */
function findElectron(): { path: string; reason?: string } {
  const named = process.env.ELECTRON_PATH
  if (named) return existsSync(named) ? { path: named } : { path: '', reason: `there is no ${named}` }
  try {
    const folder = dirname(require.resolve('electron/package.json'))
    const path = join(folder, 'dist', readFileSync(join(folder, 'path.txt'), 'utf8'))
    if (existsSync(path)) return { path }
  } catch {
    // It is not installed, or without its program.
  }
  return { path: '', reason: 'ELECTRON_PATH is not set' }
}

const { path: electron, reason } = findElectron()
if (reason !== undefined && process.env.ELBUS_REQUIRE?.includes('electron')) throw new Error(reason)

/** Electron ends at once without a display; see its page on testing with a virtual one. */
const noDisplay =
  process.platform === 'linux' && !process.env.DISPLAY && !process.env.WAYLAND_DISPLAY
    ? 'Electron needs a display: run the tests by xvfb-run'
    : undefined

/** What each peer receives. */
const BYTES = 100 + (64 << 10) + (1 << 20)

const EXPECTED = {
  pass: BROAD,
  hellos: [`utility ${BYTES}`, `page ${BYTES}`, `page ${BYTES}`],
  answers: ['from a socket of the main process', 'from the main process'],
}

/** Runs the application; what it wrote. */
async function runApp(t: ExecutionContext, program: string, options: readonly string[]): Promise<unknown> {
  t.timeout(120_000)
  const result = join(tempFolder(t), 'result.json')
  const env = { ...process.env, ELBUS_SOCKET: socketPath(t), ELBUS_RESULT: result }
  await run(program, [...options, support('electron-app')], { env, timeout: 110_000 })
  return JSON.parse(readFileSync(result, 'utf8'))
}

test.serial('the application of this test runs, on a stand-in that is not Electron', async (t) => {
  const options = [...THREAD_OPTIONS, '--require', support('electron-stand-in')]
  t.deepEqual(await runApp(t, process.execPath, options), EXPECTED)
})

testIf(reason, { serial: true })('Electron as Node: everything goes through', async (t) => {
  const env = { ...process.env, ELECTRON_RUN_AS_NODE: '1' }
  const { stdout } = await run(electron, [support('addon-program'), 'broad', socketPath(t)], { env })
  t.like(JSON.parse(stdout), { pass: BROAD })
  t.regex((await run(electron, ['-p', 'process.versions.electron'], { env })).stdout, /^\d+\./)
})

testIf(reason ?? noDisplay, { serial: true })(
  'Electron: the main process, a utility process, and a page that is reloaded',
  async (t) => {
    // The sandbox of Chromium needs a program with rights of root that a machine for tests may lack.
    t.deepEqual(await runApp(t, electron, ['--no-sandbox', '--disable-gpu']), EXPECTED)
  },
)

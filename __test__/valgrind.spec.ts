// The addon's raw entry points under valgrind: no read or write outside what they were given.
import { execFile, spawnSync } from 'node:child_process'
import path from 'node:path'
import { promisify } from 'node:util'
import { testIf } from './support/skip'
import { socketPath } from './support/temp'

const run = promisify(execFile)
const hasValgrind = spawnSync('valgrind', ['--version']).status === 0

testIf(hasValgrind ? undefined : 'valgrind is not installed')(
  'C48: memory is used as it was given',
  async (t) => {
    t.timeout(180_000)
    const valgrind = [
      '--smc-check=all-non-file',
      '--error-exitcode=99',
      '--leak-check=no',
      '--fair-sched=yes',
      '-q',
    ]
    // Code that V8 makes at run time is slow to follow, and not what is looked at.
    const program = [
      process.execPath,
      '--jitless',
      path.join(__dirname, 'support', 'valgrind-program.js'),
      socketPath(t),
    ]
    const { stdout } = await run('valgrind', [...valgrind, ...program])
    // Ten payloads each way.
    t.is(
      stdout.trim(),
      `done ${2 * (0 + 1 + 24 + 25 + 8_191 + 8_192 + 8_193 + 70_000 + 300_000 + 1_000_000)}`,
    )
  },
)

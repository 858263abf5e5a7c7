// `node .ci/cross/security.mjs ELBUSD [PROGRAM…]`: case C52 of the fault catalogue. The hardening tests of this machine,
// crates/elbus/tests/hardening, in their short form against a server built for another C library or another processor.
// Ends with `N passed, N failed`.
//
//   --emulator QEMU   runs the server, as in --emulator qemu-aarch64-static
//   --slowness N      times how many bounds on time are multiplied; 10 with an emulator, 1 without
//   --only A,B        cases, as c07
//   PROGRAM           test programs for the same target, run there too: cases without a server of their own, which are
//                     C04, C10 and C11 in those of elbus-protocol and elbus-routing
import { spawn } from 'node:child_process'
import { accessSync, constants, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import process from 'node:process'
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import { cargoCounter, Tally } from '../counters.mjs'
import { fail, root } from '../prerequisites.mjs'

const CASES = Array.from({ length: 20 }, (_, index) => `c${String(index + 1).padStart(2, '0')}`)
/** Cases about functions: no test starts a server for them. */
const WITHOUT_SERVER = ['c04', 'c10', 'c11']
const EMULATED_SLOWNESS = 10

function options() {
  try {
    const { values, positionals } = parseArgs({
      allowPositionals: true,
      options: { emulator: { type: 'string' }, slowness: { type: 'string' }, only: { type: 'string' } },
    })
    const [server, ...programs] = positionals.map((file) => path.resolve(file))
    if (server === undefined)
      throw new Error('usage: node .ci/cross/security.mjs ELBUSD [PROGRAM…] [--emulator QEMU]')
    const cases = values.only?.split(',') ?? CASES
    const unknown = cases.filter((id) => !CASES.includes(id))
    if (unknown.length > 0) throw new Error(`no case ${unknown.join(', ')}: there are c01 to c20`)
    for (const file of [server, ...programs]) accessSync(file, constants.X_OK)
    const slowness = values.slowness ?? (values.emulator ? `${EMULATED_SLOWNESS}` : '1')
    return { server, programs, cases, slowness, emulator: values.emulator }
  } catch (error) {
    return fail(error.message)
  }
}

const { server, programs, cases, slowness, emulator } = options()
const begin = Date.now()
const tally = new Tally()
const ran = new Set()

/** Runs test programs and counts; notes of which cases there were any. */
async function count(command, args, env = {}) {
  const { take } = cargoCounter(tally)
  const before = tally.failed
  const child = spawn('sh', ['-c', 'exec "$0" "$@" 2>&1', command, ...args], {
    cwd: root,
    env: { ...process.env, CARGO_TERM_COLOR: 'never', ...env },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const ended = new Promise((resolve) => child.on('exit', resolve))
  for await (const line of createInterface({ input: child.stdout })) {
    const id = line.match(/^test (?:\w+::)*(c\d\d)_\w+ \.\.\. (?:ok|FAILED)$/)?.[1]
    if (id) ran.add(id)
    if (take(line)) console.log(line)
  }
  // A compiler or a program that failed without a test that says so.
  if ((await ended) !== 0 && tally.failed === before) tally.failed += 1
}

/** A program that becomes the server: signals and /proc/PID are those of the one that was started. */
function started(folder) {
  if (emulator === undefined) return server
  const file = path.join(folder, 'elbusd')
  const quoted = [emulator, server].map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(' ')
  // The first is what the server sets itself by starting itself anew, which the kernel refuses it here. With the second
  // the emulator keeps all it allocates in its heap, where the tests tell it from what is the server's.
  const settings = 'export MIMALLOC_ARENA_MAX_OBJECT_SIZE=2048 MALLOC_ARENA_MAX=1'
  writeFileSync(file, `#!/bin/sh\n${settings}\nexec ${quoted} "$@"\n`, { mode: 0o755 })
  return file
}

const folder = mkdtempSync(path.join(tmpdir(), 'elbus-security-'))
try {
  const env = { ELBUSD_UNDER_TEST: started(folder), ELBUS_SLOWNESS: slowness }
  const filters = cases.map((id) => `${id}_`)
  const hardening = ['test', '--workspace', '--all-features', '--locked', '--test', 'hardening']
  await count('cargo', [...hardening, '--', '--show-output', ...filters], env)
  for (const program of programs) {
    console.log(`     Running ${path.basename(program)}`)
    await count(emulator ?? program, [...(emulator ? [program] : []), '--show-output'], env)
  }
} finally {
  rmSync(folder, { recursive: true, force: true })
}
for (const id of cases.filter((one) => !ran.has(one))) {
  if (WITHOUT_SERVER.includes(id) && programs.length === 0) {
    tally.skip(`${id.toUpperCase()} is tried without a server, and no test programs were named`)
    continue
  }
  console.log(`FAILED ${id.toUpperCase()}: no test of it ran`)
  tally.failed += 1
}
console.log(
  `=== C52 with ${path.basename(path.dirname(server))}/elbusd: ${Math.round((Date.now() - begin) / 1000)} s`,
)
for (const line of tally.lines()) console.log(line)
process.exitCode = tally.failed === 0 ? 0 : 1

// `npm run test:cross`, that is `node .ci/cross/security.mjs [ELBUSD [PROGRAM…]]`: case C52 of the fault catalogue. The
// hardening tests of this machine, crates/elbus/tests/hardening, in their short form against a server built for another
// C library or another processor: the one named, or each that `npm run build:cross` has left. Ends with
// `N passed, N failed`.
//
//   --emulator QEMU   runs the server, as in --emulator qemu-aarch64-static
//   --slowness N      times how many bounds on time are multiplied; 10 with an emulator, 1 without
//   --only A,B        cases, as c07
//   PROGRAM           test programs for the same target, run there too: cases without a server of their own, which are
//                     C04, C10 and C11 in those of elbus-protocol and elbus-routing
import { spawn } from 'node:child_process'
import { accessSync, constants, existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import process from 'node:process'
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import { cargoCounter, Tally } from '../counters.mjs'
import { fail, root } from '../prerequisites.mjs'
import { artefacts, toolchain } from './environment.mjs'
import { TARGETS } from './targets.mjs'

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
    const cases = values.only?.split(',') ?? CASES
    if (server === undefined && values.emulator) throw new Error('--emulator is for a server that is named')
    if (values.slowness !== undefined && !/^[1-9]\d*$/.test(values.slowness))
      throw new Error(`--slowness is a whole number, not ${values.slowness}`)
    const unknown = cases.filter((id) => !CASES.includes(id))
    if (unknown.length > 0) throw new Error(`no case ${unknown.join(', ')}: there are c01 to c20`)
    const servers = server === undefined ? built() : [{ server, programs, emulator: values.emulator }]
    if (servers.length === 0) throw new Error('no server is named and none is built: npm run build:cross')
    for (const each of servers)
      for (const file of [each.server, ...each.programs]) accessSync(file, constants.X_OK)
    return { servers, cases, slowness: values.slowness }
  } catch (error) {
    return fail(error.message)
  }
}

/** What `npm run build:cross` has left. */
function built() {
  return TARGETS.filter((target) => target.server)
    .map(({ folder, emulator }) => ({
      server: path.join(artefacts, folder, 'elbusd'),
      programs: [],
      emulator: emulator && path.join(toolchain, 'emulators', 'bin', emulator),
    }))
    .filter(({ server }) => existsSync(server))
}

const { servers, cases, slowness } = options()
const tally = new Tally()

/** Runs test programs and counts; notes of which cases there were any. */
async function count(ran, command, args, env = {}) {
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
  if ((await ended) !== 0 && tally.failed === before) {
    tally.failed += 1
    tally.name(`${path.basename(command)} ${args.slice(0, 2).join(' ')}`)
  }
}

/** A program that becomes the server: signals and /proc/PID are those of the one that was started. */
function started(folder, { server, emulator }) {
  if (emulator === undefined) return server
  const file = path.join(folder, 'elbusd')
  const quoted = [emulator, server].map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(' ')
  // The first is what the server sets itself by starting itself anew, which the kernel refuses it here. With the second
  // the emulator keeps all it allocates in its heap, where the tests tell it from what is the server's.
  const settings = 'export MIMALLOC_ARENA_MAX_OBJECT_SIZE=2048 MALLOC_ARENA_MAX=1'
  writeFileSync(file, `#!/bin/sh\n${settings}\nexec ${quoted} "$@"\n`, { mode: 0o755 })
  return file
}

/** All cases against one server. */
async function tryServer({ server, programs, emulator }) {
  const begin = Date.now()
  const ran = new Set()
  const folder = mkdtempSync(path.join(tmpdir(), 'elbus-security-'))
  try {
    const env = {
      ELBUSD_UNDER_TEST: started(folder, { server, emulator }),
      ELBUS_SLOWNESS: slowness ?? (emulator ? `${EMULATED_SLOWNESS}` : '1'),
    }
    const filters = cases.map((id) => `${id}_`)
    const hardening = ['test', '--workspace', '--all-features', '--locked', '--test', 'hardening']
    await count(ran, 'cargo', [...hardening, '--', '--show-output', ...filters], env)
    for (const program of programs) {
      console.log(`     Running ${path.basename(program)}`)
      await count(ran, emulator ?? program, [...(emulator ? [program] : []), '--show-output'], env)
    }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
  for (const id of cases.filter((one) => !ran.has(one))) {
    if (WITHOUT_SERVER.includes(id) && programs.length === 0) {
      tally.skip(`${id.toUpperCase()} is tried without a server, and no test programs were named`)
      continue
    }
    tally.failed += 1
    tally.name(`${id.toUpperCase()}: no test of it ran`)
  }
  const name = path.relative(process.cwd(), server)
  console.log(`=== C52 with ${name}: ${Math.round((Date.now() - begin) / 1000)} s`)
}

for (const each of servers) await tryServer(each)
for (const line of tally.lines()) console.log(line)
process.exitCode = tally.failed === 0 ? 0 : 1

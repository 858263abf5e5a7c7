// `node benchmark/allocators.mjs`: elbusd with mimalloc, as it is shipped, beside elbusd with the allocator of its C
// library, on glibc and on musl: CPU and memory under the loads of crates/loadtest, in turns.
//
//   LIBC/ALLOCATOR=FILE   programs to measure; without any the two for glibc are built
//   --musl                builds static ones for musl too, as npm run build:cross does, on x64 Debian
//   --rounds N            times each is measured (5)
//   --duration S          seconds of a measured phase (1)
//   --loads A,B           only loads whose names contain one of these
//   --json FILE           all samples
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import net from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import process from 'node:process'
import { setTimeout as delay } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { buildServer } from '../.ci/cross/build.mjs'
import { must, toolchain } from '../.ci/cross/environment.mjs'
import { TARGETS } from '../.ci/cross/targets.mjs'
import { fail, root, target } from '../.ci/prerequisites.mjs'
import { summary } from './statistics.mjs'
import { run } from './wire.mjs'

/** As all brokers of the wire part are started. */
const OPTIONS = ['-w', '2', '-t', '5', '--queue-size', '8192']
/** How long after a load memory is looked at: clients are gone by then. */
const SETTLE_MS = 300

/** Name → arguments of `elbus-loadtest run`. */
const LOADS = {
  'publish 1→1': ['publish'],
  'publish 1→8': ['publish', '--receivers', '8'],
  'publish 1→1, 1,000 topics': ['publish', '--topics', '1000'],
  'message, acknowledged, 64 in flight': ['acked', '--in-flight', '64'],
  'message 1→1, 64 KiB': ['message', '--payload', '65536'],
  'message 4→4, 64 KiB': ['message', '--payload', '65536', '--senders', '4', '--receivers', '4'],
  '`.broker` calls, 64 in flight': ['broker', '--in-flight', '64'],
  '1,000 idle clients': ['idle'],
}

function options() {
  try {
    const { values, positionals } = parseArgs({
      allowPositionals: true,
      options: {
        musl: { type: 'boolean' },
        rounds: { type: 'string', default: '5' },
        duration: { type: 'string', default: '1' },
        loads: { type: 'string', default: '' },
        json: { type: 'string' },
      },
    })
    return { ...values, programs: positionals }
  } catch (error) {
    return fail(error.message)
  }
}

/** Builds elbusd with both allocators for the C library of this machine; label → file. */
function buildHere() {
  const made = {}
  for (const allocator of ['mimalloc', 'system']) {
    const isSystem = allocator === 'system'
    const what = ['--release', '--locked', '-p', 'elbusd', '--features', 'server,rpc', '--bin', 'elbusd']
    // A folder of its own: other flags would have everything built anew each time.
    const folder = isSystem ? path.join(target, 'system-allocator') : target
    const flags = isSystem ? '--cfg elbus_system_allocator' : ''
    run('cargo', ['build', ...what], { ...process.env, CARGO_TARGET_DIR: folder, RUSTFLAGS: flags })
    made[`glibc/${allocator}`] = path.join(folder, 'release', 'elbusd')
  }
  return made
}

/** The same for musl, static, with the compiler of `npm run build:cross`. */
async function buildForMusl() {
  const musl = TARGETS.find(({ folder }) => folder === 'linux-x64-musl')
  try {
    await must('bash', [path.join(root, '.ci', 'cross', 'toolchain.sh'), toolchain])
    return {
      'musl/mimalloc': await buildServer(musl),
      'musl/system': await buildServer(musl, { systemAllocator: true }),
    }
  } catch (error) {
    return fail(error.message)
  }
}

async function contestants({ programs, musl }) {
  const named = Object.fromEntries(
    programs.map(
      (text) => text.match(/^(\w+\/\w+)=(.+)$/)?.slice(1) ?? fail(`${text} is not LIBC/ALLOCATOR=FILE`),
    ),
  )
  return { ...named, ...(programs.length === 0 && buildHere()), ...(musl && (await buildForMusl())) }
}

async function accepts(socket) {
  for (let attempt = 0; attempt < 200; attempt += 1) {
    const connection = net.connect(socket)
    const is = await once(connection, 'connect').then(
      () => true,
      () => false,
    )
    connection.destroy()
    if (is) return true
    await delay(10)
  }
  return false
}

/** Of a process, in KiB. */
function memory(pid, field) {
  return Number(
    readFileSync(`/proc/${pid}/status`, 'latin1').match(new RegExp(`^${field}:\\s+(\\d+)`, 'm'))?.[1],
  )
}

/** One broker under one load; figure → value. */
async function measure(program, load, duration) {
  const folder = mkdtempSync(path.join(tmpdir(), 'elbus-allocators-'))
  const socket = path.join(folder, 'b.sock')
  const broker = spawn(program, ['-B', socket, ...OPTIONS], { stdio: 'ignore' })
  broker.on('error', (error) => fail(`${program}: ${error.message}`))
  try {
    if (!(await accepts(socket))) throw new Error(`${program} accepts no connection`)
    const isIdle = load[0] === 'idle'
    const seconds = isIdle ? [] : ['--duration', duration]
    const args = ['run', ...load, ...seconds, '--broker', socket, '--pid', `${broker.pid}`, '--json', '-']
    const generator = path.join(target, 'release', 'elbus-loadtest')
    const { status, stdout, stderr } = spawnSync(generator, args, { encoding: 'utf8' })
    if (status !== 0) throw new Error(`elbus-loadtest ${args.join(' ')}: ${stderr}`)
    const [outcome] = JSON.parse(stdout).loads[0].brokers[0].outcomes
    const value = (name) => outcome.figures.find((figure) => figure.name === name)?.value
    if (isIdle) {
      return {
        'memory alone, KiB': value('memory alone'),
        'memory per client, KiB': value('memory per client'),
      }
    }
    const peak = memory(broker.pid, 'VmHWM')
    await delay(SETTLE_MS)
    return {
      'broker CPU, s per million': value('broker CPU'),
      'memory at the most, MiB': peak / 1024,
      'memory afterwards, MiB': memory(broker.pid, 'VmRSS') / 1024,
    }
  } finally {
    const ended = broker.exitCode === null && broker.signalCode === null ? once(broker, 'exit') : undefined
    broker.kill('SIGKILL')
    await ended
    rmSync(folder, { recursive: true, force: true })
  }
}

function digits(value) {
  if (value >= 100) return value.toFixed(0)
  if (value >= 10) return value.toFixed(1)
  return value >= 1 ? value.toFixed(2) : value.toPrecision(3)
}

/** Median, least and greatest of each, and the ratio of the system's to mimalloc's with the same C library. */
function table(samples, labels) {
  const head = ['load', 'figure', ...labels, ...ratioLabels(labels)]
  const rows = [head, head.map(() => '---')]
  for (const [load, figures] of Object.entries(samples)) {
    for (const [figure, values] of Object.entries(figures)) {
      const middle = (label) => summary(values[label]).median
      const cells = labels.map((label) => {
        const { min, median, max } = summary(values[label])
        return `${digits(median)} (${digits(min)}–${digits(max)})`
      })
      const ratios = ratioLabels(labels).map((label) => {
        const libc = label.split(':', 1)[0]
        return (middle(`${libc}/system`) / middle(`${libc}/mimalloc`)).toFixed(2)
      })
      rows.push([load, figure, ...cells, ...ratios])
    }
  }
  return rows.map((row) => `| ${row.join(' | ')} |`).join('\n')
}

function ratioLabels(labels) {
  const libcs = [...new Set(labels.map((label) => label.split('/', 1)[0]))]
  const both = libcs.filter((libc) =>
    ['mimalloc', 'system'].every((one) => labels.includes(`${libc}/${one}`)),
  )
  return both.map((libc) => `${libc}: system ÷ mimalloc`)
}

const { rounds, duration, loads, json, ...rest } = options()
const programs = await contestants(rest)
run('cargo', ['build', '--release', '--locked', '-p', 'elbus-loadtest'], { ...process.env, RUSTFLAGS: '' })
const labels = Object.keys(programs)
const samples = {}
const chosen = Object.entries(LOADS).filter(([name]) => loads.split(',').some((part) => name.includes(part)))
for (const [load, args] of chosen) {
  samples[load] = {}
  for (let round = 1; round <= Number(rounds); round += 1) {
    for (const label of labels) {
      process.stderr.write(`${load}: round ${round} of ${rounds}, ${label}\n`)
      const figures = await measure(programs[label], args, duration).catch((error) => fail(error.message))
      for (const [figure, value] of Object.entries(figures)) {
        samples[load][figure] ??= Object.fromEntries(labels.map((label) => [label, []]))
        samples[load][figure][label].push(value)
      }
    }
  }
}
console.log(table(samples, labels))
if (json) writeFileSync(json, `${JSON.stringify(samples, undefined, 1)}\n`)

// `node .ci/fuzz.mjs`: the decoders against invented input (C31). Builds the targets of fuzz/ with AddressSanitizer,
// runs each for a while, two at a time, and replays what they kept in a plain optimised build, where 10 ms is the
// limit. Ends with one line, `N passed, N failed`; the status is 0 only if nothing failed.
//
//   --seconds N      of each target, default 60; hours are a matter of this number
//   --targets a,b    only these
//   --record         appends one line per target to fuzz/runs.jsonl
//   --replay         the committed corpus only, without fuzzing
//
// What fuzzing finds stays under .cache/fuzz/corpus and is where the next run begins; an input that fails is left
// under fuzz/artifacts. AddressSanitizer and libFuzzer's instrumentation are not stable parts of Rust:
// RUSTC_BOOTSTRAP=1 switches them on in the compiler that is installed.
import { spawn, spawnSync } from 'node:child_process'
import { appendFileSync, createWriteStream, existsSync, mkdirSync, readdirSync } from 'node:fs'
import { arch, availableParallelism } from 'node:os'
import path from 'node:path'
import process from 'node:process'
import { parseArgs } from 'node:util'
import { fail, requireTools, root, target } from './prerequisites.mjs'

/** Each target with the longest input it is given, in bytes: room for what its code treats in a special way. */
const TARGETS = {
  // A frame over 16 KiB leaves the read buffer.
  server_frames: 40_960,
  client_frames: 40_960,
  // What may come before the end of a login, four times.
  login: 4_096,
  rpc_event: 4_096,
  // A topic of 4 KiB, more than once.
  topic: 16_384,
  mask: 12_288,
  // A filter over its 256 bytes, or 4,000 levels.
  msgpack_params: 6_144,
}
const CARGO_FUZZ = '0.13.2'

function usage(reason) {
  fail(`${reason}; usage: node .ci/fuzz.mjs [--seconds N] [--targets a,b] [--record] [--replay]`)
}

function parse() {
  try {
    return parseArgs({
      options: {
        seconds: { type: 'string', default: '60' },
        targets: { type: 'string', default: Object.keys(TARGETS).join(',') },
        record: { type: 'boolean', default: false },
        replay: { type: 'boolean', default: false },
      },
    }).values
  } catch (error) {
    return usage(error.message)
  }
}

const options = parse()
const seconds = Number(options.seconds)
if (!Number.isInteger(seconds) || seconds < 1) usage('--seconds is a whole number, at least 1')
const names = options.targets.split(',')
for (const name of names) if (!(name in TARGETS)) usage(`there is no target ${name}`)

const folder = path.join(root, 'fuzz')
const cache = path.join(root, '.cache', 'fuzz')
const cargoFuzz = path.join(root, '.cache', 'cargo-fuzz')
const build = path.join(target, 'fuzz')
const env = { ...process.env, CARGO_TERM_COLOR: 'never' }
let passed = 0
let failed = 0

function run(command, args, more = {}) {
  const { status } = spawnSync(command, args, { cwd: folder, stdio: 'inherit', env: { ...env, ...more } })
  return status === 0
}

function answer(command, ...args) {
  const { status, stdout } = spawnSync(command, args, { cwd: root, encoding: 'utf8' })
  return status === 0 ? stdout.trim() : undefined
}

/** Why nothing can be fuzzed here, if so: then the replay of the corpus is all. */
function whyNot() {
  if (process.platform === 'win32') return 'libFuzzer with AddressSanitizer is not tried on Windows'
  if (compiler() !== undefined) return undefined
  if (process.getuid?.() === 0 && existsSync('/etc/debian_version')) {
    console.log('installing g++, which libFuzzer is compiled with')
    run('sh', [
      '-c',
      'apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends g++',
    ])
  }
  return compiler() === undefined ? 'a C++ compiler (c++) is missing' : undefined
}

function compiler() {
  return process.env.CXX ?? ['c++', 'g++', 'clang++'].find((name) => answer(name, '--version') !== undefined)
}

function installCargoFuzz() {
  const program = path.join(cargoFuzz, 'bin', 'cargo-fuzz')
  if (answer(program, '--version')?.endsWith(` ${CARGO_FUZZ}`)) return true
  console.log('installing cargo-fuzz under .cache/cargo-fuzz')
  const version = `cargo-fuzz@${CARGO_FUZZ}`
  return run('cargo', ['install', '--quiet', '--locked', '--force', '--root', cargoFuzz, version])
}

function buildTargets() {
  console.log('=== building the targets with AddressSanitizer')
  const tools = [path.join(cargoFuzz, 'bin'), process.env.PATH].join(path.delimiter)
  const args = ['fuzz', 'build', '--fuzz-dir', folder, '--target-dir', build, '--features', 'libfuzzer']
  return run('cargo', args, { PATH: tools, RUSTC_BOOTSTRAP: '1' })
}

function program(name) {
  const host = answer('rustc', '-vV')?.match(/^host: (.*)$/m)?.[1] ?? ''
  return path.join(build, host, 'release', name)
}

function count(at) {
  return existsSync(at) ? readdirSync(at).length : 0
}

const running = new Set()
let stopping = false
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.on(signal, () => {
    stopping = true
    for (const child of running) child.kill('SIGINT')
  })
}

/** Runs one target for its time. */
async function fuzz(name) {
  const own = path.join(cache, 'corpus', name)
  const artifacts = path.join(folder, 'artifacts', name)
  for (const at of [own, artifacts]) mkdirSync(at, { recursive: true })
  const before = count(own)
  const start = new Date()
  const args = [
    own,
    path.join(folder, 'corpus', name),
    `-artifact_prefix=${artifacts}${path.sep}`,
    `-max_len=${TARGETS[name]}`,
    `-max_total_time=${seconds}`,
    '-print_final_stats=1',
    // Whole seconds only. The targets themselves fail at 10 ms of processor time (five times as much here, where
    // every edge is counted): see fuzz/src/cost.rs. This is for what never comes back.
    '-timeout=5',
    '-rss_limit_mb=1024',
    '-malloc_limit_mb=64',
    // Looking for leaks needs ptrace, which containers forbid; what leaks reaches the limit above.
    '-detect_leaks=0',
  ]
  const child = spawn(program(name), args, {
    cwd: folder,
    env: { ...env, ASAN_OPTIONS: 'detect_leaks=0', RUST_BACKTRACE: '1' },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  running.add(child)
  const log = path.join(cache, `${name}.log`)
  const file = createWriteStream(log)
  let tail = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (data) => {
      file.write(data)
      tail = (tail + data).slice(-20_000)
    })
  }
  const status = await new Promise((resolve) => {
    child.on('error', () => resolve(undefined))
    child.on('close', resolve)
  })
  running.delete(child)
  file.end()
  const stat = (key) => Number(tail.match(new RegExp(`^stat::${key}:\\s+(\\d+)`, 'm'))?.[1] ?? 0)
  const ran = Number(tail.match(/^Done \d+ runs in (\d+) second/m)?.[1] ?? 0)
  const full = status === 0 && ran >= seconds
  const report = {
    target: name,
    start: start.toISOString(),
    end: new Date().toISOString(),
    seconds,
    runs: stat('number_of_executed_units'),
    perSecond: stat('average_exec_per_sec'),
    newCorpus: count(own) - before,
    result: full ? 'passed' : stopping || status === 0 ? 'not run for its full length' : 'failed',
  }
  console.log(
    `C31: ${name}: ${report.runs} runs in ${ran} s, ${report.perSecond}/s, new corpus ${report.newCorpus}, ${report.result}`,
  )
  if (full) passed += 1
  else {
    failed += 1
    console.log(`FAILED ${name}: ${report.result}`)
  }
  if (report.result === 'failed') {
    console.log(tail.split('\n').slice(-60).join('\n'))
    console.log(
      `the input is under ${path.relative(root, artifacts)}, all output in ${path.relative(root, log)}`,
    )
  }
  if (options.record) record(report)
}

/** What is tried: the state when the targets are built, whatever is committed while they run. */
function state() {
  const commit = answer('git', 'rev-parse', 'HEAD') ?? 'unknown'
  // Its own log is no change.
  const changes = answer('git', 'status', '--porcelain', '--', '.', ':!fuzz/runs.jsonl')
  return { commit, clean: changes === '' }
}

function record(report) {
  const machine = `${availableParallelism()} cores, ${process.platform} ${arch()}, ${answer('rustc', '--version')}`
  const line = { ...tried, ...report, machine }
  appendFileSync(path.join(folder, 'runs.jsonl'), `${JSON.stringify(line)}\n`)
}

/** The corpus in a plain optimised build. */
function replay(more = {}) {
  console.log('=== replaying the corpus without libFuzzer')
  const args = [
    'test',
    '--release',
    '--locked',
    '--quiet',
    '--tests',
    '--no-fail-fast',
    '--',
    '--show-output',
  ]
  const { status, stdout, stderr } = spawnSync('cargo', args, {
    cwd: folder,
    encoding: 'utf8',
    maxBuffer: 1 << 28,
    env: { ...env, CARGO_TARGET_DIR: path.join(build, 'replay'), RUST_BACKTRACE: '0', ...more },
  })
  for (const line of stdout.split('\n')) if (/^C\d\d: /.test(line)) console.log(line)
  if (status !== 0) console.log(stdout + stderr.split('\n').slice(-40).join('\n'))
  let bad = 0
  for (const result of stdout.matchAll(/^test result: .* (\d+) passed; (\d+) failed/gm)) {
    passed += Number(result[1])
    bad += Number(result[2])
  }
  // Whatever went wrong without a test that says so.
  failed += status !== 0 && bad === 0 ? 1 : bad
}

requireTools()
const tried = state()
mkdirSync(cache, { recursive: true })
const reason = options.replay ? undefined : whyNot()
if (reason !== undefined) {
  console.log(`skipped: fuzzing, because ${reason}`)
  if (process.env.ELBUS_REQUIRE?.split(',').includes('fuzz')) failed += 1
}
if (options.replay || reason !== undefined) {
  replay()
} else if (!installCargoFuzz() || !buildTargets()) {
  failed += names.length
} else {
  console.log(`=== ${names.length} targets, ${seconds} s each, two at a time`)
  const waiting = [...names]
  const worker = async () => {
    for (let name = waiting.shift(); name !== undefined && !stopping; name = waiting.shift()) await fuzz(name)
  }
  await Promise.all([worker(), worker()])
  for (const name of waiting) {
    console.log(`C31: ${name}: not run`)
    failed += 1
  }
  if (!stopping) replay({ ELBUS_CORPUS: path.join(cache, 'corpus') })
}
console.log(`${passed} passed, ${failed} failed`)
process.exitCode = failed === 0 ? 0 : 1

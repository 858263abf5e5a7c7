// `node .ci/instructions.mjs`: how many instructions the decoder, the router and the outbox take for a frame, by
// `valgrind --tool=callgrind`, against instructions.json: times are too noisy for a test. What is counted are the units
// of crates/{protocol,routing}/benches. Ends with one line, `N passed, N failed`; the status is 0 only if nothing
// failed.
//
//   --update        makes what is counted the baseline: after a change that is meant, or of the compiler
//   --units a,b     only units whose names contain one of these
//
// Each unit runs twice, with different numbers of rounds: the difference is what rounds cost, without set-up and start.
// Counts depend on the compiler, the C library, valgrind and the vector instructions of the processor, so a baseline
// made with others says nothing: counts are shown beside it and the check is skipped. The profile of each unit is left
// in target/instructions, for `callgrind_annotate FILE`.
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import path from 'node:path'
import process from 'node:process'
import { parseArgs } from 'node:util'
import { fail, requireTools, root, target } from './prerequisites.mjs'

const CRATES = ['protocol', 'routing']
/** A unit may take this much more than its baseline: what the linker's order of functions can make. */
const TOLERANCE = 0.05
/** Rounds of the two runs. The difference is a few turns of the 1,024 names that some units go through. */
const ROUNDS = [16, 48]
const LOOPS = ['movsb', 'stosb'].map((which) => `glibc.cpu.x86_rep_${which}_threshold=1073741824`).join(':')

function usage(reason) {
  fail(`${reason}; usage: node .ci/instructions.mjs [--update] [--units a,b]`)
}

function parse() {
  try {
    return parseArgs({
      options: { update: { type: 'boolean', default: false }, units: { type: 'string', default: '' } },
    }).values
  } catch (error) {
    return usage(error.message)
  }
}

const options = parse()
if (options.update && options.units) usage('--update counts all units')
const file = path.join(root, '.ci', 'instructions.json')
const profiles = path.join(target, 'instructions')
let passed = 0
let failed = 0

function answer(command, ...args) {
  const { status, stdout } = spawnSync(command, args, { cwd: root, encoding: 'utf8' })
  return status === 0 ? stdout.trim() : undefined
}

/** What counts depend on besides the code. */
function toolchain(valgrind) {
  const compiler = answer('rustc', '-vV') ?? ''
  const field = (name) => compiler.match(new RegExp(`^${name}: (.*)$`, 'm'))?.[1]
  process.report.excludeNetwork = true
  const cpu = existsSync('/proc/cpuinfo') ? readFileSync('/proc/cpuinfo', 'latin1') : ''
  return {
    rustc: `${field('release')} ${field('commit-hash')?.slice(0, 9)}`,
    llvm: field('LLVM version'),
    host: field('host'),
    // Where it is another C library, there is none.
    glibc: process.report.getReport().header.glibcVersionRuntime ?? 'none',
    valgrind: valgrind.replace('valgrind-', ''),
    vectors: /\bavx2\b/.test(cpu) ? 'AVX2' : 'others',
  }
}

/** Builds the programs of all crates; crate → file. */
function build() {
  const packages = CRATES.flatMap((name) => ['-p', `elbus-${name}`])
  const args = ['bench', '--no-run', '--locked', '--bench', 'instructions', ...packages]
  // Flags of the user would give other code.
  const { RUSTFLAGS: _, ...env } = process.env
  const { status, stdout } = spawnSync('cargo', [...args, '--message-format=json-render-diagnostics'], {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 1 << 28,
    env: { ...env, CARGO_TERM_COLOR: 'never' },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  if (status !== 0) return undefined
  const programs = {}
  for (const line of stdout.split('\n').filter(Boolean)) {
    const { executable, manifest_path: manifest } = JSON.parse(line)
    if (executable) programs[path.basename(path.dirname(manifest))] = executable
  }
  return programs
}

/** The units of one program, as it names them itself. */
function unitsOf(crate, program) {
  const lines = answer(program)?.split('\n') ?? fail(`${program} does not run`)
  return lines.map((line) => {
    const [, frames, name] = line.match(/^(\d+) (.+)$/)
    return { program, unit: name, frames: Number(frames), name: `${crate}: ${name}` }
  })
}

/** Instructions of a whole run. */
function run({ program, unit, name }, rounds) {
  const profile = path.join(profiles, `${name.replace(/[^a-zA-Z0-9]+/g, '-')}.out`)
  const args = ['--tool=callgrind', `--callgrind-out-file=${profile}`, program, unit, `${rounds}`]
  return new Promise((resolve) => {
    const child = spawn('valgrind', args, {
      stdio: ['ignore', 'ignore', 'pipe'],
      // Copies by `rep movsb` are counted byte by byte: with loops only, a copy counts for about what it costs.
      env: { ...process.env, GLIBC_TUNABLES: LOOPS },
    })
    let text = ''
    child.stderr.on('data', (data) => {
      text += data
    })
    child.on('close', (status) => {
      const collected = text.match(/^==\d+== Collected : (\d+)$/m)
      if (status !== 0 || !collected) console.log(text)
      resolve(status === 0 && collected ? Number(collected[1]) : Number.NaN)
    })
  })
}

async function count(unit) {
  const [few, many] = [await run(unit, ROUNDS[0]), await run(unit, ROUNDS[1])]
  return (many - few) / (ROUNDS[1] - ROUNDS[0]) / unit.frames
}

/** Name → instructions for one frame, in the order of the units. */
async function countAll(units) {
  const counts = new Map(units.map(({ name }) => [name, Number.NaN]))
  const waiting = [...units]
  const worker = async () => {
    for (let unit = waiting.shift(); unit !== undefined; unit = waiting.shift()) {
      counts.set(unit.name, await count(unit))
    }
  }
  await Promise.all(Array.from({ length: availableParallelism() }, worker))
  return counts
}

/** What is wrong with a count, if anything. */
function judge(found, expected) {
  if (Number.isNaN(found)) return 'did not run'
  if (expected === undefined) return 'has no baseline'
  return found > expected * (1 + TOLERANCE) ? 'takes more' : undefined
}

function show(counts, baseline) {
  const width = Math.max(...[...counts.keys()].map((name) => name.length))
  console.log(`${'instructions for a frame'.padEnd(width)}   counted  baseline   ratio`)
  for (const [name, found] of counts) {
    const expected = baseline[name]
    const ratio = expected === undefined ? '' : (found / expected).toFixed(3)
    const cells = [found.toFixed(1).padStart(9), (expected?.toFixed(1) ?? '').padStart(9), ratio.padStart(7)]
    console.log([name.padEnd(width), ...cells].join(' ').trimEnd())
  }
}

function check(counts, baseline, isWhole) {
  for (const [name, found] of counts) {
    const problem = judge(found, baseline[name])
    if (problem === undefined) passed += 1
    else {
      failed += 1
      console.log(`FAILED ${name} ${problem}`)
    }
    if (found < baseline[name] * (1 - TOLERANCE)) console.log(`${name} takes less: renew the baseline`)
  }
  for (const name of isWhole ? Object.keys(baseline).filter((name) => !counts.has(name)) : []) {
    failed += 1
    console.log(`FAILED ${name} is in the baseline and not among the units`)
  }
  if (failed > 0) {
    console.log(`profiles are in ${profiles}; if it is meant so: node .ci/instructions.mjs --update`)
  }
}

async function main(valgrind) {
  const programs = build()
  if (programs === undefined) {
    failed += 1
    return
  }
  mkdirSync(profiles, { recursive: true })
  const wanted = options.units.split(',')
  const all = CRATES.flatMap((crate) => unitsOf(crate, programs[crate]))
  const units = all.filter(({ name }) => wanted.some((part) => name.includes(part)))
  if (units.length === 0) usage(`no unit is called ${options.units}`)
  const here = toolchain(valgrind)
  const before = existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : { toolchain: {}, units: {} }
  const counts = await countAll(units)
  show(counts, before.units)
  if (options.update) {
    const lost = [...counts].filter(([, found]) => Number.isNaN(found))
    if (lost.length > 0) fail(`${lost.map(([name]) => name).join(', ')}: not counted, nothing is written`)
    const rounded = Object.fromEntries([...counts].map(([name, found]) => [name, Number(found.toFixed(1))]))
    writeFileSync(file, `${JSON.stringify({ toolchain: here, units: rounded }, undefined, 2)}\n`)
    passed += counts.size
    return
  }
  const others = Object.keys(here).filter((part) => here[part] !== before.toolchain[part])
  if (others.length > 0) {
    const versions = others.map((part) => `${part} ${before.toolchain[part]}, here ${here[part]}`)
    console.log(`skipped: instruction counts, because the baseline was made with ${versions.join('; ')}`)
    console.log('to renew it from a state known to be good: node .ci/instructions.mjs --update')
    failed += [...counts.values()].filter(Number.isNaN).length
    return
  }
  check(counts, before.units, options.units === '')
}

requireTools()
const valgrind = answer('valgrind', '--version')
if (valgrind === undefined) {
  const isRequired = options.update || process.env.ELBUS_REQUIRE?.includes('valgrind')
  if (isRequired) failed += 1
  console.log(`${isRequired ? 'FAILED' : 'skipped'}: valgrind is not installed`)
} else {
  await main(valgrind)
}
console.log(`${passed} passed, ${failed} failed`)
process.exitCode = failed === 0 ? 0 : 1

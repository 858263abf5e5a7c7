// `npm test`: everything that is checked, step by step. A step that fails does not keep the next one from running.
// Ends with one line, `N passed, N failed`; the status is 0 only if nothing failed. With ELBUS_LONG=1, `npm run
// test:long`, the same tests take their full doses, and ELBUS_FUZZ_SECONDS says how long each decoder is fuzzed.
import { spawn } from 'node:child_process'
import { existsSync, readFileSync, rmSync } from 'node:fs'
import path from 'node:path'
import process from 'node:process'
import { createInterface } from 'node:readline'
import { avaCounter, cargoCounter, nodeCounter, skipReason, Tally, totalCounter } from './counters.mjs'
import {
  peerVariables,
  prepareNode,
  prepareNpm,
  preparePython,
  requireTools,
  root,
  target,
} from './prerequisites.mjs'

requireTools({ lints: true })
prepareNpm()
const begin = Date.now()
/** Steps without tests count only when they fail. */
const tally = new Tally()
const summary = []

const { python, reason } = preparePython()
const env = {
  ...process.env,
  ...peerVariables(),
  ...(python && { ELBUS_PYTHON: python }),
  CARGO_TERM_COLOR: 'never',
  NO_COLOR: '1',
}
delete env.FORCE_COLOR
if (reason) console.log(`skipped: Python, because ${reason}`)

/** Runs a program; `take` sees every line and says whether it is shown. Returns whether it succeeded. */
function run(command, args, { take = () => true, more = {} } = {}) {
  return new Promise((resolve) => {
    // One pipe for both outputs, so that lines keep their order.
    const child = spawn('sh', ['-c', 'exec "$0" "$@" 2>&1', command, ...args], {
      cwd: root,
      env: { ...env, ...more },
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const lines = createInterface({ input: child.stdout })
    lines.on('line', (line) => take(line) && console.log(line))
    let status
    child.on('exit', (code) => {
      status = code
    })
    lines.on('close', () => {
      if (status === undefined) child.on('exit', (code) => resolve(code === 0))
      else resolve(status === 0)
    })
  })
}

/** A script of package.json. */
function script(name, ...args) {
  return run('npm', ['run', '--silent', name, ...args])
}

/** A program that an npm package of this project brings. */
function tool(name, ...args) {
  return run(path.join(root, 'node_modules', '.bin', name), args)
}

/** Shows every line, and counts one that says what was left out. */
function noteSkip(line) {
  const why = skipReason(line)
  if (why !== undefined) tally.skip(why)
  return true
}

async function step(title, work) {
  const start = Date.now()
  console.log(`\n=== ${title}`)
  const before = tally.failed
  const good = await work()
  // Whatever went wrong without a test that says so: a compiler, a crash, a lint.
  if (!good && tally.failed === before) {
    tally.failed += 1
    tally.name(title)
  }
  const seconds = Math.round((Date.now() - start) / 1000)
  const line = `${tally.failed === before ? 'ok    ' : 'FAILED'} ${title} (${seconds} s)`
  summary.push(line)
  console.log(`=== ${line}`)
}

await step('format', () => run('cargo', ['fmt', '--all', '--check', '--', '--color', 'never']))
await step('lints', () => {
  const everything = ['--workspace', '--all-targets', '--all-features', '--locked', '--keep-going']
  return run('cargo', ['clippy', ...everything, '--', '-D', 'warnings'])
})
await step('documentation', () => {
  const everything = ['--workspace', '--no-deps', '--all-features', '--locked', '--keep-going']
  return run('cargo', ['doc', ...everything], { more: { RUSTDOCFLAGS: '-D warnings' } })
})
await step('tests', async () => {
  const { take, show } = cargoCounter(tally)
  const tests = ['test', '--workspace', '--all-features', '--locked', '--no-fail-fast', '--', '--show-output']
  const good = await run('cargo', tests, { take })
  show('recorded conversations of the reference brokers', 'golden_bytes.rs')
  show('published Python clients', 'python_clients.rs')
  show('published command line tools', 'peer_cli.rs')
  show('published brokers', 'published_servers/main.rs')
  show('examples', 'tests/examples.rs')
  show('code of README.md and of the documentation', 'documentation of elbus')
  return good
})
await step('server without the feature rpc has no .broker', () => {
  const tests = [
    'test',
    '-p',
    'elbusd',
    '--features',
    'server',
    '--test',
    'elbusd',
    '--locked',
    '--no-fail-fast',
  ]
  return run('cargo', [...tests, '--', '--show-output'], { take: cargoCounter(tally).take })
})
await step('server at the root: cargo build --features server,rpc', () =>
  run('cargo', ['build', '--features', 'server,rpc', '--locked']),
)

await step('models of races, every order of threads', () => {
  const tests = [
    'test',
    '-p',
    'elbus-routing',
    '--profile',
    'models',
    '--locked',
    '--test',
    'loom',
    '--',
    '--show-output',
  ]
  // A target folder of its own: the flag would have everything else built anew.
  const more = { RUSTFLAGS: '--cfg elbus_loom', CARGO_TARGET_DIR: path.join(target, 'loom') }
  return run('cargo', tests, { take: cargoCounter(tally).take, more })
})
await step('decoders against invented input', () => {
  const seconds = process.env.ELBUS_FUZZ_SECONDS ?? (process.env.ELBUS_LONG ? '3600' : '10')
  const fuzz = path.join(root, '.ci', 'fuzz.mjs')
  return run(process.execPath, [fuzz, '--seconds', seconds], { take: totalCounter(tally) })
})
await step('instructions of decoder, router and outbox', () =>
  run(process.execPath, [path.join(root, '.ci', 'instructions.mjs')], { take: totalCounter(tally) }),
)

await step('addon, and npm/binding.* as generated', async () => {
  const generated = ['npm/binding.js', 'npm/binding.d.ts']
  const read = () =>
    generated.map((file) => existsSync(path.join(root, file)) && readFileSync(path.join(root, file), 'utf8'))
  const committed = read()
  if (!(await script('build:addon'))) return false
  const built = read()
  const stale = generated.filter((_, index) => committed[index] !== built[index])
  for (const file of stale)
    console.log(`${file} was not what \`npm run build:addon\` generates: commit it as it is now`)
  return stale.length === 0
})
await step('TypeScript: package, specs, examples, type tests', async () => {
  // What is left of files that are gone would be tested and packed.
  for (const folder of ['dist', 'dist-test', 'dist-examples']) {
    rmSync(path.join(root, folder), { recursive: true, force: true })
  }
  // All others are compiled against dist/: without it they only repeat that it is missing.
  if (!(await script('build:ts'))) return false
  let good = true
  for (const name of ['build:test', 'build:examples', 'types']) good = (await script(name)) && good
  return good
})
await step('format and lints of TypeScript and JavaScript', () => script('check'))
await step('tables and charts of the benchmark', () =>
  run('npm', ['run', '--silent', 'benchmark:test'], { take: nodeCounter(tally) }),
)
await step('workflows: actionlint', () =>
  run('npm', ['run', '--silent', 'check:workflows'], { take: noteSkip }),
)
await step('package: publint', () => tool('publint', '--strict'))
await step('package: types for every way to import', () => tool('attw', '--pack', '.', '--format', 'ascii'))

await step('package: installed from a registry, and used', () =>
  run(process.execPath, [path.join(root, '.ci', 'installed.mjs')], { take: totalCounter(tally) }),
)

/** Specs that say nothing about Node itself, or take long: they run on one Node only. */
const LONG = [
  'electron',
  'examples',
  'hardening',
  'hostile-amounts',
  'hostile-random',
  'interop',
  'network',
  'readme',
  'slow-consumer',
  'valgrind',
  'wire',
]

/** ava with one Node; the same compiled specs for all. */
function specs(node, files = [], more = {}) {
  // Not over a name the user has given, and only what is there.
  const elbusd = path.join(target, 'debug', 'elbusd')
  const variables = !env.ELBUSD && existsSync(elbusd) ? { ELBUSD: elbusd } : {}
  const ava = path.join(root, 'node_modules', 'ava', 'entrypoints', 'cli.mjs')
  return run(node, [ava, '--no-color', ...files], {
    take: avaCounter(tally),
    more: { ...variables, ...more },
  })
}

await step(`specs on Node.js ${process.version}`, () => specs(process.execPath))
for (const major of [22, 24, 26]) {
  await step(`specs on Node.js ${major}, short`, () => {
    const { node, version, reason } = prepareNode(major)
    if (node === undefined) {
      console.log(`skipped: ${reason}`)
      tally.skip(reason)
      return true
    }
    console.log(`Node.js ${version}`)
    const short = LONG.map((name) => `!dist-test/${name}.spec.js`)
    return specs(node, ['dist-test/*.spec.js', ...short], { ELBUS_SHORT: '1' })
  })
}
await step('tour: npm start -- --once', () =>
  run(process.execPath, [path.join(root, '.ci', 'start.mjs'), '--once'], { take: noteSkip }),
)

console.log(`\n=== summary after ${Math.round((Date.now() - begin) / 1000)} s`)
for (const line of [...summary, ...tally.lines()]) console.log(line)
process.exitCode = tally.failed === 0 ? 0 : 1

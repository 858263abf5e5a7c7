// `npm test`: everything that is checked, step by step. A step that fails does not keep the next one from running.
// Ends with one line, `N passed, N failed`; the status is 0 only if nothing failed.
import { spawn } from 'node:child_process'
import path from 'node:path'
import process from 'node:process'
import { createInterface } from 'node:readline'
import { peerVariables, preparePython, requireTools, root } from './prerequisites.mjs'

requireTools({ lints: true })
const begin = Date.now()

/** Tests that ran, by outcome; steps without tests count only when they fail. */
let passed = 0
let failed = 0
/** Reason → how many tests gave it. */
const skipped = new Map()
const summary = []

const { python, reason } = preparePython()
const env = {
  ...process.env,
  ...peerVariables(),
  ...(python && { ELBUS_PYTHON: python }),
  CARGO_TERM_COLOR: 'never',
}
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
    child.on('exit', (code) => (status = code))
    lines.on('close', () => (status === undefined ? child.on('exit', (code) => resolve(code === 0)) : resolve(status === 0)))
  })
}

async function step(title, work) {
  const start = Date.now()
  console.log(`\n=== ${title}`)
  const before = failed
  const good = await work()
  // Whatever went wrong without a test that says so: a compiler, a crash, a lint.
  if (!good && failed === before) failed += 1
  const seconds = Math.round((Date.now() - start) / 1000)
  const line = `${failed === before ? 'ok    ' : 'FAILED'} ${title} (${seconds} s)`
  summary.push(line)
  console.log(`=== ${line}`)
}

/** Reads the output of `cargo test -- --show-output`, hides what passing tests print, counts. */
function counter() {
  let hidden = false
  let test = ''
  let program = ''
  let skippedTests = new Set()
  const counts = new Map()
  const take = (line) => {
    const running = line.match(/^\s+(?:Running (?:unittests )?(\S+)|Doc-tests (\S+))/)
    if (running) program = running[1] ?? `documentation of ${running[2]}`
    if (line === 'successes:') hidden = true
    if (line === 'failures:') hidden = false
    const header = line.match(/^---- (.+) stdout ----$/)
    if (header) test = header[1]
    if (line.startsWith('skipped:')) {
      const why = line.slice('skipped:'.length).trim()
      skipped.set(why, (skipped.get(why) ?? 0) + 1)
      skippedTests.add(test)
    }
    const result = line.match(/^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored/)
    if (!result) return !hidden
    hidden = false
    const [good, bad, ignored] = result.slice(1).map(Number)
    if (ignored > 0) skipped.set(`ignored in ${program}`, ignored)
    // A test that says it was skipped has not passed.
    passed += good - skippedTests.size
    failed += bad
    const sum = counts.get(program) ?? [0, 0, 0]
    counts.set(program, [sum[0] + good - skippedTests.size, sum[1] + bad, sum[2] + skippedTests.size + ignored])
    skippedTests = new Set()
    return true
  }
  const show = (title, file) => {
    for (const [name, [good, bad, left]] of counts) {
      if (name.endsWith(file)) console.log(`${title}: ${good} passed, ${bad} failed, ${left} skipped`)
    }
  }
  return { take, show }
}

await step('format', () => run('cargo', ['fmt', '--all', '--check', '--', '--color', 'never']))
await step('lints', () =>
  run('cargo', ['clippy', '--workspace', '--all-targets', '--all-features', '--locked', '--keep-going', '--', '-D', 'warnings']))
await step('documentation', () =>
  run('cargo', ['doc', '--workspace', '--no-deps', '--all-features', '--locked', '--keep-going'], { more: { RUSTDOCFLAGS: '-D warnings' } }))
await step('tests', async () => {
  const { take, show } = counter()
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
  const { take } = counter()
  const tests = ['test', '-p', 'elbus', '--features', 'server', '--test', 'elbusd', '--locked', '--no-fail-fast']
  return run('cargo', [...tests, '--', '--show-output'], { take })
})
await step('server at the root: cargo build --features server,rpc', () =>
  run('cargo', ['build', '--features', 'server,rpc', '--locked']))
await step('tour: npm start -- --once', () =>
  run(process.execPath, [path.join(root, '.ci', 'start.mjs'), '--once'], {
    take: (line) => {
      if (line.startsWith('skipped:')) skipped.set(line.slice('skipped:'.length).trim(), 1)
      return true
    },
  }))

console.log(`\n=== summary after ${Math.round((Date.now() - begin) / 1000)} s`)
for (const line of summary) console.log(line)
for (const [why, count] of skipped) console.log(`skipped: ${why} (${count})`)
const count = [...skipped.values()].reduce((sum, number) => sum + number, 0)
console.log(`${count} skipped`)
console.log(`${passed} passed, ${failed} failed`)
process.exitCode = failed === 0 ? 0 : 1

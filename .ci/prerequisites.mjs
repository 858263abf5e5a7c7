// What the commands of this project need on a machine: looked for, and installed where that needs no rights.
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import process from 'node:process'
import { fileURLToPath } from 'node:url'

export const root = fileURLToPath(new URL('..', import.meta.url))
const cache = path.join(root, '.cache')

const RUST = '1.88'
/** No scripts: none of the packages needs one. Quiet about packages that ask for a newer Node and work on this one. */
const QUIET = ['--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error']
const RUSTUP = 'install Rust with https://rustup.rs'

/** One plain line on standard error, and the end. */
export function fail(line) {
  process.stderr.write(`${line}\n`)
  process.exit(1)
}

/** Runs a command at the root without showing it. */
export function ask(command, args, options = {}) {
  const { error, status, stdout, stderr } = spawnSync(command, args, {
    cwd: root,
    encoding: 'utf8',
    ...options,
  })
  return { ok: !error && status === 0, stdout: stdout ?? '', stderr: stderr ?? String(error ?? '') }
}

function versionOf(command) {
  const answer = ask(command, ['--version'])
  return answer.ok ? (answer.stdout.match(/\d+\.\d+(\.\d+)?/)?.[0] ?? '') : undefined
}

function isOlder(version, wanted) {
  const [major = 0, minor = 0] = version.split('.').map(Number)
  const [wantedMajor = 0, wantedMinor = 0] = wanted.split('.').map(Number)
  return major < wantedMajor || (major === wantedMajor && minor < wantedMinor)
}

/** Ends with a line that names the first tool that is missing or too old. */
export function requireTools({ lints = false } = {}) {
  const wantedNode = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8')).engines.node.replace(
    '>=',
    '',
  )
  if (isOlder(process.versions.node, wantedNode)) {
    fail(`Node.js ${wantedNode} or later is needed, this is ${process.versions.node}: see https://nodejs.org`)
  }
  if (versionOf('npm') === undefined) fail('npm is missing: it comes with Node.js, see https://nodejs.org')
  for (const tool of ['cargo', 'rustc']) {
    const version = versionOf(tool)
    if (version === undefined) fail(`${tool} is missing: ${RUSTUP}`)
    if (isOlder(version, RUST)) fail(`${tool} ${RUST} or later is needed, this is ${version}: rustup update`)
  }
  if (['cc', 'gcc'].every((compiler) => versionOf(compiler) === undefined)) {
    fail('a C compiler (cc or gcc) is missing: on Debian and Ubuntu apt-get install gcc libc6-dev')
  }
  if (versionOf('git') === undefined) fail('git is missing: on Debian and Ubuntu apt-get install git')
  for (const component of lints ? ['fmt', 'clippy'] : []) {
    if (!ask('cargo', [component, '--version']).ok) {
      fail(
        `cargo ${component} is missing: rustup component add ${component === 'fmt' ? 'rustfmt' : component}`,
      )
    }
  }
}

/**
 * An interpreter with the published clients: `ELBUS_PYTHON`, or that of a private environment.
 * Returns `{ python }` or `{ reason }`; where `ELBUS_REQUIRE` holds `python` a reason is the end.
 */
export function preparePython() {
  if (process.env.ELBUS_PYTHON) return { python: process.env.ELBUS_PYTHON }
  const requirements = path.join(root, 'crates', 'elbus', 'tests', 'python', 'requirements.txt')
  return prepareEnvironment('python', requirements, 'the Python clients')
}

/**
 * The interpreter of a private environment .cache/NAME with the packages of a list, made anew when the list or Python has
 * changed. Returns as `preparePython`.
 */
export function prepareEnvironment(name, requirements, what) {
  const found = preparedEnvironment(path.join(cache, name), requirements, what)
  if (found.reason && process.env.ELBUS_REQUIRE?.includes('python'))
    fail(`Python is required: ${found.reason}`)
  return found
}

function preparedEnvironment(folder, requirements, what) {
  const version = ask('python3', ['--version'])
  if (!version.ok)
    return { reason: 'python3 is missing: on Debian and Ubuntu apt-get install python3 python3-venv' }
  const python = path.join(folder, 'bin', 'python')
  const stamp = path.join(folder, 'made-from')
  const madeFrom = createHash('sha256')
    .update(version.stdout)
    .update(readFileSync(requirements))
    .digest('hex')
  if (existsSync(python) && existsSync(stamp) && readFileSync(stamp, 'utf8') === madeFrom) return { python }

  rmSync(folder, { recursive: true, force: true })
  mkdirSync(cache, { recursive: true })
  console.log(`installing ${what} under .cache/${path.basename(folder)}`)
  if (!ask('python3', ['-c', 'import ensurepip, venv']).ok) {
    return { reason: 'python3 has no venv: on Debian and Ubuntu apt-get install python3-venv' }
  }
  const made = ask('python3', ['-m', 'venv', folder])
  if (!made.ok) return { reason: `python3 -m venv failed: ${lastLine(made)}` }
  const packages = ask(python, [
    '-m',
    'pip',
    'install',
    '--quiet',
    '--disable-pip-version-check',
    '-r',
    requirements,
  ])
  if (!packages.ok) return { reason: `pip could not install ${what}: ${lastLine(packages)}` }
  writeFileSync(stamp, madeFrom)
  return { python }
}

function lastLine({ stdout, stderr }) {
  return `${stdout}\n${stderr}`.trim().split('\n').at(-1)
}

/** Installs the packages of the lock file where they are missing or older than it. */
export function prepareNpm() {
  const lock = path.join(root, 'package-lock.json')
  const installed = path.join(root, 'node_modules', '.package-lock.json')
  if (existsSync(installed) && statSync(installed).mtimeMs >= statSync(lock).mtimeMs) return
  console.log('installing the npm packages of package-lock.json')
  const { status } = spawnSync('npm', ['ci', ...QUIET], { cwd: root, stdio: 'inherit' })
  if (status !== 0)
    fail('npm ci failed: the packages come from the registry that `npm config get registry` names')
}

/**
 * Node.js of another release line, from the npm package that carries its program, under .cache/nodes; the user's own
 * Node is left as it is. Returns `{ node, version }` or `{ reason }`.
 */
export function prepareNode(major) {
  const folder = path.join(cache, 'nodes', `${major}`)
  const name = `node-${process.platform}-${process.arch}`
  const node = path.join(folder, 'node_modules', name, 'bin', 'node')
  if (!existsSync(node)) {
    console.log(`installing Node.js ${major} under .cache/nodes`)
    mkdirSync(folder, { recursive: true })
    // Without a package of its own npm would install into the folder above.
    writeFileSync(path.join(folder, 'package.json'), '{ "private": true }\n')
    const answer = ask('npm', ['install', ...QUIET, '--fetch-retries=1', `${name}@${major}`], { cwd: folder })
    if (!answer.ok) {
      const code = answer.stderr.match(/npm error code (\S+)/)?.[1] ?? lastLine(answer)
      return { reason: `npm could not install ${name}@${major}: ${code}` }
    }
  }
  const version = ask(node, ['--version'])
  if (!version.ok) return { reason: `${name}@${major} does not run here: ${lastLine(version)}` }
  return { node, version: version.stdout.trim() }
}

/** The target folder of cargo, and of everything that calls it. */
export const target = path.resolve(root, process.env.CARGO_TARGET_DIR ?? 'target')

/** Where the programs of the reference projects are installed, and the variables by which tests find them. */
export const peers = {
  root: path.join(cache, 'peers'),
  programs: { BUSRTD: 'busrtd', BUSRT_CLI: 'busrt', ELBUSD_PEER: 'elbusd', ELBUS_CLI: 'elbus' },
}

/** The variables for those that are installed and not named otherwise. */
export function peerVariables() {
  const variables = {}
  for (const [variable, program] of Object.entries(peers.programs)) {
    const file = path.join(peers.root, 'bin', program)
    if (!process.env[variable] && existsSync(file)) variables[variable] = file
  }
  return variables
}

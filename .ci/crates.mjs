// `npm run check:crates`: can the crates be published, and may we use what they stand on? Ends with one line, `N passed,
// N failed`; the status is 0 only if nothing failed. deny.toml holds the rules for licences, duplicates and sources.
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import process from 'node:process'
import { answer, cargoTool, metadata } from './cargo-tools.mjs'
import { requireTools, root, target } from './prerequisites.mjs'

const CARGO_DENY = '0.20.2'
const PUBLISHED = ['elbus-broker', 'elbus-client', 'elbus-protocol', 'elbus-routing', 'elbus-rpc', 'elbusd']
/** Where the oldest Rust is stated beside Cargo.toml. */
const STATED = {
  'README.md': /Rust from (\d+\.\d+) on/,
  '.github/CONTRIBUTING.md': /Rust (\d+\.\d+) with rustfmt/,
  '.ci/prerequisites.mjs': /const RUST = '(\d+\.\d+)'/,
  'crates/elbus/README.md': /Rust (\d+\.\d+) or later/,
  '.github/workflows/ci.yml': /cargo \+(\d+\.\d+) check/,
}

let passed = 0
let failed = 0

function check(title, faults) {
  console.log(`${faults.length === 0 ? 'ok    ' : 'FAILED'} ${title}`)
  for (const fault of faults) console.log(`       ${fault}`)
  if (faults.length === 0) passed += 1
  else failed += 1
}

function run(command, ...args) {
  const { status } = spawnSync(command, args, { cwd: root, stdio: 'inherit' })
  return status === 0 ? [] : [`${path.basename(command)} ${args.join(' ')}`]
}

/** Its own workspace, fuzz/, is in nothing that is handed on: only where its crates come from matters. */
function deny() {
  const tool = cargoTool('cargo-deny', CARGO_DENY)
  // A rule that nothing needs any more is a fault too.
  const rules = ['--locked', '--config', 'deny.toml', 'check', '--deny', 'warnings']
  check('licences, duplicates and sources', run(tool, ...rules, 'licenses', 'bans', 'sources'))
  check('sources of fuzz/', run(tool, '--manifest-path', 'fuzz/Cargo.toml', ...rules, 'sources'))
}

function minor(version) {
  return Number(version.split('.')[1])
}

/** Whether the code keeps to it: clippy says so for the standard library, the public workflow compiles with it. */
function oldestRust({ packages, workspace_members: members }) {
  const ours = packages.filter((crate) => members.includes(crate.id))
  const stated = new Set(ours.map((crate) => crate.rust_version))
  const [oldest] = stated
  const faults = stated.size === 1 && oldest ? [] : [`the crates state ${[...stated].join(', ')}`]
  for (const crate of packages) {
    if (minor(crate.rust_version ?? '1.0') > minor(oldest)) {
      faults.push(`${crate.name} ${crate.version} needs Rust ${crate.rust_version}`)
    }
  }
  for (const [file, pattern] of Object.entries(STATED)) {
    const found = readFileSync(path.join(root, file), 'utf8').match(pattern)?.[1]
    if (found !== oldest) faults.push(`${file} states Rust ${found}`)
  }
  check(`Rust ${oldest} is enough for every crate in Cargo.lock, and stated everywhere`, faults)
}

/** Each package is unpacked elsewhere and compiled against the others as packed. */
function pack({ packages, workspace_members: members }) {
  const ours = packages.filter((crate) => members.includes(crate.id))
  const publishable = ours.filter((crate) => crate.publish === null).map((crate) => crate.name)
  const wrong = publishable.sort().join(' ') === PUBLISHED.join(' ') ? [] : [`published: ${publishable}`]
  check('what may be published', wrong)

  const what = PUBLISHED.flatMap((name) => ['-p', name])
  const features = ['--features', 'elbusd/server,elbusd/rpc']
  // Not among the programs of the workspace, which tests start.
  const folder = path.join(target, 'crates')
  const how = ['--quiet', '--locked', '--allow-dirty', '--target-dir', folder]
  check('packages, compiled as packed', run('cargo', 'package', ...how, ...what, ...features))
  for (const name of PUBLISHED) {
    const files = answer('cargo', ['package', '--list', '--locked', '--allow-dirty', '-p', name]).split('\n')
    check(`licence in the package of ${name}`, files.includes('LICENSE') ? [] : ['LICENSE is not in it'])
  }
}

requireTools()
const workspace = metadata()
deny()
oldestRust(workspace)
pack(workspace)
console.log(`${passed} passed, ${failed} failed`)
process.exitCode = failed === 0 ? 0 : 1

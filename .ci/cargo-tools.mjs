// The tools of `.ci/crates.mjs` and `.ci/sbom.mjs`, in fixed versions under .cache/tools; and the two programs that
// they and `.ci/licences.mjs` describe, with the crates in them.
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import process from 'node:process'
import { fail, root } from './prerequisites.mjs'

const folder = path.join(root, '.cache', 'tools')

/** What is handed to users, as it is built for them. */
export const PRODUCTS = [
  { name: 'elbus-node', manifest: 'crates/node/Cargo.toml', features: [] },
  { name: 'elbusd', manifest: 'crates/elbus/Cargo.toml', features: ['server', 'rpc'] },
]

/** Every platform that either is built for. */
export const TARGETS = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8')).napi.targets

/** `name version` of the crates whose code is in a product. */
export function linked(product, targets) {
  return crates(product, targets, 'normal,no-proc-macro')
}

/** Those too that only run while it is built. */
export function compiled(product, targets) {
  return crates(product, targets, 'normal,build')
}

function crates({ manifest, features }, targets, edges) {
  const names = new Set()
  for (const target of targets) {
    const args = ['tree', '--manifest-path', path.join(root, manifest), '--locked', '--target', target]
    const shown = ['--features', features.join(','), '--edges', edges, '--prefix', 'none', '--format', '{p}']
    for (const line of answer('cargo', [...args, ...shown]).split('\n')) {
      const [, name, version] = line.match(/^(\S+) v(\S+)/) ?? []
      if (name !== undefined) names.add(`${name} ${version}`)
    }
  }
  return names
}

/** Path of a cargo plugin; compiled first where it is missing, for minutes. */
export function cargoTool(name, version, ...more) {
  const program = path.join(folder, 'bin', name)
  const subcommand = name.replace('cargo-', '')
  if (ask(program, [subcommand, '--version']).stdout.trim().endsWith(` ${version}`)) return program
  console.log(`installing ${name} ${version} under .cache/tools`)
  const args = ['install', '--quiet', '--locked', '--force', '--root', folder, `${name}@${version}`, ...more]
  const { status } = spawnSync('cargo', args, { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] })
  if (status !== 0) fail(`cargo could not install ${name} ${version}`)
  return program
}

/** Runs a command at the root without showing it. */
export function ask(command, args, more = {}) {
  const { error, status, stdout, stderr } = spawnSync(command, args, {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 1 << 28,
    env: { ...process.env, CARGO_TERM_COLOR: 'never', ...more },
  })
  return { ok: !error && status === 0, stdout: stdout ?? '', stderr: stderr || String(error ?? '') }
}

/** What a command prints; the end if it fails. */
export function answer(command, args, more) {
  const { ok, stdout, stderr } = ask(command, args, more)
  if (!ok) fail(`${path.basename(command)} ${args.join(' ')} failed:\n${stderr.trim()}`)
  return stdout
}

/** What cargo knows of the workspace, with all dependencies. */
export function metadata() {
  return JSON.parse(answer('cargo', ['metadata', '--format-version', '1', '--locked']))
}

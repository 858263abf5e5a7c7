// The packages of the platforms: what they say of themselves, and what a user reads where one is missing or does not fit.

import { cpSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import test from 'ava'
import { packageCopy } from './support/package-copy'

const root = path.dirname(require.resolve('elbus-node/package.json'))

interface Manifest {
  name: string
  version: string
  main?: string
  files: string[]
  os: string[]
  cpu: string[]
  libc?: string[]
  scripts?: Record<string, string>
  dependencies?: Record<string, string>
  optionalDependencies?: Record<string, string>
  engines: Record<string, string>
  license: string
  napi: { targets: string[] }
}

function manifest(folder: string): Manifest {
  return JSON.parse(readFileSync(path.join(folder, 'package.json'), 'utf8')) as Manifest
}

const own = manifest(root)

/** Rust's name of a platform → the folder and what npm is to install it for. */
const PLATFORMS: Record<string, [folder: string, os: string, cpu: string, libc?: string]> = {
  'x86_64-unknown-linux-gnu': ['linux-x64-gnu', 'linux', 'x64', 'glibc'],
  'x86_64-unknown-linux-musl': ['linux-x64-musl', 'linux', 'x64', 'musl'],
  'aarch64-unknown-linux-gnu': ['linux-arm64-gnu', 'linux', 'arm64', 'glibc'],
  'aarch64-unknown-linux-musl': ['linux-arm64-musl', 'linux', 'arm64', 'musl'],
  'armv7-unknown-linux-gnueabihf': ['linux-arm-gnueabihf', 'linux', 'arm', 'glibc'],
  'x86_64-apple-darwin': ['darwin-x64', 'darwin', 'x64'],
  'aarch64-apple-darwin': ['darwin-arm64', 'darwin', 'arm64'],
  'x86_64-pc-windows-msvc': ['win32-x64-msvc', 'win32', 'x64'],
}

test('there is a folder for each platform that is built, and no other', (t) => {
  t.deepEqual(own.napi.targets.toSorted(), Object.keys(PLATFORMS).sort())
  const folders = readdirSync(path.join(root, 'npm'), { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map(({ name }) => name)
  t.deepEqual(
    folders.sort(),
    Object.values(PLATFORMS)
      .map(([folder]) => folder)
      .sort(),
  )
})

for (const [folder, os, cpu, libc] of Object.values(PLATFORMS)) {
  test(`the package for ${folder}: where it is installed, what it holds, no script, no dependency`, (t) => {
    const { version, engines, license, description } = own as Manifest & { description: string }
    const addon = `elbus-node.${folder}.node`
    t.deepEqual(manifest(path.join(root, 'npm', folder)), {
      name: `elbus-node-${folder}`,
      version,
      description,
      license,
      os: [os],
      cpu: [cpu],
      ...(libc !== undefined && { libc: [libc] }),
      engines,
      main: addon,
      files: [addon, 'THIRD-PARTY-LICENSES'],
    } as unknown as Manifest)
    t.true(
      readFileSync(path.join(root, 'npm', 'binding.js'), 'utf8').includes(`require('elbus-node-${folder}')`),
    )
  })
}

test('the package itself: one dependency, no script that runs at installing, no names that are not published', (t) => {
  t.deepEqual(Object.keys(own.dependencies ?? {}), ['@msgpack/msgpack'])
  t.is(own.optionalDependencies, undefined)
  for (const script of ['preinstall', 'install', 'postinstall', 'prepare'])
    t.false(script in (own.scripts ?? {}))
  // The crates have the same version: an addon tells its own, and another than this is not taken.
  const { version } = own
  t.regex(readFileSync(path.join(root, 'Cargo.toml'), 'utf8'), new RegExp(`^version = "${version}"$`, 'm'))
})

// ---- what a user reads

/** The addon that these tests run with. */
function builtAddon(): string {
  const file = readdirSync(path.join(root, 'npm')).find((name) => name.endsWith('.node'))
  if (file === undefined) throw new Error('npm/ holds no addon')
  return path.join(root, 'npm', file)
}

const here = path.basename(builtAddon()).split('.')[1] as string
const again = `run "npm install elbus-node@${own.version}" on this machine, optional dependencies included`

/** A package for this platform whose addon is a copy of `addon`, or this text. */
function addPlatformPackage(folder: string, addon: { copyOf: string } | { text: string }): void {
  const target = path.join(folder, '..', `elbus-node-${here}`)
  mkdirSync(target)
  cpSync(path.join(root, 'npm', here, 'package.json'), path.join(target, 'package.json'))
  const file = path.join(target, `elbus-node.${here}.node`)
  if ('copyOf' in addon) cpSync(addon.copyOf, file)
  else writeFileSync(file, addon.text)
}

test('with the package of the platform it is loaded', async (t) => {
  const { folder, load } = packageCopy(t)
  addPlatformPackage(folder, { copyOf: builtAddon() })
  t.deepEqual(await load(), { loaded: true })
})

test('without it, the package to install is named', async (t) => {
  const { load } = packageCopy(t)
  const { code, message } = await load()
  t.is(code, 'ERR_BUS_INTERNAL')
  t.is(
    message,
    `elbus-node-${here} is not installed, the package with the binary of elbus-node for this platform: ${again}`,
  )
})

test('with one that cannot be loaded, the reason is given', async (t) => {
  const { folder, load } = packageCopy(t)
  addPlatformPackage(folder, { text: 'no binary' })
  const { code, message = '' } = await load()
  t.is(code, 'ERR_BUS_INTERNAL')
  t.true(message.startsWith(`the binary in elbus-node-${here} cannot be loaded (`), message)
  t.true(message.includes(`elbus-node.${here}.node`) && message.endsWith(again), message)
  t.false(message.includes('\n'))
})

test('where the system’s C library is too old, that is said instead of installing again', async (t) => {
  const { folder, load } = packageCopy(t)
  const says = "/lib/libc.so.6: version `GLIBC_2.99' not found"
  writeFileSync(path.join(folder, 'npm', 'binding.js'), `throw new Error(${JSON.stringify(says)})`)
  const { message } = await load()
  t.is(
    message,
    `the binary in elbus-node-${here} cannot be loaded (${says}): the C library of this system is older than it needs`,
  )
})

test('where the loader looks for that of another C library, the one that is installed is named', async (t) => {
  const { folder, load } = packageCopy(t)
  addPlatformPackage(folder, { copyOf: builtAddon() })
  writeFileSync(
    path.join(folder, 'npm', 'binding.js'),
    "throw new Error('not found', { cause: new Error(\"Cannot find module 'elbus-node-other'\") })",
  )
  const { message = '' } = await load()
  t.true(
    message.startsWith(`elbus-node-${here} is installed and the binary in it is not looked for: `),
    message,
  )
})

test('with one of another version, both are named', async (t) => {
  const { folder, load } = packageCopy(t)
  addPlatformPackage(folder, { copyOf: builtAddon() })
  writeFileSync(path.join(folder, 'package.json'), JSON.stringify({ ...own, version: '99.0.0' }))
  const { code, message } = await load()
  t.is(code, 'ERR_BUS_INTERNAL')
  t.is(
    message,
    `elbus-node 99.0.0 found a binary of version ${own.version} for ${here}: ` +
      'run "npm install elbus-node@99.0.0" on this machine, optional dependencies included',
  )
})

test('where there is none, the platforms are named', async (t) => {
  const { load } = packageCopy(t)
  for (const [platform, arch, named] of [
    ['sunos', 'x64', 'sunos-x64'],
    ['linux', 'riscv64', /^linux-riscv64-(gnu|musl)$/],
    ['win32', 'arm64', 'win32-arm64-msvc'],
  ] as const) {
    const { code, message = '' } = await load(
      `Object.defineProperty(process, 'platform', { value: '${platform}' })
       Object.defineProperty(process, 'arch', { value: '${arch}' })`,
    )
    t.is(code, 'ERR_BUS_INTERNAL', platform)
    const [, said = ''] = message.match(/^elbus-node has no binary for (\S+): there is one for /) ?? []
    if (typeof named === 'string') t.is(said, named)
    else t.regex(said, named)
    for (const [folder] of Object.values(PLATFORMS)) t.true(message.includes(folder), message)
  }
})

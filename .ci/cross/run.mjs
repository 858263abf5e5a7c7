// `npm run build:cross`: builds the addon for every Linux target and the static servers, packs them as they are published,
// installs each package from a registry on loopback into an empty folder, and runs what users run with the Node.js of
// that platform. Ends with a table and `N passed, N failed`. For x86-64 Debian; all that is downloaded or built stays
// under .cache/cross. Tarballs and servers are in .cache/cross/packages and .cache/cross/artefacts.
//
//   --targets A,B   folders of npm/, as linux-x64-musl; all of them unless given
//   --build-only    nothing is run, for a machine without the rights to
import { spawnSync } from 'node:child_process'
import { rmSync } from 'node:fs'
import path from 'node:path'
import process from 'node:process'
import { parseArgs } from 'node:util'
import { pack } from '../pack.mjs'
import { fail, prepareNpm, root } from '../prerequisites.mjs'
import { inspectAddon, inspectServer } from './artefact.mjs'
import { buildAddon, buildServer, env } from './build.mjs'
import { artefacts, cross, must, toolchain } from './environment.mjs'
import { prepareNode } from './nodes.mjs'
import { Installation, rights } from './programs.mjs'
import { msgpack, startRegistry } from './registry.mjs'
import { tryServer } from './servers.mjs'
import { TARGETS } from './targets.mjs'
import { Trial } from './trial.mjs'

function options() {
  try {
    const { values } = parseArgs({
      options: { targets: { type: 'string' }, 'build-only': { type: 'boolean' } },
    })
    const folders = TARGETS.map(({ folder }) => folder)
    const wanted = values.targets?.split(',') ?? folders
    const unknown = wanted.filter((name) => !folders.includes(name))
    if (unknown.length > 0)
      throw new Error(`no target ${unknown.join(', ')}: there are ${folders.join(', ')}`)
    return {
      targets: TARGETS.filter(({ folder }) => wanted.includes(folder)),
      buildOnly: values['build-only'],
    }
  } catch (error) {
    return fail(error.message)
  }
}

const { targets, buildOnly } = options()
const begin = Date.now()
const trial = new Trial()

function say(text) {
  console.log(`[${String(Math.round((Date.now() - begin) / 1000)).padStart(4)} s] ${text}`)
}

const table = []

/** Installs and runs on each Node.js of a target. */
async function runTarget(target, registry) {
  const installation = new Installation(target)
  await trial.install(installation, target, registry)
  const row = { versions: [], passed: 0, failed: 0 }
  for (const line of target.nodes.lines) {
    const version = await installation.use(await prepareNode(target, line))
    const { passed, failed } = await trial.run(installation, `${target.folder}, Node.js ${version}`)
    row.passed += passed
    row.failed += failed
    row.versions.push(version)
    say(`${target.folder}, Node.js ${version}: ${passed} passed, ${failed} failed`)
  }
  return row
}

try {
  requireTools()
  prepareNpm()
  await must('bash', [path.join(root, '.ci', 'cross', 'toolchain.sh'), toolchain], { onLine: say })
  const nodes = buildOnly
    ? []
    : targets.flatMap((target) => target.nodes.lines.map((line) => prepareNode(target, line)))
  // Beside the compiler, which needs no network by then.
  const downloads = Promise.all(nodes)
  downloads.catch(() => undefined)

  // What is left of files that are gone would be packed.
  for (const folder of ['dist', 'dist-examples'])
    rmSync(path.join(root, folder), { recursive: true, force: true })
  for (const name of ['build:ts', 'build:examples']) await must('npm', ['run', '--silent', name])
  rmSync(artefacts, { recursive: true, force: true })
  const rows = new Map()
  for (const target of targets) {
    const { size, floor, problems } = await inspectAddon(await buildAddon(target), target)
    trial.check(problems.length === 0, problems.join('; '))
    rows.set(target, { size, floor })
    say(`addon for ${target.folder}: ${mebibytes(size)}`)
  }
  const servers = []
  for (const target of targets.filter(({ server }) => server)) {
    const file = await buildServer(target)
    const { size, problems } = await inspectServer(file, target)
    trial.check(problems.length === 0, problems.join('; '))
    servers.push({ target, file, size })
    say(`elbusd for ${target.folder}: ${mebibytes(size)}`)
  }

  const partial = true
  const tarballs = await pack({ addons: artefacts, out: path.join(cross, 'packages'), partial, env })
  say(`packed: ${tarballs.map((file) => path.basename(file)).join(', ')}`)
  if (!buildOnly) {
    await downloads
    const registry = await startRegistry([...tarballs, await msgpack(path.join(cross, 'packages'))])
    try {
      for (const target of targets) Object.assign(rows.get(target), await runTarget(target, registry.url))
    } finally {
      registry.close()
    }
    const here = targets.find(({ folder }) => folder === 'linux-x64-gnu')
    const client = here && new Installation(here).package()
    if (servers.length > 0 && !here) console.log('skipped: no client uses the servers without linux-x64-gnu')
    for (const server of servers) {
      const { startMs, problems } = await tryServer(server.file, server.target, client)
      trial.check(problems.length === 0, problems.join('; '))
      server.startMs = startMs
    }
  }
  for (const target of targets) {
    const { size, floor, versions = [], passed = 0, failed = 0 } = rows.get(target)
    const libc = floor ? `glibc ${floor}` : 'musl'
    table.push([
      target.triple,
      mebibytes(size),
      libc,
      versions.join(', ') || 'not run',
      `${passed} of ${passed + failed}`,
    ])
  }
  print(['target', 'size', 'C library from', 'Node.js', 'tests passed'], table)
  print(
    ['elbusd', 'size', 'starts in'],
    servers.map(({ target, size, startMs }) => [
      target.triple,
      mebibytes(size),
      startMs === undefined ? 'not run' : `${startMs.toFixed(1)} ms${target.emulator ? ', emulated' : ''}`,
    ]),
  )
} catch (error) {
  trial.check(false, error.message)
}
say('done')
console.log(`${trial.passed} passed, ${trial.failed} failed`)
process.exitCode = trial.failed === 0 ? 0 : 1

/** Ends with a line that names the first tool that is missing. */
function requireTools() {
  const debian = 'this runs on Debian, whose packages bring the compiler and the C libraries'
  const tools = [
    [['dpkg-deb', '--version'], debian],
    [['apt-get', '--version'], debian],
    [['python3', '-c', 'import ensurepip, venv'], 'apt-get install python3-venv'],
    [['readelf', '--version'], 'apt-get install binutils'],
    [['cc', '--version'], 'apt-get install gcc libc6-dev'],
  ]
  if (process.arch !== 'x64') throw new Error(`this runs on x64, not on ${process.arch}`)
  for (const [[command, ...args], remedy] of tools) {
    if (spawnSync(command, args).status !== 0) throw new Error(`${command} is missing: ${remedy}`)
  }
  if (!buildOnly && spawnSync('unshare', [...rights(), '--mount', 'true']).status !== 0) {
    throw new Error(
      'programs for musl need a namespace of their own, which unshare cannot make: root, or --build-only',
    )
  }
}

function mebibytes(bytes) {
  return `${(bytes / (1 << 20)).toFixed(2)} MiB`
}

function print(header, rows) {
  const all = [header, ...rows]
  const widths = header.map((_, column) => Math.max(...all.map((row) => row[column].length)))
  console.log()
  for (const row of all)
    console.log(
      row
        .map((cell, column) => cell.padEnd(widths[column]))
        .join('  ')
        .trimEnd(),
    )
}

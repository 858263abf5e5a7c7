// `npm run build:cross`: builds the addon for every Linux target and the static servers, packs them as they are published,
// installs each package from a registry on loopback into an empty folder, and runs what users run with the Node.js of
// that platform. Ends with a table and `N passed, N failed`. For x86-64 Debian; all that is downloaded or built stays
// under .cache/cross. Tarballs and servers are in .cache/cross/packages and .cache/cross/artefacts.
//
//   --targets A,B   folders of npm/, as linux-x64-musl; all of them unless given
//   --build-only    nothing is run, for a machine without the rights to
import { existsSync, rmSync } from 'node:fs'
import path from 'node:path'
import process from 'node:process'
import { parseArgs } from 'node:util'
import { pack } from '../pack.mjs'
import { fail, prepareNpm } from '../prerequisites.mjs'
import { inspectAddon, inspectServer } from './artefact.mjs'
import { buildAddon, buildServer } from './build.mjs'
import { artefacts, cross, must, root, toolchain } from './environment.mjs'
import { prepareNode } from './nodes.mjs'
import { Installation } from './programs.mjs'
import { startRegistry } from './registry.mjs'
import { tryServer } from './servers.mjs'
import { TARGETS } from './targets.mjs'

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
const total = { passed: 0, failed: 0 }

function say(text) {
  console.log(`[${String(Math.round((Date.now() - begin) / 1000)).padStart(4)} s] ${text}`)
}

/** Counts one check. */
function check(good, what) {
  total[good ? 'passed' : 'failed'] += 1
  if (!good) console.log(`FAILED ${what}`)
  return good
}

/** Runs a program of smoke.mjs's kind and counts as it does; returns `{ passed, failed }`. */
async function count(title, result) {
  const { ok, status, output } = await result
  const [, passed, failed] = output.match(/^(\d+) passed, (\d+) failed$/m) ?? []
  const counts = { passed: Number(passed ?? 0), failed: Number(failed ?? 0) }
  // It may also have ended before it could say so, or not have ended.
  if (!ok && counts.failed === 0) counts.failed = 1
  if (ok && counts.passed === 0) counts.failed = 1
  total.passed += counts.passed
  total.failed += counts.failed
  if (counts.failed > 0) console.log(`FAILED ${title}, status ${status}:\n${output}`)
  return counts
}

/** The tour says itself whether everything arrived. */
async function tour(title, result) {
  const { ok, status, output } = await result
  const good = ok && output.includes('the tour is over, the broker closed')
  check(good, `${title}, status ${status}:\n${output}`)
  return { passed: Number(good), failed: Number(!good) }
}

const table = []

async function runTarget(target, registry) {
  const installation = new Installation(target)
  const packages = await installation.install(registry)
  const wanted = ['@msgpack/msgpack', 'elbus-node', `elbus-node-${target.folder}`]
  check(packages.join() === wanted.join(), `npm install brought ${packages.join(', ')} for ${target.folder}`)
  const row = { versions: [], passed: 0, failed: 0 }
  for (const line of target.nodes.lines) {
    const version = await installation.use(await prepareNode(target, line))
    const title = `${target.folder}, Node.js ${version}`
    const results = [
      await count(`${title}, smoke`, installation.run(['./smoke.mjs'])),
      await count(`${title}, --secure-heap`, installation.run(['./smoke.mjs'], { flags: SECURE_HEAP })),
      await tour(`${title}, tour`, installation.run(['./tour.js', '--once'])),
    ]
    for (const { passed, failed } of results) {
      row.passed += passed
      row.failed += failed
    }
    row.versions.push(version)
    say(`${title}: ${results.map(({ passed, failed }) => `${passed} passed, ${failed} failed`).join('; ')}`)
  }
  return row
}

const SECURE_HEAP = ['--secure-heap=65536', '--secure-heap-min=2']

try {
  if (!existsSync('/usr/bin/dpkg')) throw new Error('this needs Debian: its packages are the compiler')
  prepareNpm()
  for (const part of ['toolchain.sh']) {
    await must('bash', [path.join(root, '.ci', 'cross', part), toolchain], { onLine: (line) => say(line) })
  }
  const nodes = buildOnly
    ? []
    : targets.flatMap((target) => target.nodes.lines.map((line) => prepareNode(target, line)))
  // Beside the compiler, which needs no network by then.
  const downloads = Promise.all(nodes)
  downloads.catch(() => undefined)

  for (const name of ['build:ts', 'build:examples']) await must('npm', ['run', '--silent', name])
  rmSync(artefacts, { recursive: true, force: true })
  const rows = new Map()
  for (const target of targets) {
    const { size, floor, problems } = await inspectAddon(await buildAddon(target), target)
    check(problems.length === 0, problems.join('; '))
    rows.set(target, { size, floor })
    say(`addon for ${target.folder}: ${mebibytes(size)}`)
  }
  const servers = []
  for (const target of targets.filter(({ server }) => server)) {
    const file = await buildServer(target)
    const { size, problems } = await inspectServer(file, target)
    check(problems.length === 0, problems.join('; '))
    servers.push({ target, file, size })
    say(`elbusd for ${target.folder}: ${mebibytes(size)}`)
  }

  const partial = true
  const tarballs = await pack({ addons: artefacts, out: path.join(cross, 'packages'), partial })
  say(`packed: ${tarballs.map((file) => path.basename(file)).join(', ')}`)
  if (!buildOnly) {
    await downloads
    const registry = await startRegistry([...tarballs, await msgpack()])
    try {
      for (const target of targets) Object.assign(rows.get(target), await runTarget(target, registry.url))
    } finally {
      registry.close()
    }
    for (const server of servers) {
      const { startMs, problems } = await tryServer(server.file, server.target)
      check(problems.length === 0, problems.join('; '))
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
  check(false, error.message)
}
say('done')
console.log(`${total.passed} passed, ${total.failed} failed`)
process.exitCode = total.failed === 0 ? 0 : 1

/** The one package that ours depends on, as installed here. */
async function msgpack() {
  const place = path.join(root, 'node_modules', '@msgpack', 'msgpack')
  const out = path.join(cross, 'packages')
  const said = await must(
    'npm',
    ['pack', '--json', '--loglevel=error', '--ignore-scripts', '--pack-destination', out],
    { cwd: place },
  )
  return path.join(out, JSON.parse(said.slice(said.indexOf('[')))[0].filename)
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

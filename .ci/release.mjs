// `node .ci/release.mjs TAG [--publish]`: whether all packages of a release are complete and of the tag's version, after
// `napi artifacts` and `napi prepublish`; with `--publish` they go to the registry, those of the platforms first: the
// main package names them.
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import path from 'node:path'
import process from 'node:process'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const read = (folder) => JSON.parse(readFileSync(path.join(root, folder, 'package.json'), 'utf8'))

const [tag, ...more] = process.argv.slice(2)
if (tag === undefined || more.some((argument) => argument !== '--publish')) {
  console.error('usage: node .ci/release.mjs TAG [--publish]')
  process.exit(2)
}
const version = tag.replace(/^v/, '')
const main = read('.')
const folders = readdirSync(path.join(root, 'npm'), { withFileTypes: true })
  .filter((entry) => entry.isDirectory())
  .map((entry) => path.join('npm', entry.name))

const problems = []
function expect(good, text) {
  if (!good) problems.push(text)
}

expect(tag === `v${main.version}`, `the tag is ${tag}, package.json says ${main.version}`)
expect(main.private !== true, 'package.json is marked private')
expect(existsSync(path.join(root, main.main)), `${main.main} is missing: npm run build:ts`)
expect(
  folders.length === main.napi.targets.length,
  `${folders.length} folders in npm/ for ${main.napi.targets.length} targets`,
)
for (const folder of folders) {
  const platform = read(folder)
  const binary = path.join(root, folder, platform.main)
  expect(platform.version === version, `${folder}: version ${platform.version}`)
  expect(platform.private !== true, `${folder} is marked private`)
  expect(existsSync(binary) && statSync(binary).size > 0, `${folder}: ${platform.main} is missing`)
  expect(
    main.optionalDependencies?.[platform.name] === version,
    `${platform.name}@${version} is not among the optionalDependencies`,
  )
  expect(platform.name.startsWith(main.name), `${folder}: the name is ${platform.name}`)
}
for (const folder of ['.', ...folders]) {
  // Provenance is refused without it.
  expect(read(folder).repository !== undefined, `${folder}: package.json does not name its repository`)
}
if (problems.length > 0) {
  for (const problem of problems) console.error(problem)
  process.exit(1)
}
console.log(`${folders.length + 1} packages of ${version} are complete`)
if (more.length === 0) process.exit(0)

/** True if this version is there already: a release that failed half-way is run again. */
function isPublished(name) {
  const { stdout } = spawnSync('npm', ['view', `${name}@${version}`, 'version'], {
    cwd: root,
    encoding: 'utf8',
  })
  return stdout?.trim() === version
}

for (const folder of [...folders, '.']) {
  const { name } = read(folder)
  if (isPublished(name)) {
    console.log(`${name}@${version} is there already`)
    continue
  }
  const args = ['publish', `./${folder}`, '--provenance', '--access', 'public', '--ignore-scripts']
  const { status } = spawnSync('npm', args, { cwd: root, stdio: 'inherit' })
  if (status !== 0) process.exit(1)
}

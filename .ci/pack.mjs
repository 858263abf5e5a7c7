// `node .ci/pack.mjs --addons FOLDER --out FOLDER`: the tarballs that are published, of the package and of each platform.
//
// FOLDER holds the `.node` files of all platforms, in whatever sub-folders; with `--partial` only those it holds are
// packed and named. `--tag vX.Y.Z` has to be the version. The package is put together beside the repository: the one in
// it is private, has no platform packages as dependencies (`npm ci` would fail on names that are not published) and
// keeps its scripts to itself.
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import path from 'node:path'
import process from 'node:process'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { must } from './cross/environment.mjs'
import { fail, root } from './prerequisites.mjs'

const read = (file) => JSON.parse(readFileSync(file, 'utf8'))
const write = (file, value) => writeFileSync(file, `${JSON.stringify(value, null, 2)}\n`)

/** The folders of npm/, one for each platform. */
export function platformFolders() {
  const entries = readdirSync(path.join(root, 'npm'), { withFileTypes: true })
  return entries.filter((entry) => entry.isDirectory()).map(({ name }) => name)
}

/**
 * The paths of the tarballs, that of the package itself last, so that all it depends on is there when it is published.
 * `env` is for cargo. Other tarballs in `out` are removed.
 */
export async function pack({ addons, out: where, partial = false, tag, env }) {
  // Here, because what calls this may have to install it first.
  const { parseTriple } = await import('@napi-rs/cli')
  const out = path.resolve(where)
  const found = files(addons)
  const wanted = platformFolders().filter((name) => !partial || found.has(addonOf(name)))
  const missing = wanted.filter((name) => !found.has(addonOf(name)))
  if (missing.length > 0) throw new Error(`there is no ${missing.map(addonOf).join(', no ')} in ${addons}`)
  if (wanted.length === 0) throw new Error(`there is no addon in ${addons}`)

  const stage = path.join(root, '.cache', 'stage')
  rmSync(stage, { recursive: true, force: true })
  for (const folder of [stage, out]) mkdirSync(folder, { recursive: true })
  for (const old of readdirSync(out).filter((file) => file.endsWith('.tgz'))) rmSync(path.join(out, old))

  const manifest = read(path.join(root, 'package.json'))
  const { name, version } = manifest
  if (tag !== undefined && tag !== `v${version}`)
    throw new Error(`the tag is ${tag} and the version ${version}`)
  await must(process.execPath, [path.join(root, '.ci', 'licences.mjs'), path.join(stage, 'licences')], {
    env,
  })
  const licences = path.join(stage, 'licences', name, 'THIRD-PARTY-LICENSES')

  for (const file of [...manifest.files, 'README.md', 'LICENSE']) {
    if (!existsSync(path.join(root, file))) throw new Error(`${file} is missing: npm run build`)
    cpSync(path.join(root, file), path.join(stage, file), { recursive: true })
  }
  for (const folder of wanted) {
    const place = path.join(stage, 'npm', folder)
    cpSync(path.join(root, 'npm', folder), place, { recursive: true })
    for (const file of ['LICENSE', licences]) {
      copyFileSync(path.resolve(root, file), path.join(place, path.basename(file)))
    }
    copyFileSync(found.get(addonOf(folder)), path.join(place, addonOf(folder)))
    const own = read(path.join(place, 'package.json'))
    if (own.version !== version) throw new Error(`${own.name} is ${own.version} and ${name} ${version}`)
    // The registry compares it with where the provenance says it was built.
    write(path.join(place, 'package.json'), { ...own, repository: manifest.repository })
  }

  // Its targets say which packages become optional dependencies.
  const targets = manifest.napi.targets.filter((triple) =>
    wanted.includes(parseTriple(triple).platformArchABI),
  )
  write(path.join(stage, 'package.json'), { ...manifest, napi: { ...manifest.napi, targets } })
  const napi = path.join(root, 'node_modules', '.bin', 'napi')
  await must(napi, ['prepublish', '-t', 'npm', '--no-gh-release', '--skip-optional-publish'], { cwd: stage })
  const published = read(path.join(stage, 'package.json'))
  for (const key of ['private', 'scripts', 'devDependencies', 'ava', 'napi']) delete published[key]
  write(path.join(stage, 'package.json'), published)

  const tarballs = []
  for (const folder of wanted) tarballs.push(await tarball(path.join(stage, 'npm', folder), out))
  return [...tarballs, await tarball(stage, out)]
}

const addonOf = (folder) => `elbus-node.${folder}.node`

/** The addons under a folder by name. */
function files(folder) {
  const entries = existsSync(folder) ? readdirSync(folder, { recursive: true, withFileTypes: true }) : []
  const addons = entries.filter((entry) => entry.isFile() && entry.name.endsWith('.node'))
  return new Map(addons.map(({ name, parentPath }) => [name, path.join(parentPath, name)]))
}

async function tarball(place, out) {
  const said = await must('npm', ['pack', '--json', '--loglevel=error', '--pack-destination', out], {
    cwd: place,
  })
  const [{ filename }] = JSON.parse(said.slice(said.indexOf('[')))
  return path.join(out, filename)
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    const { values } = parseArgs({
      options: {
        addons: { type: 'string' },
        out: { type: 'string' },
        partial: { type: 'boolean' },
        tag: { type: 'string' },
      },
    })
    if (!values.addons || !values.out)
      throw new Error('usage: node .ci/pack.mjs --addons FOLDER --out FOLDER [--partial] [--tag vX.Y.Z]')
    for (const file of await pack(values)) console.log(file)
  } catch (error) {
    fail(error.message)
  }
}

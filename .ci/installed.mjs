// What `npm install` gives a user on this platform: packs what `npm run build` has built, installs it from a registry on
// loopback into an empty folder, and runs what users run. Ends with `N passed, N failed`.
import { existsSync, readdirSync } from 'node:fs'
import path from 'node:path'
import process from 'node:process'
import { cross } from './cross/environment.mjs'
import { Installation } from './cross/programs.mjs'
import { msgpack, startRegistry } from './cross/registry.mjs'
import { Trial } from './cross/trial.mjs'
import { pack } from './pack.mjs'
import { fail, root } from './prerequisites.mjs'

const addons = path.join(root, 'npm')
const [addon, another] = existsSync(addons)
  ? readdirSync(addons).filter((name) => name.endsWith('.node'))
  : []
if (addon === undefined) fail('npm/ holds no addon: npm run build')
if (another !== undefined) fail(`npm/ holds ${addon} and ${another}: one is of another platform`)

const target = { folder: addon.split('.')[1], native: true }
const out = path.join(cross, 'installed', 'packages')
const registry = await startRegistry([...(await pack({ addons, out, partial: true })), await msgpack(out)])
const trial = new Trial()
try {
  const installation = new Installation(target)
  await trial.install(installation, target, registry.url)
  await trial.run(installation, `${target.folder}, Node.js ${await installation.use()}`)
} finally {
  registry.close()
}
console.log(`${trial.passed} passed, ${trial.failed} failed`)
process.exitCode = trial.failed === 0 ? 0 : 1

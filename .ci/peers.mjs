// `npm run peers`: installs the programs of the reference projects under .cache/peers, where `npm test` finds them.
import { spawnSync } from 'node:child_process'
import process from 'node:process'
import { peers, requireTools, root } from './prerequisites.mjs'

requireTools()
for (const [name, version] of [
  ['busrt', '0.5.6'],
  ['elbus', '0.2.21'],
]) {
  const options = ['--version', version, '--features', 'server,cli,rpc', '--root', peers.root]
  const { status } = spawnSync('cargo', ['install', name, ...options], { cwd: root, stdio: 'inherit' })
  if (status !== 0) process.exit(status ?? 1)
}

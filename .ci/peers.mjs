// `npm run peers`: installs the programs of the reference projects under .cache/peers, where `npm test` and the benchmark
// find them, and names the servers of the benchmark that a package manager has to install.
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import path from 'node:path'
import process from 'node:process'
import { peers, requireTools, root } from './prerequisites.mjs'

/** Servers by the variable that names another; each is a package of that name on Debian and Ubuntu. */
const SERVERS = { NATS_SERVER: 'nats-server', REDIS_SERVER: 'redis-server', MOSQUITTO: 'mosquitto' }
/** Where Debian keeps servers; not on everybody's PATH. */
const FOLDERS = ['/usr/local/sbin', '/usr/sbin']

requireTools()
for (const [name, version] of [
  ['busrt', '0.5.6'],
  ['elbus', '0.2.21'],
]) {
  const options = ['--version', version, '--features', 'server,cli,rpc', '--root', peers.root]
  const { status } = spawnSync('cargo', ['install', name, ...options], { cwd: root, stdio: 'inherit' })
  if (status !== 0) process.exit(status ?? 1)
}

const folders = [...(process.env.PATH ?? '').split(path.delimiter), ...FOLDERS]
const missing = Object.entries(SERVERS).filter(
  ([variable, name]) =>
    !process.env[variable] && !folders.some((folder) => folder && existsSync(path.join(folder, name))),
)
if (missing.length > 0) {
  const names = missing.map(([, name]) => name).join(' ')
  const variables = missing.map(([variable]) => variable).join(', ')
  console.log(`the benchmark goes without ${names}: on Debian and Ubuntu apt-get install ${names}`)
  console.log(`or name them with ${variables}`)
}

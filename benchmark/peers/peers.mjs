// Every contestant of the loads between processes: what it needs, how its far side is started, what it cannot do.
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import process from 'node:process'
import { fileURLToPath } from 'node:url'
import { freePort } from '../actor.mjs'

const folder = path.dirname(fileURLToPath(import.meta.url))
const HOST = '127.0.0.1'

/** Where a peer listens. */
async function freeAddress(stage, transport) {
  if (transport === 'unix') {
    const socket = stage.socketPath()
    return { text: `unix:${socket}`, where: { path: socket } }
  }
  const port = await freePort()
  return { text: `tcp://${HOST}:${port}`, where: { host: HOST, port } }
}

/** A server of somebody else's, on TCP. */
async function server(stage, client, command, args) {
  const at = await freeAddress(stage, 'tcp')
  const pid = await stage.spawn(command, await args(at.where.port), at.where)
  return { client, pid, address: at.text }
}

/** A broker in a Node process of its own: a module here whose `listen` takes what it listens at. */
async function inNode(stage, client, module, listen, address) {
  const actor = stage.start('far-side.mjs', { module, listen })
  await actor.next('ready')
  return { client, pid: actor.pid, address }
}

const tcpMqtt = { transports: ['tcp'], client: 'mqtt' }

/**
 * By the name `--peers` takes. `packages` are folders here with a lockfile of their own; `server` is a program that has
 * to be there. `start` gives the client's module, an address, the process of the far side if there is one, and `isOrdered`
 * where who is called has to be there before the caller. `isDirect`: there is no far side, and one process starts the
 * other.
 */
export const peers = {
  embedded: {
    transports: ['unix', 'tcp'],
    async start(stage, transport) {
      const at = await freeAddress(stage, transport)
      const broker = stage.start('broker.mjs', { listen: [at.text] })
      await broker.next('ready')
      return { client: 'elbus', pid: broker.pid, address: at.text }
    },
  },
  elbusd: {
    transports: ['unix', 'tcp'],
    async start(stage, transport, { elbusd }) {
      const at = await freeAddress(stage, transport)
      const listen = at.where.path ?? `${HOST}:${at.where.port}`
      const pid = await stage.spawn(elbusd, ['-B', listen, '-w', '2'], at.where)
      return { client: 'elbus', pid, address: at.text }
    },
  },
  hub: {
    transports: ['unix', 'tcp'],
    async start(stage, transport) {
      const at = await freeAddress(stage, transport)
      return inNode(stage, 'hub', 'hub.mjs', [at.where], at.text)
    },
  },
  nats: {
    transports: ['tcp'],
    packages: ['nats'],
    server: {
      commands: ['nats-server', '/usr/sbin/nats-server'],
      variable: 'NATS_SERVER',
      package: 'nats-server',
    },
    start: (stage, _transport, { servers }) =>
      server(stage, 'nats', servers.nats, (port) => ['-a', HOST, '-p', String(port)]),
  },
  redis: {
    transports: ['tcp'],
    packages: ['redis'],
    server: { commands: ['redis-server'], variable: 'REDIS_SERVER', package: 'redis-server' },
    start: (stage, _transport, { servers }) =>
      server(stage, 'redis', servers.redis, (port) => [
        ...['--port', String(port), '--bind', HOST],
        ...['--save', '', '--appendonly', 'no'],
      ]),
  },
  mosquitto: {
    ...tcpMqtt,
    packages: ['mqtt'],
    server: {
      commands: ['mosquitto', '/usr/sbin/mosquitto'],
      variable: 'MOSQUITTO',
      package: 'mosquitto',
      // It has no option for its version alone; its help begins with it, and ends with 3.
      version: ['-h'],
    },
    start: (stage, _transport, { servers }) =>
      server(stage, 'mqtt', servers.mosquitto, (port) => {
        const file = stage.filePath('mosquitto.conf')
        const lines = [
          `listener ${port} ${HOST}`,
          'allow_anonymous true',
          'set_tcp_nodelay true',
          'max_queued_messages 0',
          'log_dest none',
        ]
        // It would become another user, for whom nothing here is meant.
        if (process.getuid?.() === 0) lines.push('user root')
        writeFileSync(file, `${lines.join('\n')}\n`)
        return ['-c', file]
      }),
  },
  aedes: {
    ...tcpMqtt,
    packages: ['mqtt', 'aedes'],
    async start(stage) {
      const at = await freeAddress(stage, 'tcp')
      return inNode(stage, 'mqtt', 'aedes/broker.mjs', [at.where], at.text)
    },
  },
  zeromq: {
    transports: ['tcp'],
    packages: ['zeromq'],
    async start(stage) {
      const addresses = []
      // Where publications go in, where they come out, and where one peer listens for another.
      for (let count = 0; count < 3; count += 1) addresses.push(`tcp://${HOST}:${await freePort()}`)
      return inNode(stage, 'zeromq', 'zeromq/proxy.mjs', addresses.slice(0, 2), addresses.join(' '))
    },
  },
  moleculer: {
    transports: ['tcp'],
    packages: ['moleculer'],
    async start() {
      // A node that finds nobody at an address when it starts does not look there again for long.
      return { client: 'moleculer', address: `${HOST}:${await freePort()}`, isOrdered: true }
    },
  },
  'process.send': {
    isDirect: true,
    start: async () => ({ client: 'process-send' }),
  },
  MessagePort: {
    isDirect: true,
    start: async () => ({ client: 'message-port' }),
  },
}

/** Starts the far side of a contestant, such as `hub tcp`. */
export async function startFarSide(stage, contestant, options) {
  const [name, transport] = contestant.split(' ')
  const { isDirect = false, start } = peers[name]
  return { ...(await start(stage, transport, options)), isDirect }
}

/** First line of what a program says of its version, or undefined if there is none. */
function versionOf(command, args) {
  const { error, stdout, stderr } = spawnSync(command, args, { encoding: 'utf8' })
  return error ? undefined : `${stdout}${stderr}`.split('\n', 1)[0].trim()
}

/** The first of the commands that is there, with its version. */
function findServer({ commands, variable, version = ['--version'] }) {
  for (const command of [process.env[variable], ...commands]) {
    const found = command && versionOf(command, version)
    if (found) return { command, version: found }
  }
  return undefined
}

/** The dependencies of a folder here, with the versions that are installed. */
function installed(name) {
  const { dependencies } = JSON.parse(readFileSync(path.join(folder, name, 'package.json'), 'utf8'))
  const found = {}
  for (const [dependency, wanted] of Object.entries(dependencies)) {
    const file = path.join(folder, name, 'node_modules', dependency, 'package.json')
    if (!existsSync(file) || JSON.parse(readFileSync(file, 'utf8')).version !== wanted) return undefined
    found[dependency] = wanted
  }
  return found
}

/** Installs a folder here where it is not; why it could not, or undefined. None of them needs its install script. */
function install(name) {
  if (installed(name) === undefined) {
    console.error(`installing benchmark/peers/${name}`)
    const args = ['ci', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error']
    const { status, stderr } = spawnSync('npm', args, { cwd: path.join(folder, name), encoding: 'utf8' })
    if (status !== 0) {
      const reason =
        stderr?.match(/^npm error (?!code |errno |syscall )(.+)$/m)?.[1] ?? 'npm could not be started'
      return `npm ci in benchmark/peers/${name} failed: ${reason}`
    }
  }
  // A package may be there and yet not run here: for want of a binary for this system, say.
  const imports = Object.keys(installed(name) ?? {}).map((dependency) => `import '${dependency}'`)
  const probe = ['--input-type=module', '--eval', imports.join('\n')]
  const { status, stderr } = spawnSync(process.execPath, probe, {
    cwd: path.join(folder, name),
    encoding: 'utf8',
  })
  if (status === 0) return undefined
  return `benchmark/peers/${name} does not load: ${stderr.match(/^\w*Error.*$/m)?.[0] ?? 'no reason given'}`
}

/**
 * Looks for what the named peers need and installs what npm has. Gives `servers` by name, `versions` of what was found,
 * and `missing`: why a peer cannot be measured, with what to do about it.
 */
export function preparePeers(names, { elbusd }) {
  const servers = {}
  const versions = {}
  const missing = {}
  for (const name of names) {
    const { server, packages = [] } = peers[name]
    if (name === 'elbusd' && !elbusd) missing[name] = 'elbusd is not built, and ELBUSD names none'
    if (server !== undefined) {
      const found = findServer(server)
      if (found === undefined) {
        const { package: debian, variable } = server
        missing[name] =
          `${debian} is missing: on Debian and Ubuntu apt-get install ${debian}, or ${variable} names it`
        continue
      }
      servers[name] = found.command
      versions[`${name} server`] = found.version
    }
    for (const one of packages) {
      missing[name] ??= install(one)
      Object.assign(versions, installed(one))
    }
    if (missing[name] === undefined) delete missing[name]
  }
  return { servers, versions, missing }
}

// A user's program on each platform: an empty folder, `npm install elbus-node`, and Node.js of that platform.
import { copyFileSync, cpSync, linkSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import process from 'node:process'
import { root } from '../prerequisites.mjs'
import { cross, must, run, toolchain } from './environment.mjs'

/** What a user writes: the tour, and the checks of smoke.mjs and threads.mjs. */
const PROGRAMS = [
  ...['tour.js', 'tour-client.js', 'tour-participant.js'].map((name) => path.join('dist-examples', name)),
  ...['smoke.mjs', 'threads.mjs', 'emulated.cjs'].map((name) => path.join('.ci', 'cross', name)),
]
/** Emulated it takes ten times as long. */
const TIMEOUT_MS = 240_000

/** What lets unshare work without being root: being root of the namespace. */
export function rights() {
  return process.getuid() === 0 ? [] : ['--map-root-user']
}

/** A folder with the package installed for a target, and how its programs are run there; `native` is what runs this. */
export class Installation {
  #target
  /** The folder that is `/` for musl, whose loader is found by where the C library lies. */
  #place
  #app
  #node

  constructor(target) {
    this.#target = target
    this.#place = path.join(cross, 'installed', target.folder)
    this.#app = path.join(this.#place, 'app')
  }

  /** Installs from a registry, as on the platform itself. Returns the names of the packages that came. */
  async install(registry) {
    rmSync(this.#place, { recursive: true, force: true })
    mkdirSync(this.#app, { recursive: true })
    writeFileSync(path.join(this.#app, 'package.json'), '{ "private": true }\n')
    // A cache of its own: the same version was another one in the last run.
    const own = ['--registry', registry, '--cache', path.join(this.#place, 'cache')]
    const quiet = ['--no-audit', '--no-fund', '--loglevel=error']
    await must('npm', ['install', ...own, ...this.#platform(), ...quiet, 'elbus-node'], { cwd: this.#app })
    for (const program of PROGRAMS) {
      copyFileSync(path.join(root, program), path.join(this.#app, path.basename(program)))
    }
    const modules = path.join(this.#app, 'node_modules')
    const names = readdirSync(modules).flatMap((name) =>
      name.startsWith('@')
        ? readdirSync(path.join(modules, name)).map((inner) => `${name}/${inner}`)
        : [name],
    )
    return names.filter((name) => !name.startsWith('.')).sort()
  }

  /** The package as a program of this machine loads it. */
  package() {
    return createRequire(path.join(this.#app, 'package.json'))('elbus-node')
  }

  /** The version of a Node.js, which from now on runs the programs. */
  async use(node) {
    this.#node = node
    if (this.#isMusl) this.#makeRoot(node)
    const { ok, output } = await this.run(['--version'])
    if (!ok) throw new Error(`${node ?? process.execPath} does not run here: ${output.trim()}`)
    return output.trim().replace(/^v/, '')
  }

  /** Runs Node.js with these arguments, `./` being the folder of the app. */
  run(args, { onLine, flags = [] } = {}) {
    const inside = this.#isMusl ? '/app' : this.#app
    const emulator = this.#emulator()
    const node = this.#isMusl
      ? '/bin/node'
      : this.#target.native
        ? process.execPath
        : path.join(this.#node, 'node')
    const command = [
      ...emulator,
      node,
      ...flags,
      ...args.map((arg) => (arg.startsWith('./') ? `${inside}/${arg.slice(2)}` : arg)),
    ]
    const env = {
      // Its client is a file of the repository.
      ELBUS_PYTHON: undefined,
      ELBUS_NO_PYTHON: 'the published package is alone here',
      TMPDIR: '/tmp',
      // A file of this machine.
      NODE_EXTRA_CA_CERTS: undefined,
      ...(emulator.length > 0 && {
        ELBUS_EMULATOR: JSON.stringify(emulator),
        NODE_OPTIONS: `--require "${inside}/emulated.cjs"`,
      }),
    }
    const options = { env, onLine, cwd: this.#app, timeout: TIMEOUT_MS }
    if (!this.#isMusl) return run(command[0], command.slice(1), options)
    // Names of its own for files alone: /dev and /proc as they are.
    const enter = 'for d in dev proc; do mount --rbind /$d "$0/$d"; done; exec chroot "$0" "$@"'
    return run('unshare', [...rights(), '--mount', 'sh', '-c', enter, this.#place, ...command], options)
  }

  get #isMusl() {
    const { native, glibc } = this.#target
    return !native && glibc === undefined
  }

  /** What npm is to install for, where it is not what runs npm. */
  #platform() {
    const { native, cpu, glibc } = this.#target
    return native ? [] : ['--os=linux', `--cpu=${cpu}`, `--libc=${glibc ? 'glibc' : 'musl'}`]
  }

  /** The emulator with its arguments, as seen by the program; empty where there is none. */
  #emulator() {
    const { emulator, sysroot } = this.#target
    if (emulator === undefined) return []
    if (this.#isMusl) return ['/bin/emulator']
    const folder = path.join(toolchain, 'emulators')
    return [path.join(folder, 'bin', emulator), '-L', path.join(folder, sysroot)]
  }

  /** Node.js, musl's loader and what both need, as in a small system with musl. */
  #makeRoot(node) {
    const { machine, emulator } = this.#target
    for (const folder of ['bin', 'lib', 'usr'])
      rmSync(path.join(this.#place, folder), { recursive: true, force: true })
    for (const folder of ['bin', 'usr', 'dev', 'proc', 'tmp'])
      mkdirSync(path.join(this.#place, folder), { recursive: true })
    linkSync(path.join(node, 'node'), path.join(this.#place, 'bin', 'node'))
    cpSync(path.join(toolchain, 'musl', machine, 'lib'), path.join(this.#place, 'lib'), { recursive: true })
    cpSync(path.join(node, 'lib'), path.join(this.#place, 'usr', 'lib'), { recursive: true })
    if (emulator) {
      copyFileSync(
        path.join(toolchain, 'emulators', 'bin', emulator),
        path.join(this.#place, 'bin', 'emulator'),
      )
    }
  }
}

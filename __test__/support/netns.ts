// Hosts of a test: network namespaces, each with a cable to one switch. What runs on them are scripts of their own.

import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { Script } from './script'
import type { Owner } from './temp'

/** How the namespaces of a process begin; its number follows. */
const PREFIX = 'elbus-'

function tryIp(args: string): string | undefined {
  const { error, status, stderr } = spawnSync('ip', args.split(' '), { encoding: 'utf8' })
  if (error) return `ip cannot be run: ${error.message}`
  return status === 0 ? undefined : `ip ${args}: ${stderr.trim()}`
}

function ip(args: string): void {
  const failure = tryIp(args)
  if (failure) throw new Error(failure)
}

/** Takes down what processes that were killed have left. */
function removeAbandoned(): void {
  const folder = '/run/netns'
  for (const name of existsSync(folder) ? readdirSync(folder) : []) {
    const owner = name.startsWith(PREFIX) ? name.slice(PREFIX.length).split('-')[0] : undefined
    // Another test process may be at the same.
    if (owner && !existsSync(join('/proc', owner))) tryIp(`netns del ${name}`)
  }
}

function lack(): string | undefined {
  if (process.platform !== 'linux' || process.getuid?.() !== 0)
    return 'network namespaces need Linux and root'
  removeAbandoned()
  const name = `${PREFIX}${process.pid}-try`
  const failure =
    tryIp(`netns add ${name}`) ??
    tryIp(`-n ${name} link add br0 type bridge`) ??
    tryIp(`-n ${name} link add x type veth peer name y`)
  tryIp(`netns del ${name}`)
  return failure
}

/**
 * Why there can be no hosts here, for `testIf`; `undefined` if there can. Throws where `ELBUS_REQUIRE` holds `netns`
 * and there is a reason.
 */
export function withoutHosts(): string | undefined {
  const reason = lack()
  if (reason && process.env.ELBUS_REQUIRE?.includes('netns'))
    throw new Error(`no network namespaces: ${reason}`)
  return reason
}

let count = 0

/** Hosts at one switch: number `n`, from 1, has `10.77.0.n` and `fd77::n`. They are gone when the test is over. */
export class Lan {
  readonly #t: Owner
  readonly #switch: string
  readonly #hosts: string[] = []

  constructor(t: Owner, hosts: number) {
    this.#t = t
    this.#switch = this.#add()
    ip(`-n ${this.#switch} link add br0 type bridge`)
    ip(`-n ${this.#switch} link set br0 up`)
    for (let number = 1; number <= hosts; number += 1) {
      const name = this.#add()
      this.#hosts.push(name)
      ip(`-n ${this.#switch} link add port${number} type veth peer name eth0 netns ${name}`)
      ip(`-n ${this.#switch} link set port${number} master br0 up`)
      // Addresses as given and at once: none chosen by the system, no search for duplicates.
      ip(`-n ${name} link set eth0 addrgenmode none up`)
      ip(`-n ${name} addr add 10.77.0.${number}/24 dev eth0`)
      ip(`-n ${name} addr add fd77::${number}/64 dev eth0 nodad`)
    }
  }

  #add(): string {
    count += 1
    const name = `${PREFIX}${process.pid}-${count}`
    ip(`netns add ${name}`)
    this.#t.teardown(() => void tryIp(`netns del ${name}`))
    ip(`-n ${name} link set lo up`)
    return name
  }

  /** Starts a script on a host, which is given by its number. */
  start(host: number, file: string, ...args: string[]): Script {
    const name = this.#hosts[host - 1]
    if (!name) throw new RangeError(`there is no host ${host}`)
    return Script.start(this.#t, file, args, {}, ['ip', 'netns', 'exec', name])
  }

  /** Cuts the cable of a host, at the plug or so far away that neither end notices. */
  cut(host: number, where: 'plug' | 'far'): void {
    ip(`-n ${this.#switch} link set port${host} ${where === 'plug' ? 'down' : 'nomaster'}`)
  }
}

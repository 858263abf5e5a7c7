// What a figure depends on: the machine, the versions, and the CPU time of processes.
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import os from 'node:os'
import process from 'node:process'

const hasScheduler = existsSync('/proc/self/schedstat')

/**
 * Seconds of CPU a process has used, all of its threads together, as the scheduler counts them in nanoseconds.
 * Undefined where the system does not say.
 */
export function cpuSeconds(pid) {
  if (!hasScheduler || !existsSync(`/proc/${pid}/task`)) return undefined
  let nanoseconds = 0
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    try {
      nanoseconds += Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'latin1').split(' ', 1)[0])
    } catch {
      // It has ended since the folder was read.
    }
  }
  return nanoseconds / 1e9
}

/** Bytes of memory a process has resident, or undefined. */
export function residentBytes(pid) {
  try {
    const [, kibibytes] = readFileSync(`/proc/${pid}/status`, 'latin1').match(/^VmRSS:\s+(\d+) kB$/m)
    return Number(kibibytes) * 1024
  } catch {
    return undefined
  }
}

/** Seconds of CPU of this process's main thread alone, or NaN. */
export function threadSeconds() {
  if (!hasScheduler) return Number.NaN
  return Number(readFileSync(`/proc/self/task/${process.pid}/schedstat`, 'latin1').split(' ', 1)[0]) / 1e9
}

function firstLine(command, args) {
  const { error, status, stdout, stderr } = spawnSync(command, args, { encoding: 'utf8' })
  if (error || status !== 0) return undefined
  return `${stdout}${stderr}`.split('\n', 1)[0].trim()
}

/** The machine and the versions behind a run. */
export function machine({ elbusd, versions }) {
  const require = createRequire(import.meta.url)
  return {
    system: `${os.type()} ${os.release().split('.').slice(0, 2).join('.')} ${os.arch()}`,
    cpu: os.cpus()[0]?.model.trim(),
    cpus: os.cpus().length,
    memory: `${Math.round(os.totalmem() / 2 ** 30)} GiB`,
    node: process.version,
    rust: firstLine('rustc', ['--version']),
    elbusNode: require('elbus-node/package.json').version,
    elbusd: elbusd && firstLine(elbusd, ['--version']),
    peers: versions,
  }
}

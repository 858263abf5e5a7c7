// Where things lie, and how programs are started here.
import { spawn } from 'node:child_process'
import path from 'node:path'
import process from 'node:process'
import { root } from '../prerequisites.mjs'

/** Everything that is made, and kept from one run to the next. */
export const cross = path.join(root, '.cache', 'cross')
export const toolchain = path.join(cross, 'toolchain')
/** The `.node` files and servers, as built. */
export const artefacts = path.join(cross, 'artefacts')

/** What runs now. Each is in a group of its own, so that what it started ends with it, and so has to be ended here. */
const running = new Set()
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.on(signal, () => {
    for (const child of running) kill(child)
    process.exit(1)
  })
}

function kill(child) {
  try {
    process.kill(-child.pid, 'SIGKILL')
  } catch {
    // It has ended.
  }
}

/**
 * Runs a program to its end. Resolves with its status and what it printed, both outputs in one; each line also goes to
 * `onLine`. A `timeout` in milliseconds ends it.
 */
export function run(command, args, { cwd = root, env = {}, onLine, timeout } = {}) {
  return new Promise((resolve) => {
    const child = spawn('sh', ['-c', 'exec "$0" "$@" 2>&1', command, ...args], {
      cwd,
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'inherit'],
      detached: true,
    })
    running.add(child)
    let output = ''
    let rest = ''
    child.stdout.setEncoding('utf8').on('data', (text) => {
      output += text
      const lines = (rest + text).split('\n')
      rest = lines.pop()
      if (onLine) for (const line of lines) onLine(line)
    })
    const timer = timeout && setTimeout(() => kill(child), timeout)
    child.on('close', (status, signal) => {
      clearTimeout(timer)
      running.delete(child)
      resolve({ ok: status === 0, status: status ?? signal, output })
    })
  })
}

/** The same for what has to work; throws the end of what it printed. */
export async function must(command, args, options) {
  const result = await run(command, args, options)
  if (!result.ok) {
    const tail = result.output.trimEnd().split('\n').slice(-40).join('\n')
    throw new Error(`${[command, ...args].join(' ')}: status ${result.status}\n${tail}`)
  }
  return result.output
}

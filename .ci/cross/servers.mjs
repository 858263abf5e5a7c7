// The stand-alone server as users download it: how long it takes to start, and that a client of this machine can use it.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { toolchain } from './environment.mjs'

const ROUNDS = 9
/** How long a server may take for anything, emulated on a busy machine. */
const LONG_MS = 60_000

/**
 * `{ startMs, problems }`: the median time from its start until it listens, and what did not work. `client` is the package
 * for this machine, if it is there.
 */
export async function tryServer(file, { emulator }, client) {
  const command = emulator ? [path.join(toolchain, 'emulators', 'bin', emulator), file] : [file]
  const times = []
  const problems = []
  for (let round = 0; round < ROUNDS; round += 1) {
    const folder = mkdtempSync(path.join(tmpdir(), 'elbus-'))
    const socket = path.join(folder, 'bus.sock')
    const start = performance.now()
    const child = spawn(command[0], [...command.slice(1), '-B', socket], {
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    const ended = once(child, 'exit')
    const timer = setTimeout(() => child.kill('SIGKILL'), LONG_MS)
    try {
      await listening(child, ended)
      times.push(performance.now() - start)
      if (round === 0 && client) await Promise.race([use(client, socket), over(ended)])
    } catch (error) {
      problems.push(`${path.basename(path.dirname(file))}/elbusd: ${error.message}`)
    }
    child.kill('SIGTERM')
    const [status, signal] = await ended
    clearTimeout(timer)
    if (status !== 0)
      problems.push(`${path.basename(path.dirname(file))}/elbusd ended with ${status ?? signal}`)
    rmSync(folder, { recursive: true, force: true })
    if (problems.length > 0) break
  }
  return { startMs: times.sort((a, b) => a - b)[times.length >> 1], problems }
}

async function listening(child, ended) {
  const said = []
  const lines = [child.stdout, child.stderr].map((input) => createInterface({ input }))
  const seen = new Promise((resolve) => {
    for (const each of lines) {
      each.on('line', (line) => {
        said.push(line)
        if (line.includes('listening on')) resolve(true)
      })
    }
  })
  if ((await Promise.race([seen, ended])) !== true) throw new Error(`it ended at once: ${said.join(' / ')}`)
}

async function over(ended) {
  const [status, signal] = await ended
  throw new Error(`it ended with ${status ?? signal} while it was used`)
}

/** A call, a publication and an acknowledged message through it. */
async function use({ connect }, socket) {
  const [a, b] = [await connect(socket, { name: 'a' }), await connect(socket, { name: 'b' })]
  const news = b.subscribe('news/#')
  await news.ready
  await a.publish('news/today', 'it works', { ack: true })
  const { value } = await news[Symbol.asyncIterator]().next()
  if (value.text() !== 'it works') throw new Error(`a publication arrived as ${value.text()}`)
  const { ok } = await a.call('.broker', 'test')
  if (ok !== true) throw new Error('.broker does not answer')
  await Promise.all([a.close(), b.close()])
}

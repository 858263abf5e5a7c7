// The stand-alone server as users download it: how long it takes to start, and that a client of this machine can use it.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { root, toolchain } from './environment.mjs'

const ROUNDS = 9

/** `{ startMs, problems }`: the median time from its start until it listens, and what did not work. */
export async function tryServer(file, { emulator }) {
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
    try {
      await listening(child, ended)
      times.push(performance.now() - start)
      if (round === 0) await use(socket)
    } catch (error) {
      problems.push(`${path.basename(path.dirname(file))}/elbusd: ${error.message}`)
    }
    child.kill('SIGTERM')
    const [status, signal] = await ended
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

/** A call, a publication and an acknowledged message through it. */
async function use(socket) {
  const { connect } = createRequire(path.join(root, 'package.json'))('elbus-node')
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

// `npm start`: builds the tour and runs it. Arguments go to it: `npm start -- --once` ends by itself.
import { spawn, spawnSync } from 'node:child_process'
import path from 'node:path'
import process from 'node:process'
import { preparePython, requireTools, root } from './prerequisites.mjs'

requireTools()
const { python, reason } = preparePython()

const build = ['build', '--release', '--locked', '-p', 'elbus', '--features', 'server,rpc', '--bin', 'elbusd', '--example', 'tour']
const built = spawnSync('cargo', build, { cwd: root, stdio: 'inherit' })
if (built.status !== 0) process.exit(built.status ?? 1)

const target = process.env.CARGO_TARGET_DIR ?? path.join(root, 'target')
const env = { ...process.env, ...(python ? { ELBUS_PYTHON: python } : { ELBUS_NO_PYTHON: reason }) }
const tour = spawn(path.join(target, 'release', 'examples', 'tour'), process.argv.slice(2), { cwd: root, env, stdio: 'inherit' })
// Ctrl-C is the tour's to handle: it closes in good order, and this waits for it.
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => tour.kill(signal))
tour.on('error', (error) => {
  process.stderr.write(`cannot run the tour: ${error.message}\n`)
  process.exitCode = 1
})
tour.on('exit', (code) => {
  process.exitCode = code ?? 1
})

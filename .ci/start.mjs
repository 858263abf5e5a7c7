// `npm start`: sets everything up, builds the addon, the package, elbusd and the examples, and runs the tour.
// Arguments go to it: `npm start -- --once` ends by itself.
import { spawn, spawnSync } from 'node:child_process'
import path from 'node:path'
import process from 'node:process'
import { prepareNpm, preparePython, requireTools, root, target } from './prerequisites.mjs'

function build(command, ...args) {
  const { status } = spawnSync(command, args, { cwd: root, stdio: 'inherit' })
  if (status !== 0) process.exit(status ?? 1)
}

requireTools()
prepareNpm()
const { python, reason } = preparePython()

for (const script of ['build:addon', 'build:ts', 'build:examples']) build('npm', 'run', '--silent', script)
build(
  'cargo',
  'build',
  '--release',
  '--locked',
  '-p',
  'elbusd',
  '--features',
  'server,rpc',
  '--bin',
  'elbusd',
)

const env = {
  ...process.env,
  ELBUSD: process.env.ELBUSD ?? path.join(target, 'release', 'elbusd'),
  ...(python ? { ELBUS_PYTHON: python } : { ELBUS_NO_PYTHON: reason }),
}
const program = path.join(root, 'dist-examples', 'tour.js')
const tour = spawn(process.execPath, [program, ...process.argv.slice(2)], {
  cwd: root,
  env,
  stdio: 'inherit',
})
// Ctrl-C is the tour's to handle: it closes in good order, and this waits for it.
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => tour.kill(signal))
tour.on('error', (error) => {
  process.stderr.write(`cannot run the tour: ${error.message}\n`)
  process.exitCode = 1
})
tour.on('exit', (code) => {
  process.exitCode = code ?? 1
})

// `npm run benchmark`: builds the server and the load generator, finds the peers, and measures them in turns.
// Arguments go to `elbus-loadtest compare`; without any, the loads behind the published table are run.
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))

/** Peers: the variable that names the program, and where `npm run peers` puts it. */
const PEERS = { BUSRTD: 'busrtd', ELBUSD_PEER: 'elbusd' }

function run(program, args, env = process.env) {
  const { status, error } = spawnSync(program, args, { cwd: root, stdio: 'inherit', env })
  if (error) {
    console.error(`benchmark: cannot run ${program}: ${error.message}`)
    process.exit(1)
  }
  if (status !== 0) process.exit(status ?? 1)
}

// One build each: features of one package would otherwise be those of all.
run('cargo', ['build', '--release', '-p', 'elbus', '--features', 'server,rpc', '--bin', 'elbusd'])
run('cargo', ['build', '--release', '-p', 'elbus-loadtest'])

const env = { ...process.env }
for (const [variable, program] of Object.entries(PEERS)) {
  const installed = join(root, '.cache', 'peers', 'bin', program)
  if (!env[variable] && existsSync(installed)) env[variable] = installed
  if (!env[variable]) console.error(`benchmark: ${program} is not installed: \`npm run peers\`, or name it in ${variable}`)
}
const target = env.CARGO_TARGET_DIR ?? join(root, 'target')
run(join(target, 'release', 'elbus-loadtest'), ['compare', ...process.argv.slice(2)], env)

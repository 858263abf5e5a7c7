// `npm run benchmark`: builds the server and the load generator, finds the peers, and measures them in turns.
// Arguments go to `elbus-loadtest compare`; without any, the loads behind the published table are run.
import { spawnSync } from 'node:child_process'
import path from 'node:path'
import process from 'node:process'
import { fail, peers, peerVariables, requireTools, root } from '../.ci/prerequisites.mjs'

function run(program, args, env = process.env) {
  const { status, error } = spawnSync(program, args, { cwd: root, stdio: 'inherit', env })
  if (error) fail(`cannot run ${program}: ${error.message}`)
  if (status !== 0) process.exit(status ?? 1)
}

requireTools()
// One build each: built together, the features of one package would be those of all.
run('cargo', ['build', '--release', '-p', 'elbus', '--features', 'server,rpc', '--bin', 'elbusd'])
run('cargo', ['build', '--release', '-p', 'elbus-loadtest'])

const env = { ...process.env, ...peerVariables() }
for (const variable of ['BUSRTD', 'ELBUSD_PEER'].filter((variable) => !env[variable])) {
  console.error(`${peers.programs[variable]} is not measured: \`npm run peers\` installs it, or ${variable} names it`)
}
const target = path.resolve(root, env.CARGO_TARGET_DIR ?? 'target')
run(path.join(target, 'release', 'elbus-loadtest'), ['compare', ...process.argv.slice(2)], env)

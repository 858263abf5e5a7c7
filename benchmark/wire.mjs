// The Rust part of the benchmark: our server beside the reference servers, over the wire, driven by crates/loadtest.
import { spawnSync } from 'node:child_process'
import path from 'node:path'
import process from 'node:process'
import { fail, peers, peerVariables, root, target } from '../.ci/prerequisites.mjs'

/** Runs a program in the foreground; ends with its status if it fails. */
export function run(program, args, env = process.env) {
  const { status, error } = spawnSync(program, args, { cwd: root, stdio: 'inherit', env })
  if (error) fail(`cannot run ${program}: ${error.message}`)
  if (status !== 0) process.exit(status ?? 1)
}

/** Builds our server as it is shipped; its path. */
export function buildServer() {
  run('cargo', ['build', '--release', '-p', 'elbus', '--features', 'server,rpc', '--bin', 'elbusd'])
  return path.join(target, 'release', 'elbusd')
}

/** Builds the server and the load generator, finds the peers, and measures them in turns. */
export function measureWire(args) {
  // One build each: built together, the features of one package would be those of all.
  buildServer()
  run('cargo', ['build', '--release', '-p', 'elbus-loadtest'])
  const env = { ...process.env, ...peerVariables() }
  for (const variable of ['BUSRTD', 'ELBUSD_PEER'].filter((variable) => !env[variable])) {
    console.error(
      `${peers.programs[variable]} is not measured: \`npm run peers\` installs it, or ${variable} names it`,
    )
  }
  run(path.join(target, 'release', 'elbus-loadtest'), ['compare', ...args], env)
}

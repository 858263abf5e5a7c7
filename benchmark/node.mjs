// The Node part of the benchmark: each load with each contestant in turns (A B C, A B C, …), each time in processes of
// its own.
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { Stage } from './actor.mjs'
import { machine } from './machine.mjs'
import { evaluate, save, table } from './report.mjs'
import { betweenProcesses } from './workloads/between-processes.mjs'
import { inProcess } from './workloads/in-process.mjs'
import { socket } from './workloads/socket.mjs'

/** All loads by the names they are asked for with. */
export const workloads = { ...inProcess, ...socket, ...betweenProcesses }

/** N1 to N7, in the order of the goals. */
const order = ['one-way', 'call', 'socket', 'processes', 'remote-call', 'start', 'steady']

const folder = path.dirname(fileURLToPath(import.meta.url))

function found(command) {
  const { error, status } = spawnSync(command, ['--version'], { stdio: 'ignore' })
  return !error && status === 0
}

/** The nats.js client of `peers/nats`, installed there where it is missing. */
function hasNatsClient() {
  const peers = path.join(folder, 'peers', 'nats')
  if (existsSync(path.join(peers, 'node_modules', '@nats-io', 'transport-node'))) return true
  console.error('installing nats.js under benchmark/peers/nats')
  const installed = spawnSync('npm', ['ci', '--no-audit', '--no-fund', '--silent'], {
    cwd: peers,
    stdio: 'inherit',
  })
  return installed.status === 0
}

/** Why a contestant cannot be measured, or undefined. */
function obstacles({ natsServer }) {
  const nats =
    natsServer === undefined
      ? 'nats-server is missing: on Debian and Ubuntu apt-get install nats-server, or NATS_SERVER names it'
      : hasNatsClient()
        ? undefined
        : 'nats.js could not be installed: npm ci in benchmark/peers/nats'
  return { nats }
}

/** Measures, and prints and saves what came of it. */
export async function measure({ names, rounds, peers, duration, payload, elbusd, file }) {
  const natsServer = [process.env.NATS_SERVER, 'nats-server', '/usr/sbin/nats-server'].find(
    (command) => command && found(command),
  )
  const options = { warmUp: 0.5, duration, payload, elbusd, natsServer }
  const chosen = (names.length > 0 ? order.filter((name) => names.includes(name)) : order).flatMap(
    (name) => workloads[name],
  )
  const missing = chosen.some(({ references }) => references) ? obstacles(options) : {}
  const isWanted = (contestant) => {
    const [name] = contestant.split(' ')
    return missing[name] === undefined && (peers === undefined || peers.includes(name))
  }
  const cases = chosen.map((load) => ({
    ...load,
    contestants: load.references ? load.contestants.filter(isWanted) : load.contestants,
  }))
  for (const [name, reason] of Object.entries(missing)) {
    if (reason !== undefined && (peers === undefined || peers.includes(name)))
      console.error(`not measured: ${reason}`)
  }

  const about = machine(options)
  const begin = new Date()
  const loads = []
  const samples = new Map()
  let failure
  try {
    for (let round = 1; round <= rounds; round += 1) {
      loads.push(os.loadavg()[0])
      for (const load of cases) await measureOnce(load, options, samples, `round ${round} of ${rounds}`)
    }
  } catch (error) {
    // What was measured before is worth seeing, but this run has failed.
    failure = error
  }

  const rows = evaluate(cases, samples)
  const settings = { rounds, warmUp: options.warmUp, duration, payload }
  for (const [what, value] of Object.entries({ ...about, ...settings }))
    console.log(`${what}: ${value ?? '–'}`)
  console.log(
    `load averages at the beginning of each round: ${loads.map((load) => load.toFixed(2)).join(' ')}\n`,
  )
  console.log(table(rows))
  const stamp = begin.toISOString().replace(/[:.]/g, '-')
  const target = file ?? path.join(folder, 'results', `${stamp}.json`)
  save(target, { date: begin.toISOString(), machine: about, settings, loads, rows })
  console.log(`\nall samples: ${path.relative(process.cwd(), target)}`)
  const missed = rows.filter(({ met }) => met === false)
  if (missed.length > 0) console.log(`${missed.length} figures miss their goal`)
  if (failure !== undefined) throw failure
}

/** One load, once with each contestant. */
async function measureOnce({ load, contestants, run, samples: perRound = 1 }, options, samples, where) {
  for (const contestant of contestants) {
    process.stderr.write(`${where}: ${load}, ${contestant}\n`)
    for (let sample = 0; sample < perRound; sample += 1) {
      const stage = new Stage()
      try {
        const figures = await run(stage, contestant, options)
        if (!samples.has(load)) samples.set(load, new Map())
        const byContestant = samples.get(load)
        byContestant.set(contestant, [...(byContestant.get(contestant) ?? []), figures])
      } catch (error) {
        throw new Error(`${load}, ${contestant}: ${error.message}`, { cause: error })
      } finally {
        await stage.end()
      }
    }
  }
}

// The Node part of the benchmark: each load with each contestant in turns (A B C, A B C, …), each time in processes of
// its own. It measures only: tables, charts and files are made of what it returns.
import os from 'node:os'
import { Stage } from './actor.mjs'
import { machine } from './machine.mjs'
import { peers, preparePeers } from './peers/peers.mjs'
import { betweenProcesses } from './workloads/between-processes.mjs'
import { boundary } from './workloads/boundary.mjs'
import { inProcess } from './workloads/in-process.mjs'
import { socket } from './workloads/socket.mjs'

/**
 * All loads by the names they are asked for with. A load has
 * - `load`, its title, and `id`, the row of the goals it belongs to,
 * - `contestants`, each the name of a peer, and its transport where it has one,
 * - `references(contestant)`: whom it is put in relation to, by the names goals call them,
 * - `floors`: those of them that do less than a bus and set no mark,
 * - `figures` by key: `title` with its unit behind the last comma, and `goal`, one or several
 *   `{ atLeast | atMost, of, for }`: `of` is a reference or a list, of which the best counts, `for` names peers,
 * - `leftOut`: peers that are not measured under it, by name, with the reason,
 * - `run(stage, contestant, options)`, which gives the figures by key.
 */
export const workloads = { ...inProcess, ...boundary, ...socket, ...betweenProcesses }

/** The names in the order in which they are measured: N1 to N7 as in the goals, and what belongs beside each. */
export const workloadNames = [
  'one-way',
  'call',
  'boundary',
  'socket',
  'processes',
  'message',
  'large',
  'remote-call',
  'start',
  'delivery',
  'steady',
  'idle',
]

/** The names of the peers. */
export const peerNames = Object.keys(peers)

/** Seconds before and of what is measured, and bytes of a payload, unless the options say. */
const WARM_UP = 0.3
const DURATION = 0.7
const PAYLOAD = 100

const nameOf = (contestant) => contestant.split(' ')[0]

/**
 * Measures. `names` are workloads and `wanted` peers, all of them where none are given; `elbusd` is our server.
 *
 * Gives `about` (the machine and versions), `settings`, `cases` (the loads with the contestants that were there),
 * `missing` (why a peer was not, by name), `samples` (a Map by load of Maps by contestant of lists of figures), `loads`
 * (the load average at the beginning of each round), and `failure`: an error that names all measurements that failed, or
 * undefined. One that fails does not end the run.
 */
export async function measureNode({
  names = [],
  rounds = 5,
  peers: wanted,
  warmUp = WARM_UP,
  duration = DURATION,
  payload = PAYLOAD,
  elbusd,
}) {
  const chosen = workloadNames
    .filter((name) => names.length === 0 || names.includes(name))
    .flatMap((name) => workloads[name])
  const isWanted = (name) => wanted === undefined || wanted.includes(name)
  const named = new Set(chosen.flatMap(({ contestants }) => contestants.map(nameOf)).filter(isWanted))
  const needed = new Set(chosen.flatMap(({ needs = [] }) => needs))
  const { servers, versions, missing } = preparePeers(
    peerNames.filter((name) => named.has(name) || needed.has(name)),
    { elbusd },
  )
  for (const [name, reason] of Object.entries(missing)) console.error(`not measured: ${name}: ${reason}`)

  const options = { warmUp, duration, payload, elbusd, servers }
  const isThere = (contestant) => {
    const name = nameOf(contestant)
    // What runs in one process with us is no peer that could be missing.
    return !(name in peers) || (missing[name] === undefined && isWanted(name))
  }
  // A load nobody can be measured under stays, so that it is seen to be missing.
  const cases = chosen.map((load) => {
    const isPossible = (load.needs ?? []).every((name) => missing[name] === undefined)
    return { ...load, contestants: isPossible ? load.contestants.filter(isThere) : [] }
  })

  const leftOut = Object.assign({}, ...chosen.map((load) => load.leftOut))
  const isWithout = Object.keys(leftOut).length > 0
  const loads = []
  const samples = new Map()
  const failures = []
  for (let round = 1; round <= rounds; round += 1) {
    loads.push(os.loadavg()[0])
    for (const load of cases) {
      failures.push(...(await measureOnce(load, options, samples, `round ${round} of ${rounds}`)))
    }
  }
  return {
    part: 'node',
    about: { ...machine({ elbusd, versions }), ...(isWithout ? { 'left out': leftOut } : {}) },
    settings: { rounds, warmUp, duration, payload, peers: wanted },
    cases,
    samples,
    loads,
    missing,
    failure: failures.length === 0 ? undefined : new Error(failures.join('\n')),
  }
}

/** One load, once with each contestant. Gives what failed. */
async function measureOnce({ load, contestants, run, samples: perRound = 1 }, options, samples, where) {
  const failures = []
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
        const failure = `${where}: ${load}, ${contestant}: ${error.message}`
        process.stderr.write(`FAILED: ${failure}\n`)
        failures.push(failure)
        if (!samples.has(load)) samples.set(load, new Map())
        // Its place stays, so that rounds keep their numbers.
        const byContestant = samples.get(load)
        byContestant.set(contestant, [...(byContestant.get(contestant) ?? []), {}])
      } finally {
        await stage.end()
      }
    }
  }
  return failures
}

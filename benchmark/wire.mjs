// The Rust part of the benchmark: our server beside others, over the wire, driven by crates/loadtest. Which loads there
// are and what is shown of them is in workloads/wire.mjs.
import { spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import process from 'node:process'
import { fail, peerVariables, root, target } from '../.ci/prerequisites.mjs'
import { busyPoll, measurements, peerNames, workloads } from './workloads/wire.mjs'

export { peerNames, workloads }

const WARM_UP = 0.2
const DURATION = 0.6
const PAYLOAD = 100
/** Microseconds a thread of our server looks again before it sleeps, where it has the option. */
const BUSY_POLL_MICROS = 50

/** Runs a program in the foreground; ends with its status if it fails. */
export function run(program, args, env = process.env) {
  const { status, error } = spawnSync(program, args, { cwd: root, stdio: 'inherit', env })
  if (error) fail(`cannot run ${program}: ${error.message}`)
  if (status !== 0) process.exit(status ?? 1)
}

/** Builds our server as it is shipped; its path. */
export function buildServer() {
  run('cargo', ['build', '--release', '-p', 'elbusd', '--features', 'server,rpc', '--bin', 'elbusd'])
  return path.join(target, 'release', 'elbusd')
}

/** Builds the load generator, unless told not to; its path, and that of our server. */
function prepare(build) {
  const built = (name) => path.join(target, 'release', name)
  const elbusd = process.env.ELBUSD || (build ? buildServer() : built('elbusd'))
  // One build each: built together, the features of one package would be those of all.
  if (build) run('cargo', ['build', '--release', '-p', 'elbus-loadtest'])
  return { elbusd, loadtest: built('elbus-loadtest') }
}

/**
 * Measures the loads of the named workloads in turns, all of them in one run: `{ about, settings, cases, samples,
 * loads, missing, failure }`.
 */
export async function measureWire(options = {}) {
  const { names = [], peers: chosen, rounds = 5, duration, payload = PAYLOAD, build = true } = options
  const { elbusd, loadtest } = prepare(build)
  const hasBusyPoll = hasOption(elbusd, '--busy-poll')
  const isWanted = (contestant) => {
    const [name] = contestant.split(' ')
    if (name === busyPoll) return hasBusyPoll
    return !peerNames.includes(name) || chosen === undefined || chosen.includes(name)
  }
  const cases = Object.entries(workloads)
    .filter(([name]) => names.length === 0 || names.includes(name))
    .flatMap(([, list]) => list)
    .map((one) => ({ ...one, contestants: one.contestants.filter(isWanted) }))
    .filter(({ contestants }) => contestants.length > 0)
  const suite = {
    loads: planned(cases, { duration, payload }),
    variants: hasBusyPoll ? { [busyPoll]: [`--busy-poll=${BUSY_POLL_MICROS}`] } : {},
  }
  const { report, loads } = await runSuite(loadtest, { elbusd, suite, rounds })
  const missing = missingOf(report)
  if (!hasBusyPoll) missing[busyPoll] = 'this elbusd has no option --busy-poll'
  const { samples, problems } = samplesOf(cases, report)
  return {
    about: aboutOf(report),
    settings: { rounds, warmUp: WARM_UP, duration: duration ?? DURATION, payload, peers: chosen },
    cases,
    samples,
    loads,
    missing,
    failure: problems.length > 0 ? new Error(problems.join('\n')) : undefined,
  }
}

function hasOption(program, option) {
  const { stdout } = spawnSync(program, ['--help'], { encoding: 'utf8' })
  return stdout?.includes(option) ?? false
}

/** Each measurement the cases need, once, with everybody any of them is about. */
function planned(cases, { duration = DURATION, payload }) {
  const needed = new Map()
  for (const { from, contestants } of cases) {
    for (const name of [from].flat()) {
      needed.set(name, new Set([...(needed.get(name) ?? []), ...contestants]))
    }
  }
  return Object.entries(measurements)
    .filter(([name]) => needed.has(name))
    .map(([name, measurement]) => {
      const words = measurement.arguments.map(String)
      const unlessSaid = (option, value) => (words.includes(option) ? [] : [option, `${value}`])
      return {
        load: name,
        arguments: [
          ...words,
          ...unlessSaid('--warm-up', WARM_UP),
          ...unlessSaid('--duration', duration),
          ...unlessSaid('--payload', payload),
        ],
        contestants: measurement.contestants.filter((contestant) => needed.get(name).has(contestant)),
        rounds: measurement.rounds,
        queue_size: measurement.queueSize,
      }
    })
}

/** Runs the load generator; its report, and the load average at the beginning of each round. */
async function runSuite(loadtest, { elbusd, suite, rounds }) {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'benchmark-wire-'))
  try {
    const file = path.join(folder, 'suite.json')
    writeFileSync(file, JSON.stringify(suite))
    const args = ['compare', '--suite', file, '--rounds', `${rounds}`, '--json', '-']
    const env = { ...process.env, ...peerVariables(), ELBUSD: elbusd }
    const child = spawn(loadtest, args, { cwd: root, env, stdio: ['ignore', 'pipe', 'pipe'] })
    // It ends its brokers with itself.
    const end = () => child.kill()
    process.once('exit', end)
    const ended = new Promise((resolve, reject) => {
      child.on('error', (error) => reject(new Error(`cannot run ${loadtest}: ${error.message}`)))
      child.on('close', resolve)
    }).finally(() => process.off('exit', end))
    const loads = []
    let said = ''
    let out = ''
    child.stderr.setEncoding('utf8').on('data', (text) => {
      process.stderr.write(text)
      said = `${said}${text}`.slice(-2_000)
      for (const [, round] of text.matchAll(/^round (\d+) of/gm)) {
        if (Number(round) > loads.length) loads.push(os.loadavg()[0])
      }
    })
    child.stdout.setEncoding('utf8').on('data', (text) => {
      out += text
    })
    // Problems make its status 1, but its report is whole.
    await ended
    if (out === '') throw new Error(said.trim().split('\n').at(-1) || `${loadtest} said nothing`)
    return { report: JSON.parse(out), loads }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** Who was not found, and what to do about it. */
function missingOf({ not_compared: lines }) {
  const reasons = lines.map((line) => line.split(' is not compared: '))
  return Object.fromEntries(
    reasons.map(([name, reason]) => [
      name,
      reason.includes('apt-get') ? reason : `npm run peers installs it: ${reason}`,
    ]),
  )
}

function aboutOf({ version, cpus, kernel, brokers }) {
  const facts = ({ version: stated, settings }) => `${stated ?? 'version unknown'} (${settings})`
  return {
    generator: `elbus-loadtest ${version}`,
    cpus,
    kernel,
    ...Object.fromEntries(brokers.map((broker) => [broker.label, facts(broker)])),
  }
}

/** Figures by case and contestant, a list by round, and what went wrong. */
export function samplesOf(cases, { loads }) {
  const outcomes = new Map()
  for (const { title, brokers } of loads) {
    for (const { label, outcomes: rounds } of brokers) outcomes.set(`${title} ${label}`, rounds)
  }
  const samples = new Map()
  const problems = []
  for (const { load, from, contestants, figures } of cases) {
    const byContestant = new Map()
    for (const contestant of contestants) {
      const measured = [from].flat().map((name) => outcomes.get(`${name} ${contestant}`) ?? [])
      const rounds = Math.min(...measured.map((list) => list.length))
      const list = []
      for (let round = 0; round < rounds; round += 1) {
        const here = measured.map((rounds) => rounds[round])
        const wrong = here.flatMap(({ problems }) => problems)
        for (const problem of wrong) problems.push(`${load}, ${contestant}: round ${round + 1}: ${problem}`)
        // Figures of a round that lost frames are not to be trusted; its place stays, so that rounds keep their numbers.
        list.push(wrong.length === 0 ? figuresOf(figures, here) : {})
      }
      if (list.some((figures) => Object.keys(figures).length > 0)) byContestant.set(contestant, list)
    }
    samples.set(load, byContestant)
  }
  return { samples, problems }
}

function figuresOf(figures, outcomes) {
  return Object.fromEntries(
    Object.entries(figures).map(([key, { source, scale = 1, of, over }]) => {
      const values = outcomes.map(
        ({ figures: found }) => found.find(({ name }) => name === source)?.value ?? Number.NaN,
      )
      if (over !== undefined) return [key, over(values)]
      return [key, of === undefined ? values[0] * scale : of(values[0])]
    }),
  )
}

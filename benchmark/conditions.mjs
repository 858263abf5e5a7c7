// Whether the machine is one whose rates and times may be held against goals: how busy others kept it while it
// measured, and how fast it is. Ratios ask less of it, as both sides of one were measured on it in turns.
import { readFileSync } from 'node:fs'
import os from 'node:os'
import process from 'node:process'

/** Share of all cores that other processes may have taken. */
const OTHERS = 0.1
/** Load average per core that may be there before the first round, where the system does not say who took what. */
const LOAD_PER_CORE = 0.25
/** CPU time of `fixedWork` in milliseconds on the machine the goals were set on, Node 20. */
const PACE_MS = 3
/** How many times that it may take. */
const SLOWER = 1.5
/** Generator and broker each need one. */
const CORES = 2

/** The rule, as it is printed with every run. */
export const rule =
  `Busy is a machine on which other processes took more than ${OTHERS * 100} % of all cores while it measured or, ` +
  `where the system does not say, whose load average was above ${LOAD_PER_CORE} per core before. Slow is one with ` +
  `fewer than ${CORES} cores, or that needs more than ${SLOWER} times the ${PACE_MS} ms the machine of the goals ` +
  'takes for a fixed loop. On either, goals in rates and times are not judged, and those in ratios only if all rounds, ' +
  'three at least, agree; memory is always judged.'

/** Numbers in a map, as much as 3 ms of work. */
function fixedWork() {
  const counts = new Map()
  let state = 1
  for (let step = 0; step < 300_000; step += 1) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    const key = state & 4_095
    counts.set(key, (counts.get(key) ?? 0) + 1)
  }
  return counts.size
}

/** Milliseconds of CPU the fixed work takes once compiled: the least of many, which others disturb least. */
export function pace() {
  let least = Number.POSITIVE_INFINITY
  for (let turn = 0; turn < 15; turn += 1) {
    const before = process.cpuUsage()
    fixedWork()
    const { user, system } = process.cpuUsage(before)
    least = Math.min(least, (user + system) / 1_000)
  }
  return least
}

/**
 * Ticks of CPU by the texts of /proc/stat and /proc/self/stat: all there were, those somebody used, and those this
 * process and its children that have ended used. Interrupts are nobody's; stolen time is that of other machines.
 */
export function ticks(stat, self) {
  const [user, nice, system, idle, wait, irq, softirq, steal] = stat
    .split('\n', 1)[0]
    .trim()
    .split(/\s+/)
    .slice(1)
    .map(Number)
  // The name in brackets may hold anything; utime, stime, cutime and cstime are the fields 14 to 17.
  const fields = self.slice(self.lastIndexOf(')') + 2).split(' ')
  const own = fields.slice(11, 15).reduce((sum, text) => sum + Number(text), 0)
  const used = user + nice + system + steal
  return { all: used + idle + wait + irq + softirq, used, own }
}

function ticksNow() {
  try {
    return ticks(readFileSync('/proc/stat', 'latin1'), readFileSync('/proc/self/stat', 'latin1'))
  } catch {
    return undefined
  }
}

/** Share of all cores that others used between two looks, or undefined. */
export function othersBetween(before, after) {
  if (before === undefined || after === undefined || after.all <= before.all) return undefined
  const used = after.used - before.used - (after.own - before.own)
  return Math.max(0, used / (after.all - before.all))
}

/** Looks at the machine now; what is returned looks again, once all children have ended, and says how it was. */
export function watch() {
  const load = os.loadavg()[0]
  const took = pace()
  const before = ticksNow()
  return () => judge({ cores: os.cpus().length, load, others: othersBetween(before, ticksNow()), pace: took })
}

/** What the rule says of such a machine; `reason` is why goals in rates and times are not judged. */
export function judge({ cores, load, others, pace }) {
  const isBusy = others === undefined ? load > LOAD_PER_CORE * cores : others > OTHERS
  const isSlow = cores < CORES || pace > PACE_MS * SLOWER
  const causes = []
  if (isBusy) {
    const taken = others === undefined ? '' : `, ${(others * 100).toFixed(0)} % taken by others`
    causes.push(`load ${load.toFixed(1)} on ${cores} ${cores === 1 ? 'core' : 'cores'}${taken}`)
  }
  if (isSlow) {
    causes.push(
      cores < CORES
        ? `${cores} core`
        : `${(pace / PACE_MS).toFixed(1)} times as slow as the machine of the goals`,
    )
  }
  return { cores, load, others, pace, isBusy, isSlow, reason: causes.join('; ') || undefined }
}

/** One line about the machine. */
export function describe({ cores, load, others, pace, isBusy, isSlow }) {
  const taken = others === undefined ? 'unknown' : `${(others * 100).toFixed(0)} %`
  const state = [isBusy && 'busy', isSlow && 'slow'].filter(Boolean).join(' and ') || 'quiet'
  return (
    `${state}: ${cores} cores, load average ${load.toFixed(2)} before the first round, taken by other processes ` +
    `while measuring: ${taken}, fixed loop ${pace.toFixed(1)} ms`
  )
}

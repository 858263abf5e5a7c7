// What a run says: spreads, ratios to the references, and goals met, missed, not judged or not measured. Pure functions
// of the data of record.mjs; conclusions.mjs sums them up by goal, report.mjs and plots.mjs show them.
import { digits, summary } from './statistics.mjs'

/** Contestants that are ours where a load does not say so. In the wire part `elbusd` is the reference server. */
const OURS = { wire: /^ours\b/, node: /^(ours|embedded|elbusd|in process|our client)\b/ }

/** Figures a busy machine does not change. */
const STEADY = /\b([KMG]i)?B\b(?!\/s)|\bbytes\b/

/** Rounds that have to agree before a busy machine says anything. */
const ENOUGH = 3

export const listOf = (value) => (value === undefined ? [] : [value].flat())

/** What a figure is, and its unit: `messages, M/s`. */
export function unitOf(title) {
  const at = title.lastIndexOf(', ')
  return at < 0 ? { what: title, unit: '' } : { what: title.slice(0, at), unit: title.slice(at + 2) }
}

/** `more` for rates, `less` for all else, unless the figure or its goal says. */
export function betterOf({ title, goal, better }) {
  if (better !== undefined) return better
  const [first] = listOf(goal)
  if (first !== undefined) return first.atLeast === undefined ? 'less' : 'more'
  return /\/s$|per second$/.test(title) ? 'more' : 'less'
}

/** True for the shares of a sum, such as what the publisher used of all CPU. */
export function isShare(title) {
  return title.startsWith('of that')
}

/** True if this contestant of a load is ours. */
function isOurs({ part }, { ours }, contestant) {
  return ours === undefined ? OURS[part].test(contestant) : ours.includes(contestant)
}

export function goalText({ atLeast, atMost, of }) {
  const names = listOf(of)
  const several = of === 'best' ? 'the best peer' : `the best of ${names.join(', ')}`
  const against = of === undefined ? '' : ` × ${names.length === 1 && of !== 'best' ? of : several}`
  const value = atLeast ?? atMost
  // A goal was set as few digits, not measured as three.
  const written = value < 10_000 ? Number(value.toPrecision(3)) : digits(value)
  return `${atLeast === undefined ? '≤' : '≥'} ${written}${against}`
}

/** Why there is nothing of a contestant or reference. */
function reasonFor(part, { load }, name) {
  const [peer] = name.split(' ')
  const missing = part.missing?.[name] ?? part.missing?.[peer]
  if (missing !== undefined) return missing
  const peers = part.settings?.peers
  if (peers !== undefined && !peers.includes(peer)) return 'left out by --peers'
  const lines = part.failure?.split('\n') ?? []
  const own = lines.find((line) => line.includes(load) && line.includes(name))
  if (own !== undefined) return `failed: ${own}`
  return lines.length > 0 ? `no samples, as the run failed: ${lines[0]}` : 'no samples'
}

/** True if the value is what the goal asks for. */
function isMet({ atLeast, atMost }, value) {
  return atLeast === undefined ? value <= atMost : value >= atLeast
}

const stateOf = (goal, value) => (isMet(goal, value) ? 'met' : 'missed')

/** How a goal in figures ended; one that is a ratio by itself is judged as ratios are. */
function ownVerdict(goal, { figure, median, conditions, values }) {
  const outcome = { goal, value: median, state: stateOf(goal, median) }
  if (conditions?.reason === undefined || STEADY.test(figure.title)) return outcome
  if (goal.isRatio || unitOf(figure.title).unit === '×') return unlessDoubted(outcome, values, conditions)
  return { ...outcome, state: 'not judged', reason: conditions.reason }
}

/** How a goal beside others ended, or undefined if it is none of this contestant: over another transport, say. */
function ratioVerdict(goal, { part, load, figure, ratios, best, peers, references, conditions, roundsOf }) {
  const meant = goal.of === 'best' ? peers : listOf(goal.of)
  const names = meant.filter((name) => references[name] !== undefined)
  if (names.length === 0) return undefined
  const found = goal.of === 'best' ? best : bestOf(ratios, names, figure)
  if (found === undefined) {
    const reason = names.map((name) => `${name}: ${reasonFor(part, load, name)}`).join('; ')
    return { goal, state: 'not measured', reason }
  }
  const outcome = { goal, value: found.ratio, against: found.name, state: stateOf(goal, found.ratio) }
  // The best of those that are there is not the best of all.
  const absent = names.filter((name) => ratios[name] === undefined)
  if (absent.length > 0) outcome.reason = `without ${absent.join(', ')}`
  return unlessDoubted(outcome, roundsOf(found.name), conditions)
}

/** The outcome, or on a machine that was not quiet why it is none. */
function unlessDoubted(outcome, rounds, conditions) {
  const doubt = conditions?.reason === undefined ? undefined : doubtOf(outcome.goal, rounds)
  if (doubt === undefined) return outcome
  return { ...outcome, state: 'not judged', reason: `${doubt}, ${conditions.reason}` }
}

/**
 * Why the ratios of single rounds do not bear a verdict, or undefined if they do. What others take of a busy machine,
 * they take from one side in one round and from the other in the next.
 */
function doubtOf(goal, rounds) {
  const values = rounds.filter(Number.isFinite)
  if (values.length < ENOUGH) return values.length === 1 ? 'one round' : `${values.length} rounds`
  const { min, max } = summary(values)
  return isMet(goal, min) === isMet(goal, max) ? undefined : `rounds from ${digits(min)} to ${digits(max)}`
}

/** The reference that is hardest to beat: the greatest of what should be great, the least of all else. */
function bestOf(ratios, names, figure) {
  const more = betterOf(figure) === 'more'
  let best
  for (const name of names) {
    const ratio = ratios[name]
    // A ratio is ours ÷ theirs, so that of the best of rates is the least.
    if (ratio !== undefined && (best === undefined || (more ? ratio < best.ratio : ratio > best.ratio))) {
      best = { name, ratio }
    }
  }
  return best
}

/** How a contestant stands beside its references in one figure: the ratios of the medians, and the best peer. */
function relate({ part, load, key, figure, floors }, contestant) {
  const valuesOf = (name) => (load.samples[name] ?? []).map((sample) => sample[key])
  const references = load.references[contestant] ?? {}
  const peers = Object.keys(references).filter(
    (name) => !isOurs(part, load, references[name]) && !floors.includes(name),
  )
  const own = summary(valuesOf(contestant))?.median
  const ratios = {}
  for (const [name, reference] of Object.entries(references)) {
    const against = summary(valuesOf(reference))?.median
    if (against && reference !== contestant) ratios[name] = own / against
  }
  const roundsOf = (name) => {
    const theirs = valuesOf(references[name])
    return valuesOf(contestant).map((value, round) => value / (theirs[round] ?? Number.NaN))
  }
  return { references, peers, ratios, best: bestOf(ratios, peers, figure), roundsOf }
}

/** One figure of one contestant, or undefined where no round gave it. */
function evaluateFigure({ part, load, key, figure, conditions, floors }, contestant) {
  const values = (load.samples[contestant] ?? []).map((sample) => sample[key])
  const spread = summary(values)
  if (spread === undefined) return undefined
  const relation = relate({ part, load, key, figure, floors }, contestant)
  const facts = { part, load, figure, values, median: spread.median, conditions, ...relation }
  const ours = isOurs(part, load, contestant)
  const goals = listOf(figure.goal)
    .filter((goal) => (goal.for === undefined ? ours : goal.for.includes(contestant.split(' ')[0])))
    .map((goal) => (goal.of === undefined ? ownVerdict(goal, facts) : ratioVerdict(goal, facts)))
    .filter((outcome) => outcome !== undefined)
  const { load: title, id, growth } = load
  const { ratios, best } = relation
  return {
    ...{ part: part.part, id, load: title, growth, key, figure: figure.title, better: betterOf(figure) },
    ...{ contestant, ours, floor: floors.includes(contestant), ...spread, ratios, best, goals },
  }
}

/** All figures of one load. */
function evaluateLoad(part, load, conditions) {
  const floors = load.floors ?? ['relay']
  return Object.entries(load.figures).flatMap(([key, figure]) => {
    const facts = { part, load, key, figure, conditions, floors }
    return load.contestants
      .map((contestant) => evaluateFigure(facts, contestant))
      .filter((row) => row !== undefined)
  })
}

/** Least, middle and greatest of each figure, its relation to the references, and how its goals ended. */
export function evaluate({ parts, conditions }) {
  return parts.flatMap((part) => part.cases.flatMap((load) => evaluateLoad(part, load, conditions)))
}

/** The row of the goals a load belongs to: its own word, or the first of its title. */
export function rowOf({ id, load }) {
  return id ?? load.match(/^[SN]\d+/)?.[0]
}

/** Why nothing of ours was measured in a load. */
export function reasonForOurs(part, { load }) {
  const lines = part.failure?.split('\n') ?? []
  const own = lines.find((line) => line.includes(load))
  if (own !== undefined) return `failed: ${own}`
  // What a load needs of ours may be what is missing: a program, or an option of it.
  const missing = Object.entries(part.missing ?? {}).find(([name]) => OURS[part.part].test(name))
  return missing?.[1] ?? (lines.length > 0 ? `no samples, as the run failed: ${lines[0]}` : 'no samples')
}

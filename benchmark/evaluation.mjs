// What a run says: spreads, ratios to the references, and goals met, missed, not judged or not measured. Pure functions
// of the data of record.mjs; report.mjs and plots.mjs show what comes of it.
import { rows as goalRows } from './goals.mjs'
import { digits, summary } from './statistics.mjs'

/** Contestants that are ours where a load does not say so. In the wire part `elbusd` is the reference server. */
const OURS = { wire: /^ours\b/, node: /^(ours|embedded|elbusd|in process|our client)\b/ }

/** Figures a busy machine does not change. */
const STEADY = /\b([KMG]i)?B\b(?!\/s)|\bbytes\b/

/** Rounds that have to agree before a busy machine says anything. */
const ENOUGH = 3

const listOf = (value) => (value === undefined ? [] : [value].flat())

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
function isOurs({ part }, { ours, contestants }, contestant) {
  if (ours !== undefined) return ours.includes(contestant)
  return contestants.length === 1 || OURS[part].test(contestant)
}

export function goalText({ atLeast, atMost, of, flat }) {
  if (flat !== undefined) return `greatest ≤ ${flat} × least`
  const names = listOf(of)
  const several = of === 'best' ? 'the best peer' : `the best of ${names.join(', ')}`
  const against = of === undefined ? '' : ` × ${names.length === 1 && of !== 'best' ? of : several}`
  const value = atLeast ?? atMost
  // A goal was set as few digits, not measured as three.
  const written = value < 10_000 ? Number(value.toPrecision(3)) : digits(value)
  return `${atLeast === undefined ? '≤' : '≥'} ${written}${against}`
}

/** What a part that failed says of a load, and of one contestant if given: its own line, or else the first. */
function failureText({ failure }, load, name) {
  const lines = failure.split('\n')
  const own = lines.find((line) => line.includes(load) && (name === undefined || line.includes(name)))
  return own === undefined ? `no samples, as the run failed: ${lines[0]}` : `failed: ${own}`
}

/** Why there is nothing of a contestant or reference. */
function reasonFor(part, { load }, name) {
  const [peer] = name.split(' ')
  const missing = part.missing?.[name] ?? part.missing?.[peer]
  if (missing !== undefined) return missing
  const peers = part.settings?.peers
  if (peers !== undefined && !peers.includes(peer)) return 'left out by --peers'
  return part.failure === undefined ? 'no samples' : failureText(part, load, name)
}

/** How one goal ended: the state, what was compared with whom, and why not if it was not. */
function verdict(
  goal,
  { part, load, figure, median, ratios, best, peers, references, conditions, roundsOf },
) {
  const compare = (value) =>
    (goal.atLeast === undefined ? value <= goal.atMost : value >= goal.atLeast) ? 'met' : 'missed'
  if (goal.of !== undefined) {
    // No goal of this contestant otherwise: over another transport, for instance.
    const names = (goal.of === 'best' ? peers : listOf(goal.of)).filter(
      (name) => references[name] !== undefined,
    )
    if (names.length === 0) return undefined
    const found = goal.of === 'best' ? best : bestOf(ratios, names, figure)
    if (found === undefined) {
      const reason = names.map((name) => `${name}: ${reasonFor(part, load, name)}`).join('; ')
      return { goal, state: 'not measured', reason }
    }
    const outcome = { goal, value: found.ratio, against: found.name, state: compare(found.ratio) }
    if (conditions?.reason === undefined) return outcome
    // What others take, they take from one side in one round and from the other in the next.
    const values = roundsOf(found.name).filter(Number.isFinite)
    const spread = summary(values)
    if (values.length >= ENOUGH && compare(spread.min) === compare(spread.max)) return outcome
    const seen =
      values.length < ENOUGH
        ? `${values.length} rounds`
        : `rounds from ${digits(spread.min)} to ${digits(spread.max)}`
    const reason = `${seen}, ${conditions.reason}`
    return { ...outcome, state: 'not judged', reason }
  }
  const isRelative = goal.isRatio === true || unitOf(figure.title).unit === '×'
  if (!isRelative && conditions?.reason !== undefined && !STEADY.test(figure.title)) {
    return { goal, value: median, state: 'not judged', reason: conditions.reason }
  }
  return { goal, value: median, state: compare(median) }
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

/** All figures of one load and part. */
function evaluateLoad(part, load, conditions) {
  const floors = load.floors ?? ['relay']
  const rows = []
  for (const [key, figure] of Object.entries(load.figures)) {
    const spreadOf = (contestant) => summary((load.samples[contestant] ?? []).map((sample) => sample[key]))
    for (const contestant of load.contestants) {
      const spread = spreadOf(contestant)
      if (spread === undefined) continue
      const { median } = spread
      const references = load.references[contestant] ?? {}
      const ratios = {}
      const peers = []
      for (const [name, reference] of Object.entries(references)) {
        if (!isOurs(part, load, reference) && !floors.includes(name)) peers.push(name)
        const against = spreadOf(reference)?.median
        if (against !== undefined && against !== 0 && reference !== contestant)
          ratios[name] = median / against
      }
      const best = bestOf(ratios, peers, figure)
      const ours = isOurs(part, load, contestant)
      const valuesOf = (name) => (load.samples[name] ?? []).map((sample) => sample[key])
      const roundsOf = (name) => {
        const theirs = valuesOf(references[name])
        return valuesOf(contestant).map((value, round) => value / theirs[round])
      }
      const facts = { part, load, figure, median, ratios, best, peers, references, conditions, roundsOf }
      const goals = listOf(figure.goal)
        .filter((goal) => (goal.for === undefined ? ours : goal.for.includes(contestant.split(' ')[0])))
        .map((goal) => verdict(goal, facts))
        .filter((outcome) => outcome !== undefined)
      const { load: title, id, growth } = load
      const better = betterOf(figure)
      const named = {
        part: part.part,
        id,
        load: title,
        key,
        figure: figure.title,
        better,
        growth,
        contestant,
      }
      rows.push({ ...named, ours, floor: floors.includes(contestant), ...spread, ratios, best, goals })
    }
  }
  return rows
}

/** Least, middle and greatest of each figure, its relation to the references, and how its goals ended. */
export function evaluate({ parts, conditions }) {
  return parts.flatMap((part) => part.cases.flatMap((load) => evaluateLoad(part, load, conditions)))
}

/** The row of the goals a load belongs to: its own word, or the first of its title. */
export function rowOf({ id, load }) {
  return id ?? load.match(/^[SN]\d+/)?.[0]
}

/** Why a row of the goals has no figure in this run. */
function reasonForRow(run, kind, number) {
  const part = run.parts.find((one) => one.part === kind)
  if (part === undefined) return 'not part of this run'
  if (!part.cases.some((load) => rowOf(load) === number)) return part.failure ?? 'not part of this run'
  return part.failure === undefined ? 'no samples' : failureText(part, `${number} `)
}

/**
 * Every row of the goals: its goals and how they ended, or its figures where it has none, or why it was not measured.
 */
export function summarise(run, rows = evaluate(run)) {
  const lines = []
  for (const [kind, numbers] of Object.entries(goalRows)) {
    for (const [number, about] of Object.entries(numbers)) {
      const here = rows.filter((row) => row.part === kind && rowOf(row) === number && row.ours)
      if (here.length === 0) {
        lines.push({ number, about, state: 'not measured', reason: reasonForRow(run, kind, number) })
      }
      const judged = here.filter((row) => row.goals.length > 0)
      const growing = here.filter((row) => row.growth !== undefined && !isShare(row.figure))
      const rising = curves(growing, run.conditions)
      // Without a goal in this run the first figure of each load stands for it; a curve stands for its loads.
      const firsts = here.filter((row) => row.key === firstKey(run, row))
      const plain = firsts.filter((row) => row.growth === undefined || rising.length === 0)
      for (const row of judged.length > 0 ? judged : plain) {
        const outcomes = row.goals.length > 0 ? row.goals : [{ state: 'no goal' }]
        for (const outcome of outcomes) lines.push({ number, about, row, ...outcome })
      }
      for (const outcome of rising) lines.push({ number, about, ...outcome })
    }
  }
  return lines
}

function firstKey({ parts }, { part, load }) {
  const found = parts.find((one) => one.part === part)?.cases.find((one) => one.load === load)
  return Object.keys(found?.figures ?? {})[0]
}

/** What the loads of a curve have in common. */
export function curveOf(row) {
  return row.growth.curve ?? `${rowOf(row) ?? ''} growth with ${row.growth.of}`.trim()
}

/**
 * How far each curve of ours rises: the greatest of its medians by the least. `growth.flat` has the most that may be,
 * by figure; a figure that is not named there has no goal, and is not in the summary.
 */
function curves(rows, conditions) {
  const found = new Map()
  for (const row of rows) {
    if (row.growth.flat?.[row.key] === undefined) continue
    const key = `${curveOf(row)}\n${row.key}\n${row.contestant}`
    found.set(key, [...(found.get(key) ?? []), row])
  }
  return [...found.values()].flatMap((points) => {
    const { min, max } = summary(points.map(({ median }) => median)) ?? {}
    const [{ growth, key, figure, contestant }] = points
    const goal = { flat: growth.flat[key] }
    const row = { load: curveOf(points[0]), figure, contestant, ours: true }
    if (points.length < 2 || min === 0)
      return [{ row, goal, state: 'not measured', reason: 'less than two points' }]
    const value = max / min
    if (conditions?.reason !== undefined) {
      return [{ row, goal, value, state: 'not judged', reason: conditions.reason }]
    }
    return [{ row, goal, value, state: value <= goal.flat ? 'met' : 'missed' }]
  })
}

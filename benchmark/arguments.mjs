// The command line of the benchmark: what it may say, and one line for what it may not.
import { parseArgs } from 'node:util'

export const usage = `npm run benchmark                               everything: over the wire, then from Node
npm run benchmark -- [WORKLOADS] [OPTIONS]
npm run benchmark -- --publish [FILE]           draws results/published.* anew, from FILE if one is given

  --wire, --node  one of the two parts
  --peers A,B     only these peers beside ours, or beside those of ours that are named; \`none\` for ours alone (all)
  --rounds N      times each is measured, in turns (5)
  --duration S    seconds of a measured phase (each part's own)
  --payload N     bytes, where a workload does not say (100)
  --json FILE     where all samples go, tables and charts beside it (benchmark/results/TIME.json)
  --no-build      measures what is built already
  --help          this, and the workloads and peers there are`

const options = {
  wire: { type: 'boolean' },
  node: { type: 'boolean' },
  peers: { type: 'string' },
  rounds: { type: 'string', default: '5' },
  duration: { type: 'string' },
  payload: { type: 'string' },
  json: { type: 'string' },
  'no-build': { type: 'boolean' },
  publish: { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
}

/** A refused command line; its message is one line for people. */
export class UsageError extends Error {}

function number(name, text, least) {
  if (text === undefined) return undefined
  const value = Number(text)
  if (text.trim() === '' || !(value >= least)) {
    throw new UsageError(`--${name} is a number of at least ${least}, not ${text || 'nothing'}`)
  }
  return value
}

function whole(name, text) {
  const value = number(name, text, 1)
  if (value !== undefined && !Number.isInteger(value))
    throw new UsageError(`--${name} is a whole number, not ${text}`)
  return value
}

/** The parts and workloads a word stands for. */
function find(known, text) {
  const found = []
  for (const [part, { workloads, rows = {} }] of Object.entries(known)) {
    if (workloads.includes(text)) found.push([part, text])
    for (const name of rows[text.toUpperCase()] ?? []) found.push([part, name])
  }
  return found
}

/** The workloads and peers there are, by part. */
export function knownText(known) {
  const lines = []
  for (const [part, { workloads, rows = {}, peers }] of Object.entries(known)) {
    const numbers = Object.keys(rows)
    const short = numbers.length > 0 ? `; or ${numbers.join(' ')}` : ''
    lines.push(
      `workloads of --${part}: ${workloads.join(' ')}${short}`,
      `peers of --${part}: ${peers.join(' ')}`,
    )
  }
  return lines.join('\n')
}

/**
 * What is to be done: `{ help }`, `{ publish, file }`, or `{ measure, … }` with, by part, the names of workloads (none
 * stands for all) and the chosen peers (undefined for all). Throws `UsageError`.
 *
 * `known` is what there is, by part: `{ wire: { workloads, rows, peers, ours }, node: … }`, `rows` from `S1` to
 * workloads, `ours` those of the peers that are ours.
 */
export function parse(args, known) {
  let parsed
  try {
    parsed = parseArgs({ args, options, allowPositionals: true })
  } catch (error) {
    throw new UsageError(error.message.split('\n', 1)[0])
  }
  const { values, positionals } = parsed
  if (values.help) return { help: true }
  if (values.publish) {
    if (positionals.length > 1) throw new UsageError('--publish takes one file')
    return { publish: true, file: positionals[0] }
  }
  const isWanted = (part) => values[part] || !(values.wire || values.node)
  const wanted = Object.fromEntries(Object.entries(known).filter(([part]) => isWanted(part)))
  if (values.json !== undefined && !values.json.endsWith('.json')) {
    throw new UsageError(`--json is a file that ends in .json, not ${values.json}`)
  }
  const names = new Map()
  for (const text of positionals) {
    const found = find(wanted, text)
    if (found.length === 0) {
      const all = Object.entries(wanted).map(([part, one]) => `${one.workloads.join(' ')} (--${part})`)
      throw new UsageError(`${text} is no workload; there are ${all.join(', ')}`)
    }
    for (const [part, name] of found) names.set(part, new Set([...(names.get(part) ?? []), name]))
  }
  const parts = positionals.length === 0 ? Object.keys(wanted) : [...names.keys()]
  const chosen = peersOf(
    values.peers,
    parts.map((part) => known[part]),
  )
  return {
    measure: Object.fromEntries(
      parts.map((part) => [
        part,
        { names: [...(names.get(part) ?? [])], peers: ofPart(known[part], chosen) },
      ]),
    ),
    rounds: whole('rounds', values.rounds),
    duration: number('duration', values.duration, 0.1),
    payload: whole('payload', values.payload),
    json: values.json,
    build: !values['no-build'],
  }
}

/** The command that measures the same; where its results go is nobody else's business. */
export function commandOf(args) {
  const same = args.filter((word, at) => !/^--json(=|$)/.test(word) && args[at - 1] !== '--json')
  return ['npm run benchmark', ...(same.length > 0 ? ['--', ...same] : [])].join(' ')
}

/** The chosen peers, or undefined for all. */
function peersOf(text, parts) {
  if (text === undefined) return undefined
  const chosen = text.split(',').filter((name) => name !== '')
  if (chosen.length === 1 && chosen[0] === 'none') return []
  const all = [...new Set(parts.flatMap(({ peers }) => peers))]
  for (const name of chosen) {
    if (!all.includes(name)) throw new UsageError(`${name} is no peer; there are ${all.join(' ')}`)
  }
  if (chosen.length === 0) throw new UsageError(`--peers names none of ${all.join(' ')}, and not \`none\``)
  return chosen
}

/** Those of a part that are chosen, with all of ours where none of ours is named: a peer alone is compared with nobody. */
function ofPart({ peers, ours = [] }, chosen) {
  if (chosen === undefined) return undefined
  const here = peers.filter((name) => chosen.includes(name))
  return here.some((name) => ours.includes(name)) ? here : [...ours, ...here]
}

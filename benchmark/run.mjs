// `npm run benchmark`: measures over the wire, then from Node, and shows both: the command's words are in arguments.mjs,
// what is measured in wire.mjs and node.mjs, what comes of it in evaluation.mjs, report.mjs and plots.mjs.
import { copyFileSync, existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import process from 'node:process'
import { fail, prepareNpm, requireTools, root, target } from '../.ci/prerequisites.mjs'
import { knownText, parse, UsageError, usage } from './arguments.mjs'
import { describe, rule, watch } from './conditions.mjs'
import { evaluate, rowOf, summarise } from './evaluation.mjs'
import { rows as goalRows, parts as partTitles } from './goals.mjs'
import * as node from './node.mjs'
import { charts } from './plots.mjs'
import { load, record, save } from './record.mjs'
import { document, groups, preamble, summaryTable, table, tally } from './report.mjs'
import * as wire from './wire.mjs'

const results = path.join(root, 'benchmark', 'results')
const published = path.join(results, 'published.json')

/** What a part can be asked for: its workloads, the rows of the goals they are of, its peers. */
function known(part, { workloads, workloadNames = Object.keys(workloads), peerNames }, ours) {
  const rows = {}
  for (const number of Object.keys(goalRows[part])) {
    const names = workloadNames.filter((name) => workloads[name].some((one) => rowOf(one) === number))
    if (names.length > 0) rows[number] = names
  }
  return { workloads: workloadNames, rows, peers: peerNames, ours }
}

/** Draws a run's tables and charts beside its file: `NAME.md`, and the charts in the folder `NAME`. */
function draw(file, run) {
  const rows = evaluate(run)
  const lines = summarise(run, rows)
  const base = file.replace(/\.json$/, '')
  const folder = path.basename(base)
  const drawn = charts(rows, { ...goalRows.wire, ...goalRows.node })
  mkdirSync(base, { recursive: true })
  // A chart of a load that is gone would stay for ever.
  for (const old of readdirSync(base)) if (old.endsWith('.svg')) rmSync(path.join(base, old))
  for (const { name, draw: text } of drawn) writeFileSync(path.join(base, `${name}.svg`), text())
  const links = drawn.map(({ part, group, title, name }) => ({
    part,
    group,
    title,
    file: `${folder}/${name}.svg`,
  }))
  writeFileSync(`${base}.md`, document(run, rows, lines, links, path.basename(file)))
  return { rows, lines, count: drawn.length, base }
}

function publish(file) {
  if (file !== undefined) {
    load(file)
    if (file !== published) copyFileSync(file, published)
  }
  const { lines, count, base } = draw(published, load(published))
  const shown = path.relative(root, base)
  console.log(`${shown}.md and ${count} charts in ${shown}/ drawn from ${shown}.json: ${tally(lines)}`)
}

/** Builds what Node measures; the path of our server, where a workload may need it. */
function prepareForNode(build) {
  if (build) {
    prepareNpm()
    wire.run('npm', ['run', '--silent', 'build'])
  }
  try {
    createRequire(import.meta.url)('elbus-node')
  } catch (error) {
    fail(`elbus-node is not built: npm run build (${error.message})`)
  }
  const built = path.join(target, 'release', 'elbusd')
  return process.env.ELBUSD ?? (build ? wire.buildServer() : existsSync(built) ? built : undefined)
}

/** One part; what kept it from its end is part of its result. */
async function measurePart(part, options) {
  try {
    if (part === 'wire') return { part, ...(await wire.measureWire(options)) }
    const elbusd = prepareForNode(options.build)
    const { duration = 1, payload = 100 } = options
    return { part, ...(await node.measureNode({ ...options, duration, payload, elbusd })) }
  } catch (failure) {
    console.error(failure)
    return { part, about: {}, cases: [], samples: new Map(), loads: [], failure }
  }
}

function show(run, { rows, lines }) {
  console.log(`\n${preamble(run)}\n`)
  let part
  for (const group of groups(rows)) {
    if (group.part !== part) {
      part = group.part
      console.log(`${partTitles[part]}\n`)
    }
    console.log(`${table(group.rows)}\n`)
  }
  console.log(`${summaryTable(lines)}\n\n${tally(lines)}`)
  console.log(`${describe(run.conditions)}\n${rule}`)
}

async function measure(plan) {
  if (plan.build) requireTools()
  const begin = new Date()
  const stop = watch()
  const found = []
  for (const [part, chosen] of Object.entries(plan.measure)) {
    found.push(await measurePart(part, { ...plan, ...chosen }))
  }
  if (found.every(({ samples }) => samples.size === 0)) fail('nothing was measured')
  const command = ['npm run benchmark', ...(args.length > 0 ? ['--', ...args] : [])].join(' ')
  const run = record({ date: begin.toISOString(), command, conditions: stop(), results: found })
  const stamp = begin.toISOString().replace(/[:.]/g, '-')
  const file = plan.json ?? path.join(results, `${stamp}.json`)
  save(file, run)
  // What is read is what was written, rounded as it is: drawn again it looks the same.
  const drawn = draw(file, load(file))
  show(run, drawn)
  const where = path.relative(process.cwd(), drawn.base)
  console.log(`\nall samples: ${where}.json; these tables: ${where}.md; ${drawn.count} charts: ${where}/`)
  const failures = run.parts.filter(({ failure }) => failure !== undefined)
  for (const { part, failure } of failures) console.error(`${partTitles[part]}: ${failure}`)
  if (failures.length > 0) process.exitCode = 1
}

const args = process.argv.slice(2)
const parts = { wire: known('wire', wire, []), node: known('node', node, ['embedded', 'elbusd']) }
try {
  const plan = parse(args, parts)
  // Files are named from where the command was given.
  if (plan.json !== undefined) plan.json = path.resolve(plan.json)
  if (plan.file !== undefined) plan.file = path.resolve(plan.file)
  process.chdir(root)
  if (plan.help) console.log(`${usage}\n\n${knownText(parts)}`)
  else if (plan.publish) publish(plan.file)
  else await measure(plan)
} catch (error) {
  fail(
    error instanceof UsageError
      ? `${error.message} (npm run benchmark -- --help)`
      : (error.stack ?? error.message),
  )
}

// `npm run benchmark`: measures over the wire, then from Node, and shows both: the command's words are in arguments.mjs,
// what is measured in wire.mjs and node.mjs, what comes of it in evaluation.mjs, conclusions.mjs and report.mjs.
import { copyFileSync, existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import process from 'node:process'
import { fail, prepareNpm, requireTools, root, target } from '../.ci/prerequisites.mjs'
import { commandOf, knownText, parse, UsageError, usage } from './arguments.mjs'
import { describe, rule, watch } from './conditions.mjs'
import { draw } from './drawing.mjs'
import { rowOf } from './evaluation.mjs'
import { rows as goalRows, parts as partTitles } from './goals.mjs'
import * as node from './node.mjs'
import { load, record, save } from './record.mjs'
import { groups, preamble, summaryTable, table, tally } from './report.mjs'
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

/** Draws the tables and charts of the run in `NAME.json` beside it. */
function drawBeside(file) {
  const base = file.replace(/\.json$/, '')
  const { rows, lines, files } = draw(load(file), path.basename(base))
  mkdirSync(base, { recursive: true })
  // A chart of a load that is gone would stay for ever.
  for (const old of readdirSync(base)) if (old.endsWith('.svg')) rmSync(path.join(base, old))
  for (const [name, text] of files) writeFileSync(path.join(path.dirname(base), name), text)
  const shown = path.relative(root, base)
  return { rows, lines, where: `${shown}.md, and ${files.size - 1} charts in ${shown}/` }
}

function publish(file) {
  if (file !== undefined) {
    load(file)
    if (file !== published) copyFileSync(file, published)
  }
  const { lines, where } = drawBeside(published)
  console.log(`${where}, drawn from published.json: ${tally(lines)}`)
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
    return { part, ...(await node.measureNode(options)) }
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
  // First, so that what does not build ends no run half done.
  const elbusd = plan.measure.node === undefined ? undefined : prepareForNode(plan.build)
  const begin = new Date()
  const stop = watch()
  const found = []
  for (const [part, chosen] of Object.entries(plan.measure)) {
    found.push(await measurePart(part, { ...plan, ...chosen, elbusd }))
  }
  if (found.every(({ samples }) => samples.size === 0)) fail('nothing was measured')
  const run = record({
    date: begin.toISOString(),
    command: commandOf(args),
    conditions: stop(),
    results: found,
  })
  const stamp = begin.toISOString().replace(/[:.]/g, '-')
  const file = plan.json ?? path.join(results, `${stamp}.json`)
  save(file, run)
  // Drawn from the file, rounded as it is: drawn again it looks the same.
  const drawn = drawBeside(file)
  show(run, drawn)
  console.log(`\nall samples: ${path.relative(root, file)}; drawn from them: ${drawn.where}`)
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

// `npm run benchmark`: measures over the wire, then from Node. Without arguments the loads behind both published tables
// are run; which part arguments are for is said in usage below.
import { createRequire } from 'node:module'
import process from 'node:process'
import { parseArgs } from 'node:util'
import { fail, prepareNpm, requireTools, root } from '../.ci/prerequisites.mjs'
import { buildServer, measureWire, run } from './wire.mjs'

const NAMES = ['one-way', 'call', 'socket', 'processes', 'remote-call', 'start', 'steady']

const usage = `npm run benchmark                         both parts, as published
npm run benchmark -- --node [WORKLOADS] [OPTIONS]
npm run benchmark -- [--wire] [ARGUMENTS]  the wire part alone; ARGUMENTS go to \`elbus-loadtest compare\`

WORKLOADS of the Node part, which need no --node: ${NAMES.join(' ')} (or n1 to n7)
  --rounds N      times each is measured (5)
  --peers A,B     of embedded, elbusd, hub, nats (all)
  --duration S    seconds of a measured phase (1)
  --payload N     bytes (100)
  --json FILE     where all samples go (benchmark/results/TIME.json)
  --no-build      measures dist/ and npm/ as they are, and the elbusd that ELBUSD names`

/** `n1` to `n7` are the numbers of the goals. */
function workload(text) {
  const name = /^n[1-7]$/i.test(text) ? NAMES[Number(text[1]) - 1] : text
  return NAMES.includes(name) ? name : undefined
}

function number(option, text, least) {
  const value = Number(text)
  if (!(value >= least)) fail(`--${option} is a number of at least ${least}, not ${text}`)
  return value
}

async function measureNode(args) {
  const { values, positionals } = parse(args)
  const names = positionals.map((text) => workload(text) ?? fail(`${text} is no workload\n${usage}`))
  let elbusd = process.env.ELBUSD
  if (!values['no-build']) {
    prepareNpm()
    run('npm', ['run', '--silent', 'build'])
  }
  if (!elbusd && needsServer(names)) elbusd = buildServer()
  try {
    createRequire(import.meta.url)('elbus-node')
  } catch (error) {
    fail(`elbus-node is not built: npm run build (${error.message})`)
  }
  const { measure } = await import('./node.mjs')
  await measure({
    names,
    rounds: Math.floor(number('rounds', values.rounds, 1)),
    peers: values.peers?.split(','),
    duration: number('duration', values.duration, 0.1),
    payload: Math.floor(number('payload', values.payload, 1)),
    elbusd,
    file: values.json,
  })
}

function needsServer(names) {
  return names.length === 0 || ['socket', 'processes', 'remote-call'].some((name) => names.includes(name))
}

function parse(args) {
  try {
    return parseArgs({
      args,
      allowPositionals: true,
      options: {
        rounds: { type: 'string', default: '5' },
        peers: { type: 'string' },
        duration: { type: 'string', default: '1' },
        payload: { type: 'string', default: '100' },
        json: { type: 'string' },
        'no-build': { type: 'boolean' },
      },
    })
  } catch (error) {
    return fail(`${error.message}\n${usage}`)
  }
}

process.chdir(root)
const args = process.argv.slice(2)
const [first] = args
if (first === '--help') {
  console.log(usage)
} else {
  if (!args.includes('--no-build')) requireTools()
  const isNode = args.includes('--node') || (first !== undefined && workload(first) !== undefined)
  const rest = args.filter((argument) => argument !== '--node' && argument !== '--wire')
  if (!isNode) measureWire(rest)
  if (isNode || first === undefined) await measureNode(rest).catch((error) => fail(error.message))
}

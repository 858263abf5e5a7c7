// Calls within this process, between two clients of a broker or by what Node brings along: one after the other, or a number of them at any time.
import { openCalls } from '../peers/in-process.mjs'
import { quantile } from '../statistics.mjs'
import { fail, lasting, leave, payloads, settings, tell } from './stage.mjs'

const { payload, inFlight, params: kind, contestant, warmUp, duration } = settings
const raw = kind === 'bytes'
const { caller, close } = await openCalls(contestant, raw)
const bytes = payloads(payload)
let count = 0

/** One call; true if the answer is what was sent. */
async function callBytes() {
  const params = bytes[count & 0xff]
  const result = await caller.call('callee', 'echo', params, { raw: true })
  return result.length === payload && result[0] === params[0]
}

/** An object that is about 100 bytes as MessagePack. */
async function callObject() {
  const number = count & 0xff
  const params = {
    id: number,
    room: 'north-west 2',
    unit: 'kelvin',
    value: 293.25,
    at: 1_700_000_000_000,
    isFresh: true,
    limits: [273.5, 303.5],
    by: 'sensor-17',
  }
  const result = await caller.call('callee', 'echo', params)
  return result.id === number && result.by === 'sensor-17'
}

const call = raw ? callBytes : callObject

async function run(isOver) {
  const times = []
  let isDone = false
  const from = count
  const cpuBegin = process.cpuUsage()
  const begin = performance.now()
  const loop = async () => {
    while (!isDone) {
      const before = inFlight === 1 ? performance.now() : 0
      if (!(await call())) fail(`call ${count} was answered with something else`)
      count += 1
      if (inFlight === 1) times.push(performance.now() - before)
      if ((count & 0x3f) === 0) isDone = isOver()
    }
  }
  await Promise.all(Array.from({ length: inFlight }, loop))
  const elapsed = performance.now() - begin
  const cpu = process.cpuUsage(cpuBegin)
  const sorted = Float64Array.from(times).sort()
  return {
    messages: count - from,
    seconds: elapsed / 1e3,
    cpu: (cpu.user + cpu.system) / 1e6,
    p50: quantile(sorted, 0.5) * 1e3,
    p99: quantile(sorted, 0.99) * 1e3,
  }
}

await run(lasting(warmUp))
tell('measured', await run(lasting(duration)))
await leave(close)

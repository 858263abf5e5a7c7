// Calls another process: one call after the other, or a number of them at any time.
import { open } from '../peers/open.mjs'
import { quantile } from '../statistics.mjs'
import { fail, leave, Meter, order, payloads, settings, tell } from './stage.mjs'

const { peer, address, payload, inFlight } = settings

const client = await open(peer, address, 'caller', settings)
await client.ready?.()
const bytes = payloads(payload)
let count = 0
let stopped = false
const times = []
const meter = new Meter(() => count)
order('watch').then((processes) => meter.watch(processes))
tell('ready', process.pid)
await order('go')
order('stop').then(() => {
  stopped = true
})
meter.begin()

async function call() {
  while (!stopped) {
    const params = bytes[count & 0xff]
    const first = params[0]
    const begin = performance.now()
    const counts = inFlight === 1 && meter.isMeasuring
    const result = await client.call('callee', params)
    if (result.length !== payload || result[0] !== first)
      fail(`call ${count} was answered with something else`)
    if (counts) times.push(performance.now() - begin)
    count += 1
  }
}
await Promise.all(Array.from({ length: inFlight }, call))
const sorted = Float64Array.from(times).sort()
tell('called', { count, p50: quantile(sorted, 0.5) * 1e3, p99: quantile(sorted, 0.99) * 1e3 })
await leave(() => client.close())

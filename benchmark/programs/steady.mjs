// Many messages through one subscriber, as fast as the flow control allows: memory, and pauses of the event loop.
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { Broker } from 'elbus-node'
import { threadSeconds } from '../machine.mjs'
import { fail, leave, mustGoOn, payloads, settings, tell } from './stage.mjs'

const { topic, payload, messages } = settings
const broker = await Broker.start()
const publisher = await broker.client('publisher')
const subscriber = await broker.client('subscriber')
const bytes = payloads(payload)

let received = 0
let arrived
const all = new Promise((resolve) => {
  arrived = resolve
})
const callback = (message) => {
  const { data } = message
  if (
    message.topic !== topic ||
    message.sender !== 'publisher' ||
    data.length !== payload ||
    data[0] !== (received & 0xff)
  ) {
    fail(`message ${received} is lost or spoilt`)
  }
  received += 1
  if (received === messages) arrived()
}
await subscriber.subscribe(topic, { callback }).ready
mustGoOn(
  () => received,
  () => messages,
)
const before = process.resourceUsage().maxRSS

// Where the machine is busy with others, the clock says little of a turn of the loop; the thread's own CPU does.
let longestTurn = 0
let turnFrom = threadSeconds()
let isOver = false
const look = () => {
  const now = threadSeconds()
  longestTurn = Math.max(longestTurn, now - turnFrom)
  turnFrom = now
  if (!isOver) setImmediate(look)
}
setImmediate(look)

const delay = monitorEventLoopDelay({ resolution: 1 })
delay.enable()
const cpuBegin = process.cpuUsage()
const begin = performance.now()
for (let sent = 0; sent < messages; sent += 1) {
  if (!publisher.publish(topic, bytes[sent & 0xff])) await publisher.drained()
}
await all
const seconds = (performance.now() - begin) / 1e3
const cpu = process.cpuUsage(cpuBegin)
// A last look at the loop, which may only just have become free.
await new Promise((resolve) => setTimeout(resolve, 20))
delay.disable()
isOver = true
if (received !== messages) fail(`received ${received} of ${messages}`)
tell('measured', {
  messages,
  seconds,
  cpu: (cpu.user + cpu.system) / 1e6,
  rss: process.resourceUsage().maxRSS / 1024,
  rssBefore: before / 1024,
  pause: delay.max / 1e6,
  turn: Number.isNaN(longestTurn) ? undefined : longestTurn * 1e3,
})
await leave(async () => {
  await publisher.close()
  await subscriber.close()
  await broker.close()
})

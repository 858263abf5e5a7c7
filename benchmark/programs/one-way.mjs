// One-way publications within this process: between two clients of a broker, or by what Node brings along.
import { openBus } from '../peers/in-process.mjs'
import { fail, lasting, leave, mustGoOn, payloads, settings, tell } from './stage.mjs'

const { topic, payload, burst, by, contestant, warmUp, duration } = settings
const { publisher, subscriber, close } = await openBus(contestant)

const bytes = payloads(payload)
let sent = 0
let received = 0
let arrived

function take(message) {
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
  if (received === sent) arrived()
}

if (by === 'iterator') {
  const subscription = subscriber.subscribe(topic)
  await subscription.ready
  const read = async () => {
    for await (const message of subscription) take(message)
  }
  read()
} else {
  await subscriber.subscribe(topic, { callback: take }).ready
}

/** Sends bursts until `isOver` says so, each once the one before has arrived. */
async function run(isOver) {
  const begin = performance.now()
  const cpuBegin = process.cpuUsage()
  const from = received
  while (!isOver()) {
    // The clock is looked at about every thousand messages.
    for (let bursts = Math.ceil(1_024 / burst); bursts > 0; bursts -= 1) {
      const all = new Promise((resolve) => {
        arrived = resolve
      })
      for (let left = burst; left > 0; left -= 1) {
        sent += 1
        const goesOn = publisher.publish(topic, bytes[(sent - 1) & 0xff])
        if (!goesOn) await publisher.drained()
      }
      await all
    }
  }
  const elapsed = performance.now() - begin
  if (received !== sent) fail(`received ${received} of ${sent}`)
  const cpu = process.cpuUsage(cpuBegin)
  return { messages: received - from, seconds: elapsed / 1e3, cpu: (cpu.user + cpu.system) / 1e6 }
}

mustGoOn(
  () => received,
  () => sent,
)
await run(lasting(warmUp))
tell('measured', await run(lasting(duration)))
await leave(close)

// Receives on one connection or several, reads each message, and finds out at once if one is missing or out of order.
import { open } from '../peers/open.mjs'
import { fail, leave, Meter, mustGoOn, order, settings, tell } from './stage.mjs'

const { peer, address, topic, payload, receivers, credit } = settings

let count = 0
let total = Number.POSITIVE_INFINITY
let finish
const finished = new Promise((resolve) => {
  finish = resolve
})
const meter = new Meter(() => count)
const clients = []

for (let index = 0; index < receivers; index += 1) {
  const client = await open(peer, address, `subscriber-${index}`)
  let received = 0
  await client.subscribe(topic, (topicLength, sender, length, first) => {
    if (
      first !== (received & 0xff) ||
      length !== payload ||
      topicLength !== topic.length ||
      sender === undefined
    ) {
      fail(`message ${received} of receiver ${index} is lost or spoilt: byte ${first}, length ${length}`)
    }
    received += 1
    count += 1
    if (credit !== undefined && received % credit === 0) {
      const told = new Uint8Array(8)
      new DataView(told.buffer).setFloat64(0, received)
      client.publish(`credit/${index}`, told)
    }
    if (count === 1) meter.begin()
    else if (count === total) finish()
  })
  clients.push(client)
}
tell('ready')

total = (await order('total')) * receivers
if (count > total) fail(`received ${count} messages of ${total}`)
mustGoOn(
  () => count,
  () => total,
)
if (count < total) await finished
tell('received', count)
await leave(() => Promise.all(clients.map((client) => client.close())))

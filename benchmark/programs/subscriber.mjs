// Receives on one connection or several, reads each message, and finds out at once if one is missing or out of order.
import { open } from '../peers/open.mjs'
import { fail, leave, Meter, mustGoOn, order, settings, tell } from './stage.mjs'

const { peer, address, topic, payload, receivers, first = 0, credit, verb } = settings
const topicLength = verb === 'send' ? undefined : topic.length

let count = 0
let total = Number.POSITIVE_INFINITY
let finish
const finished = new Promise((resolve) => {
  finish = resolve
})
const meter = new Meter(() => count)
const clients = []

for (let index = first; index < first + receivers; index += 1) {
  const client = await open(peer, address, `subscriber-${index}`, settings)
  await client.ready?.()
  let received = 0
  const take = (ofTopic, sender, length, byte) => {
    if (byte !== (received & 0xff) || length !== payload || ofTopic !== topicLength || sender === undefined) {
      fail(`message ${received} of receiver ${index} is lost or spoilt: byte ${byte}, length ${length}`)
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
  }
  await (verb === 'send' ? client.listen(take) : client.subscribe(topic, take))
  await client.settled?.()
  clients.push(client)
}
tell('ready', process.pid)
order('watch').then((processes) => meter.watch(processes))

total = (await order('total')) * receivers
if (count > total) fail(`received ${count} messages of ${total}`)
mustGoOn(
  () => count,
  () => total,
)
if (count < total) await finished
tell('received', count)
await leave(() => Promise.all(clients.map((client) => client.close())))

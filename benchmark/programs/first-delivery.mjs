// A fresh process beside a broker: until the first message between two of its clients or, where one process starts the
// other, from one to the other.
import { open } from '../peers/open.mjs'
import { fail, leave, settings, tell } from './stage.mjs'

const { peer, address, topic, payload, roles } = settings
/** A message that was sent before the other end could take it is sent again after so many milliseconds. */
const AGAIN = 5

const clients = []
let timer
if (roles.includes('subscriber')) {
  const client = await open(peer, address, 'subscriber', settings)
  await client.subscribe(topic, (topicLength, sender, length, first) => {
    if (topicLength !== topic.length || sender === undefined || length !== payload || first !== 0x2e) {
      fail('the first message is spoilt')
    }
    clearInterval(timer)
    tell('delivered')
  })
  clients.push(client)
}
if (roles.includes('publisher')) {
  const client = await open(peer, address, 'publisher', settings)
  await client.ready?.()
  clients.push(client)
  const bytes = new Uint8Array(payload).fill(0x2e)
  client.publish(topic, bytes)
  if (roles.includes('subscriber')) timer = setInterval(() => client.publish(topic, bytes), AGAIN)
}
await leave(() => {
  clearInterval(timer)
  return Promise.all(clients.map((client) => client.close()))
})

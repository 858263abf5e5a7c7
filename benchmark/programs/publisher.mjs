// Publishes as fast as it may: no further ahead of the slowest receiver than the window, if there is one, and not
// while the peer's own client says that it has enough.
import { open } from '../peers/open.mjs'
import { leave, order, payloads, settings, tell, turn } from './stage.mjs'

const { peer, address, topic, payload, receivers, window, burst, verb } = settings

const client = await open(peer, address, 'publisher', settings)
await client.ready?.()
const credits = new Array(receivers).fill(0)
let lowest = window === undefined ? Number.POSITIVE_INFINITY : 0
let waiting
for (let index = 0; window !== undefined && index < receivers; index += 1) {
  await client.subscribe(`credit/${index}`, (_topic, _sender, _length, _first, data) => {
    credits[index] = new DataView(data.buffer, data.byteOffset).getFloat64(0)
    lowest = Math.min(...credits)
    waiting?.()
  })
}
await client.settled?.()
let stopped = false
order('stop').then(() => {
  stopped = true
  waiting?.()
})
tell('ready', process.pid)
await order('go')

const post =
  verb === 'send' ? (data) => client.send('subscriber-0', data) : (data) => client.publish(topic, data)
const bytes = payloads(payload)
let sent = 0
while (!stopped) {
  const allowed = Math.min(burst, lowest + (window ?? 0) - sent)
  if (allowed <= 0) {
    await new Promise((resolve) => {
      waiting = resolve
    })
    waiting = undefined
    continue
  }
  for (let left = allowed; left > 0; left -= 1) {
    const goesOn = post(bytes[sent & 0xff])
    sent += 1
    if (!goesOn) await client.drained()
  }
  // Credits and orders come with a turn of the event loop.
  await turn()
}
await client.flush()
tell('sent', sent)
await leave(() => client.close())

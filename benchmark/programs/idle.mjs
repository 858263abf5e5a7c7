// Many clients that are connected, each subscribed to a topic of its own, and do nothing.
import { open } from '../peers/open.mjs'
import { fail, leave, settings, tell } from './stage.mjs'

const { peer, address, clients: wanted } = settings
const AT_ONCE = 50

const clients = []
while (clients.length < wanted) {
  const from = clients.length
  const one = async (_, index) => {
    const client = await open(peer, address, `idle-${from + index}`, settings)
    await client.subscribe(`idle/${from + index}`, () => fail('somebody sent something'))
    return client
  }
  clients.push(...(await Promise.all(Array.from({ length: Math.min(AT_ONCE, wanted - from) }, one))))
}
tell('ready')
await leave(() => Promise.all(clients.map((client) => client.close())))

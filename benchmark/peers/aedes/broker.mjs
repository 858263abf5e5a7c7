// Aedes in a Node process that does nothing else.
import net from 'node:net'
import { Aedes } from 'aedes'

/** Listens at this address. */
export async function listen({ host, port }) {
  const aedes = await Aedes.createBroker()
  const server = net.createServer({ noDelay: true }, aedes.handle)
  await new Promise((resolve) => server.listen(port, host, resolve))
}

// Moleculer as a peer of a measurement: calls between two nodes over its own TCP transporter, which needs no server and
// no third process. CBOR, as its default, JSON, makes lists of numbers of bytes.
import { ServiceBroker } from 'moleculer'

/** A node: the callee listens at the address, the caller knows it from the start. */
export async function open(address, name) {
  const [host, port] = address.split(':')
  const isCallee = name === 'callee'
  const options = {
    udpDiscovery: false,
    useHostname: false,
    // So many seconds until nodes that know each other tell what services they have.
    gossipPeriod: 0.2,
    ...(isCallee ? { port: Number(port) } : { urls: [`${host}:${port}/callee`] }),
  }
  const broker = new ServiceBroker({
    nodeID: name,
    logger: false,
    serializer: 'CBOR',
    transporter: { type: 'TCP', options },
  })
  if (isCallee) {
    broker.createService({ name: 'callee', actions: { echo: ({ params }) => ({ data: params.data }) } })
  }
  await broker.start()
  return {
    async ready() {
      await broker.waitForServices('callee', 10_000, 20)
      // Several first calls at once would open a connection each.
      if (!isCallee) await broker.call('callee.echo', { data: Buffer.alloc(1) })
    },
    serve: () => undefined,
    call: async (target, data) => (await broker.call(`${target}.echo`, { data })).data,
    close: () => broker.stop(),
  }
}

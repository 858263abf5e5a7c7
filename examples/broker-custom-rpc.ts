// A broker whose application answers calls beside `.broker`: under a name of its own, because `.broker` is the
// broker's.
//
//   node dist-examples/broker-custom-rpc.js [ADDRESS]        a socket path or HOST:PORT; until Ctrl-C
//
// Methods of the client `app`:
//   add          { a, b }      their sum
//   caller       none          the name of the client that asks
//   idle         { most }      clients that have sent at most so many frames
//   disconnect   { name }      ends a client's connection; only for the client `admin`

import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Broker, RpcError } from 'elbus-node'

const INVALID_PARAMS = -32602
const FORBIDDEN = 1

async function main([address = join(tmpdir(), 'elbus-custom-rpc.sock')]: readonly string[]): Promise<void> {
  const broker = await Broker.start()
  const app = await broker.client('app')
  app.serve({
    add(params?: { a?: unknown; b?: unknown }) {
      const { a, b } = params ?? {}
      if (typeof a !== 'number' || typeof b !== 'number')
        throw new RpcError(INVALID_PARAMS, 'a and b are numbers')
      return a + b
    },
    caller: (_params: unknown, { sender }) => sender,
    idle(params?: { most?: number }) {
      const most = params?.most ?? 0
      return broker.clients().flatMap(({ name, received }) => (received.frames <= most ? [name] : []))
    },
    disconnect({ name }: { name: string }, { sender }) {
      if (sender !== 'admin') throw new RpcError(FORBIDDEN, `${sender} may not disconnect others`)
      return broker.forceDisconnect(name)
    },
  })
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => void broker.close())
  console.log(`listening on ${await broker.listen(address)}`)
}

void main(process.argv.slice(2))

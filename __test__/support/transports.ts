// One test body over every way to reach a broker: a client of `broker.client()`, `connect()` over a UNIX socket, over
// TCP, and by the address of a broker of this process.

import type { ExecutionContext } from 'ava'
import { Broker, type BrokerOptions, type Client, type ClientOptions, connect } from 'elbus-node'
import { testIf } from './skip'
import { socketPath } from './temp'
import { soon } from './within'

/** How clients of a test reach their broker. */
export type Transport = 'broker.client' | 'inproc' | 'unix' | 'tcp'

/** Those in the process of the broker, where verbs are carried out at once. */
export const LOCAL: readonly Transport[] = ['broker.client', 'inproc']
/** Why clients cannot reach a broker so on this platform; `undefined` if they can. For `testIf`. */
export function missing(transport: Transport): string | undefined {
  return transport === 'unix' && process.platform === 'win32' ? 'Windows has no UNIX sockets' : undefined
}

/** Those over a socket. */
export const SOCKETS: readonly Transport[] = ['unix', 'tcp']
/** All. */
export const ALL: readonly Transport[] = [...LOCAL, ...SOCKETS]

/** A broker and the way to it. */
export interface Bus {
  readonly transport: Transport
  readonly broker: Broker
  /** Where `connect` goes. */
  readonly address: string
  /** Opens a client, closed when the test is over. */
  open(name: string, options?: ClientOptions): Promise<Client>
}

/** A broker that is closed when the test is over. */
export async function startBroker(t: ExecutionContext, options: BrokerOptions = {}): Promise<Broker> {
  const broker = await Broker.start(options)
  t.teardown(() => soon(broker.close({ drain: 0 }), 'the broker closes'))
  return broker
}

/** Closes a client when the test is over. */
export function closing(t: ExecutionContext, client: Client): Client {
  t.teardown(() => soon(client.close(), `client ${client.name} closes`))
  return client
}

/** A broker that clients reach in one of the ways. */
export async function startBus(
  t: ExecutionContext,
  transport: Transport,
  options: BrokerOptions = {},
): Promise<Bus> {
  const broker = await startBroker(t, options)
  const address =
    transport === 'unix'
      ? await broker.listen(`unix:${socketPath(t)}`)
      : transport === 'tcp'
        ? await broker.listen('tcp://127.0.0.1:0')
        : broker.address
  const open = async (name: string, client: ClientOptions = {}): Promise<Client> =>
    closing(
      t,
      transport === 'broker.client'
        ? await broker.client(name, client)
        : await connect(address, { ...client, name }),
    )
  return { transport, broker, address, open }
}

/**
 * Registers a test for each of the ways; its title ends with which. One after the other: tests of a file share a thread,
 * and one that keeps it busy would let the logins of another time out.
 */
export function overEach(
  transports: readonly Transport[],
  title: string,
  body: (t: ExecutionContext, bus: Bus) => Promise<void>,
  options?: BrokerOptions,
): void {
  for (const transport of transports) {
    testIf(missing(transport), { serial: true })(`${title} [${transport}]`, async (t) =>
      body(t, await startBus(t, transport, options)),
    )
  }
}

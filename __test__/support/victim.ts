// A client whose broker is hostile, and what must not be harmed by it: another client, and the process.

import test, { type ExecutionContext } from 'ava'
import { BusError, type BusErrorCode, type Client, type ConnectOptions, connect } from 'elbus-node'
import { RawBroker, type RawSession } from './raw-broker'
import { socketPath } from './temp'
import { closing, startBroker } from './transports'
import { soon } from './within'

/** Nothing here may be a fault of the package's own, which would come as a warning of the process. */
export function noWarnings(): void {
  const warnings: Error[] = []
  process.on('warning', (warning) => warnings.push(warning))
  test.after('no warning was given', (t) => {
    t.deepEqual(warnings, [])
  })
}

/** A client of a broker that is played by hand, and one beside it that must not notice. */
export interface Victim {
  readonly client: Client
  readonly session: RawSession
  /** What the client has called a fault of a handler. */
  readonly faults: unknown[]
  /** Fails unless the other client goes on as ever. */
  unharmed(): Promise<void>
}

/** As a {@link Victim} without the other one. */
export type Prey = Omit<Victim, 'unharmed'>

type Options = Omit<ConnectOptions, 'name'>

/** Opens one more client of a raw broker. */
export async function open(t: ExecutionContext, broker: RawBroker, options: Options = {}): Promise<Prey> {
  const connecting = connect(broker.address, { name: 'victim', ...options })
  const session = await broker.letIn()
  const client = closing(t, await soon(connecting, 'the login'))
  const faults: unknown[] = []
  client.on('fault', (fault) => faults.push(fault))
  return { client, session, faults }
}

/** A client of a healthy broker in the same process; the check that it is unharmed. */
export async function bystander(t: ExecutionContext): Promise<() => Promise<void>> {
  const broker = await startBroker(t)
  const client = closing(
    t,
    await connect(await broker.listen(`unix:${socketPath(t)}`), { name: 'bystander' }),
  )
  const other = closing(t, await broker.client('other'))
  other.serve({ echo: (params: unknown) => params })
  return async () => {
    t.deepEqual(await soon(client.call('other', 'echo', { still: 'here' }), 'the other client is answered'), {
      still: 'here',
    })
    t.true(client.connected)
  }
}

/** A client of a raw broker, and one beside it. */
export async function victim(t: ExecutionContext, options: Options = {}): Promise<Victim> {
  const unharmed = await bystander(t)
  return { ...(await open(t, await RawBroker.listen(t), options)), unharmed }
}

/** Everything a client is given, as texts. */
export async function recorded(client: Client, session: RawSession): Promise<string[]> {
  const log: string[] = []
  client.messages({
    callback: ({ kind, sender, data }) => log.push(`${kind} ${sender} ${Buffer.from(data).toString('hex')}`),
  })
  const topics = client.subscribe('#', {
    callback: ({ sender, topic, data }) =>
      log.push(`publish ${sender} ${topic} ${Buffer.from(data).toString('hex')}`),
  })
  await session.acknowledged()
  await soon(topics.ready, 'the subscription')
  client.serve(
    {
      m: (params: Uint8Array, { sender }) => {
        log.push(`request ${sender} ${Buffer.from(params).toString('hex')}`)
        return params
      },
    },
    {
      raw: true,
      onNotification: (data, { sender }) =>
        log.push(`notification ${sender} ${Buffer.from(data).toString('hex')}`),
    },
  )
  return log
}

/** The error a client ends with. */
export async function end(client: Client): Promise<Error | undefined> {
  return soon(client.closed, 'the end of the client')
}

/** What kind of failure it is. */
export function codeOf(error: unknown): BusErrorCode | undefined {
  return error instanceof BusError ? error.code : undefined
}

/** Everything the raw broker wrote before has been handled once this resolves. */
export async function roundTrip(client: Client, session: RawSession): Promise<void> {
  const answered = client.flush()
  await session.acknowledged()
  await soon(answered, 'the answer of a round trip')
}

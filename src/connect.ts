// Connecting to a broker by its address.

import { checkName } from './batch'
import { Client } from './client'
import { BusError } from './errors'
import { LocalLink } from './local-link'
import { type ConnectOptions, connectLimits } from './options'
import { dial } from './socket-link'

/**
 * Connects to a broker and registers a client.
 *
 * `to` is `unix:/path` or a path, `tcp://host:port` or `host:port`, or `inproc:<number>`, the `address` of a broker of
 * this process that another thread started.
 *
 * The client keeps its thread alive until it is closed, unless `unref()` is called.
 *
 * Rejects with `ERR_BUS_ADDRESS` if nobody listens there, `ERR_BUS_BUSY` if the name is taken, `ERR_BUS_ACCESS` if the
 * broker does not let it in, `ERR_BUS_TIMEOUT`, or the reason of `signal`.
 */
export async function connect(to: string, options: ConnectOptions): Promise<Client> {
  if (typeof to !== 'string')
    throw new BusError('ERR_BUS_ARGUMENT', `the address is a string, not ${typeof to}`)
  checkName(options?.name)
  connectLimits(options)
  options.signal?.throwIfAborted()
  const rpc = options.rpc !== false
  const broker = /^inproc:(\d{1,10})$/.exec(to)?.[1]
  const client = await Client.open(rpc, (deliveries) =>
    broker === undefined
      ? dial(to, options, deliveries)
      : new LocalLink(Number(broker), options.name, rpc, deliveries),
  )
  return client.ref()
}

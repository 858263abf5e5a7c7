// A client of the named peer.

const modules = { elbus: './elbus.mjs', hub: './hub-client.mjs', nats: './nats/client.mjs' }

/** Opens a client of `peer` at `address`. */
export async function open(peer, address, name) {
  const module = await import(modules[peer])
  return module.open(address, name)
}

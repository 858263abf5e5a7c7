// A client of the named peer.
//
// A client has `subscribe(topic, taken)` and `publish(topic, payload)`, `listen(taken)` and `send(target, payload)`,
// `serve()` and `call(target, params)`, `drained()`, `flush()` and `close()`, or those of them its peer is measured with.
// `taken` is given what was read of each message: the length of its topic, its sender (0 where there is none), its length,
// its first byte, and its bytes. `publish` and `send` return false if the sender is to wait for `drained()`.

const modules = {
  elbus: './elbus.mjs',
  hub: './hub-client.mjs',
  nats: './nats/client.mjs',
  redis: './redis/client.mjs',
  mqtt: './mqtt/client.mjs',
  zeromq: './zeromq/client.mjs',
  moleculer: './moleculer/client.mjs',
  'process-send': './process-send.mjs',
  'message-port': './message-port.mjs',
}

/** Opens a client of `peer` at `address`; `settings` are those of the program. */
export async function open(peer, address, name, settings = {}) {
  const module = await import(modules[peer])
  return module.open(address, name, settings)
}

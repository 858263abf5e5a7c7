// The hub somebody would write by hand on node:net, as the far side of a measurement: clients subscribe to topics, by
// name and without wildcards, and what is published is passed on to whoever subscribed. What one read brings leaves in
// one write for each receiver. No login, no rights, no acknowledgements, no bounds beyond the pause of the senders.
import net from 'node:net'
import { Outgoing, PUBLISH, readFrames, SUBSCRIBE, SUBSCRIBED } from './hub-wire.mjs'

/** Bytes that may wait for one receiver before all senders are paused. */
const HIGH = 4 << 20

/** Listens at these addresses. */
export async function listen(...addresses) {
  const subscribers = new Map()
  const sockets = new Set()
  const dirty = new Set()
  const flush = () => {
    for (const client of dirty) {
      client.outgoing.flush()
      if (client.socket.writableLength > HIGH) pause(client.socket)
    }
    dirty.clear()
  }
  const pause = (slow) => {
    for (const socket of sockets) socket.pause()
    slow.once('drain', () => {
      for (const socket of sockets) socket.resume()
    })
  }
  const accept = (socket) => {
    socket.setNoDelay(true)
    sockets.add(socket)
    const client = { socket, outgoing: new Outgoing(socket) }
    const take = (bytes, from, to, operation, topic) => {
      if (operation === PUBLISH) {
        const receivers = subscribers.get(topic)
        if (receivers === undefined) return
        for (const receiver of receivers) {
          receiver.outgoing.copy(bytes, from, to)
          dirty.add(receiver)
        }
      } else if (operation === SUBSCRIBE) {
        if (!subscribers.has(topic)) subscribers.set(topic, new Set())
        subscribers.get(topic).add(client)
        client.outgoing.frame(SUBSCRIBED, topic, new Uint8Array(0))
        dirty.add(client)
      }
    }
    readFrames(socket, take, flush)
    socket.on('error', () => socket.destroy())
    socket.on('close', () => {
      sockets.delete(socket)
      for (const receivers of subscribers.values()) receivers.delete(client)
    })
  }
  for (const address of addresses) {
    await new Promise((resolve) => net.createServer(accept).listen(address, resolve))
  }
}

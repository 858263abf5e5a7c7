// Run by slow-consumer.spec.ts in a process of its own: sends to a subscriber that never reads, and tells its memory.

import { readFileSync } from 'node:fs'
import net from 'node:net'
import { Broker } from 'elbus-node'

/** Bytes of a field of /proc/self/status. */
function memory(field: 'VmHWM' | 'VmRSS'): number {
  const text = readFileSync('/proc/self/status', 'utf8')
  return Number(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(text)?.[1]) * 1024
}

async function main(path: string, payloadBytes: number, totalBytes: number): Promise<void> {
  const broker = await Broker.start({ listen: [path], stallTimeout: 60_000, queue: { bytes: 4 << 20 } })
  const socket = net.connect(path)
  await new Promise((resolve) => socket.on('connect', resolve))
  socket.pause()
  // Its login, and a subscription to `t/#`.
  socket.write(
    Buffer.from([
      0xeb,
      1,
      0,
      4,
      0,
      ...Buffer.from('mute'),
      1,
      0,
      0,
      0,
      0x02,
      3,
      0,
      0,
      0,
      ...Buffer.from('t/#'),
    ]),
  )
  const sender = await broker.client('sender')
  while ((broker.clients('mute')[0]?.received.frames ?? 0) === 0)
    await new Promise((resolve) => setImmediate(resolve))
  const payload = new Uint8Array(payloadBytes).fill(120)
  for (let index = 0; index < 10; index += 1) await sender.publish('x', payload, { ack: true })
  const before = memory('VmRSS')
  let queued = 0
  for (let sent = 0; sent < totalBytes; sent += payloadBytes) {
    await sender.publish('t/1', payload, { ack: true })
    queued = Math.max(queued, broker.stats().queuedBytes)
  }
  const { refused } = broker.stats()
  console.log(JSON.stringify({ growth: memory('VmHWM') - before, queued, refused }))
  socket.destroy()
  await broker.close({ drain: 0 })
}

const [path = '', payloadBytes, totalBytes] = process.argv.slice(2)
void main(path, Number(payloadBytes), Number(totalBytes))

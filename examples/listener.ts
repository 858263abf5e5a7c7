// Prints everything that reaches a client.
//
//   node dist-examples/listener.js ADDRESS [MASK...]        masks of topics, `#` unless given; until Ctrl-C
//
// It is `example.listener`, so others reach it by that name and by broadcasts to example.*

import { connect, type Message } from 'elbus-node'

function print(message: Message): void {
  const { kind, sender, topic } = message
  console.log(`${kind} from ${sender}${topic === undefined ? '' : ` to ${topic}`}: ${message.text()}`)
}

async function main([address = '/tmp/bus.sock', ...masks]: readonly string[]): Promise<void> {
  const client = await connect(address, { name: 'example.listener' })
  client.messages({ callback: print })
  await client.subscribe(masks.length > 0 ? masks : ['#'], { callback: print }).ready
  console.log(`${client.name} is listening`)

  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => void client.close())
  const reason = await client.closed
  if (reason === undefined) return
  console.error(reason.message)
  process.exitCode = 1
}

void main(process.argv.slice(2))

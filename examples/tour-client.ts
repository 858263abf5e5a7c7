// A client of the tour outside its thread: run as a worker thread and as another process. It says what reaches it, and
// does what it is told.

import { parentPort, workerData } from 'node:worker_threads'
import { connect, type Message } from 'elbus-node'

/** What it can be told. Each verb waits for the broker's answer. */
export type Command =
  | readonly ['send', target: string, text: string]
  | readonly ['publish', topic: string, text: string]
  | readonly ['call', target: string, method: string, params: unknown]
  | readonly ['leave']

function say(line: string): void {
  if (parentPort === null) process.send?.(line)
  else parentPort.postMessage(line)
}

function show(message: Message): void {
  const topic = message.topic === undefined ? '' : `, topic ${message.topic}`
  const kind = message.kind === 'publish' ? 'publication' : message.kind
  say(`${kind} from ${message.sender}${topic}: ${message.text()}`)
}

async function main([address, name, mask]: readonly string[]): Promise<void> {
  const client = await connect(address as string, { name: name as string })
  client.serve({
    hello(params: unknown, { sender }) {
      say(`call of hello from ${sender}: ${JSON.stringify(params)}`)
      return params
    },
  })
  client.messages({ callback: show })
  await client.subscribe(mask as string, { callback: show }).ready

  const carryOut = async (command: Command): Promise<void> => {
    if (command[0] === 'send') await client.send(command[1], command[2], { ack: true })
    else if (command[0] === 'publish') await client.publish(command[1], command[2], { ack: true })
    else if (command[0] === 'call') {
      const [, target, method, params] = command
      say(`result of ${method} from ${target}: ${JSON.stringify(await client.call(target, method, params))}`)
    } else await leave()
  }
  const leave = async (): Promise<void> => {
    await client.close()
    // Nothing else keeps this thread or process.
    if (parentPort !== null) parentPort.close()
    else if (process.connected) process.disconnect()
  }
  if (parentPort !== null) parentPort.on('message', (command: Command) => void carryOut(command))
  else {
    process.on('message', (command: Command) => void carryOut(command))
    // The tour has ended without a word.
    process.on('disconnect', () => void client.close())
  }
  say(`connected as ${client.name}`)
}

void main(parentPort === null ? process.argv.slice(2) : (workerData as string[]))

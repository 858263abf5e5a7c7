// Worker threads that talk to each other through a broker in their process, and a client in another process that
// talks to them over a socket in the same words.
//
//   node dist-examples/inter-thread.js [SOCKET]        prints where it listens; until Ctrl-C
//
// sensor    worker thread: publishes a count to sensor/count ten times a second
// display   worker thread: prints every tenth count
// sums      worker thread: answers the call `sum`, numbers in, their sum and the thread's number out
// outside   another process: calls `sum`, prints the answer and three counts, ends

import { fork } from 'node:child_process'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { isMainThread, parentPort, threadId, Worker, workerData } from 'node:worker_threads'
import { Broker, type Client, connect } from 'elbus-node'

const ROLES: Record<string, (client: Client) => unknown> = {
  sensor(client) {
    let count = 0
    const timer = setInterval(() => {
      count += 1
      client.publish('sensor/count', String(count))
    }, 100)
    void client.closed.then(() => clearInterval(timer))
  },
  async display(client) {
    for await (const message of client.subscribe('sensor/#')) {
      if (message.text().endsWith('0')) console.log(`display: ${message.sender} counts ${message.text()}`)
    }
  },
  sums(client) {
    client.serve({
      sum: (numbers: number[]) => ({ sum: numbers.reduce((a, b) => a + b, 0), thread: threadId }),
    })
    // What the main thread waits for before it lets others in.
    parentPort?.postMessage('ready')
  },
  async outside(client) {
    const { sum } = await client.call<{ sum: number }>('sums', 'sum', [1, 2, 3])
    console.log(`outside: 1 + 2 + 3 = ${sum}, says a worker thread`)
    let counts = 3
    for await (const message of client.subscribe('sensor/#')) {
      console.log(`outside: ${message.sender} counts ${message.text()}`)
      counts -= 1
      if (counts === 0) break
    }
    await client.close()
  },
}

async function takePart(address: string, role: string): Promise<void> {
  const client = await connect(address, { name: role })
  if (!isMainThread) {
    // The main thread says when to stop. Until then the connection keeps this thread alive.
    parentPort?.once('message', () => void client.close())
  }
  await ROLES[role]?.(client)
}

async function main(socket: string): Promise<void> {
  const broker = await Broker.start()
  const workers = ['sensor', 'display', 'sums'].map(
    (role) => new Worker(__filename, { workerData: { address: broker.address, role } }),
  )
  const stop = async (): Promise<void> => {
    const ends = workers.map((worker) => new Promise((resolve) => worker.once('exit', resolve)))
    for (const worker of workers) worker.postMessage('stop')
    await Promise.all(ends)
    await broker.close()
    console.log('closed')
  }
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => void stop())
  await new Promise((resolve) => workers.at(-1)?.once('message', resolve))
  const address = await broker.listen(socket)
  console.log(`listening on ${address}`)
  fork(__filename, ['--outside', address])
}

const [first, second] = process.argv.slice(2)
if (!isMainThread) void takePart(workerData.address, workerData.role)
else if (first === '--outside' && second !== undefined) void takePart(second, 'outside')
else void main(first ?? join(tmpdir(), 'elbus-inter-thread.sock'))

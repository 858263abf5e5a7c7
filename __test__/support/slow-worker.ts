// Run in a thread by slow-consumer.spec.ts: a subscriber whose event loop stands still until it is let go.

import { parentPort, workerData } from 'node:worker_threads'
import { connect } from 'elbus-node'

/** What it is given. */
export interface SlowData {
  readonly address: string
  readonly name: string
  /** It sets the first word when it stands still, and goes on once the second is 1. */
  readonly gate: Int32Array
  /** What it subscribes to. */
  readonly masks: readonly string[]
}

/** What it tells when it has seen a message `end`. */
export interface Seen {
  readonly numbers: number[]
}

async function main({ address, name, gate, masks }: SlowData): Promise<void> {
  const client = await connect(address, { name })
  const numbers: number[] = []
  const seen = (text: string): void => {
    if (text === 'end') {
      parentPort?.postMessage({ numbers } satisfies Seen)
      return
    }
    numbers.push(Number(text.split(' ')[0]))
    if (numbers.length > 1) return
    Atomics.store(gate, 0, 1)
    Atomics.notify(gate, 0)
    Atomics.wait(gate, 1, 0)
  }
  const subscription = client.subscribe(masks, { callback: (message) => seen(message.text()) })
  client.messages({ callback: (message) => seen(message.text()) })
  await subscription.ready
  parentPort?.postMessage('ready')
  parentPort?.on('message', () => void client.close().then(() => parentPort?.close()))
}

void main(workerData as SlowData)

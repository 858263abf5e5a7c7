// The package is loaded by worker threads first, by several in turn and at once, each of which ends; then by this one. Run
// on every platform by trial.mjs. Ends with `N passed, N failed`.
import { deepStrictEqual, strictEqual } from 'node:assert'
import { once } from 'node:events'
import process from 'node:process'
import { fileURLToPath } from 'node:url'
import { isMainThread, parentPort, Worker } from 'node:worker_threads'

const self = fileURLToPath(import.meta.url)

/** A broker, a call, a large message; what a thread does with the package. */
async function use() {
  const { Broker } = await import('elbus-node')
  const broker = await Broker.start()
  const [a, b] = [await broker.client('a'), await broker.client('b')]
  b.serve({ size: (bytes) => bytes.length })
  const size = await a.call('b', 'size', { length: 300_000 })
  await broker.close()
  return size
}

/** What a new thread says, once it has ended. */
async function thread() {
  const worker = new Worker(self)
  const said = once(worker, 'message')
  const [status] = await once(worker, 'exit')
  strictEqual(status, 0)
  return (await said)[0]
}

const CHECKS = {
  async 'eight threads, one after the other'() {
    for (let round = 0; round < 8; round += 1) strictEqual(await thread(), 300_000)
  },
  async 'four at once'() {
    deepStrictEqual(await Promise.all(Array.from({ length: 4 }, thread)), Array(4).fill(300_000))
  },
  async 'then the main thread'() {
    strictEqual(await use(), 300_000)
  },
  async 'and another'() {
    strictEqual(await thread(), 300_000)
  },
}

async function main() {
  let failed = 0
  for (const [name, check] of Object.entries(CHECKS)) {
    try {
      await check()
      console.log(`ok ${name}`)
    } catch (error) {
      failed += 1
      console.log(`FAILED ${name}: ${error.stack}`)
    }
  }
  console.log(`${Object.keys(CHECKS).length - failed} passed, ${failed} failed`)
  process.exitCode = failed === 0 ? 0 : 1
}

if (isMainThread) await main()
else parentPort.postMessage(await use())

// Run under valgrind by valgrind.spec.ts: everything that passes the raw entry points of the addon, once.
import { isMainThread, Worker, workerData } from 'node:worker_threads'
import { Broker, connect, RpcError } from 'elbus-node'

/** Everything takes some fifty times as long there. */
const PATIENCE = 120_000

/** Publishes until it is terminated. */
async function flood(address: string, name: string): Promise<void> {
  const client = await connect(address, { name, timeout: PATIENCE, silenceLimit: PATIENCE })
  for (;;) {
    if (!client.publish('flood/1', Buffer.alloc(300, 7))) await client.drained()
    await new Promise((resolve) => setImmediate(resolve))
  }
}

async function main(socket: string): Promise<void> {
  const broker = await Broker.start({
    stallTimeout: PATIENCE,
    listen: [{ url: `unix:${socket}`, timeout: PATIENCE }],
  })
  const local = await broker.client('local')
  const remote = await connect(`unix:${socket}`, {
    name: 'remote',
    timeout: PATIENCE,
    silenceLimit: PATIENCE,
  })
  local.serve({
    echo: (params: unknown) => params,
    fail: () => {
      throw new RpcError(7, 'why')
    },
  })
  const lengths = [0, 1, 24, 25, 8_191, 8_192, 8_193, 70_000, 300_000, 1_000_000]
  let bytes = 0
  for (const [from, to] of [
    [remote, local],
    [local, remote],
  ] as const) {
    const subscription = to.subscribe(`from/${from.name}/#`)
    await subscription.ready
    for (const length of lengths) from.publish(`from/${from.name}/${length}`, new Uint8Array(length).fill(7))
    let left = lengths.length
    for await (const message of subscription) {
      if (message.data.some((byte) => byte !== 7)) throw new Error('wrong bytes')
      bytes += message.data.length
      left -= 1
      if (left === 0) break
    }
    for (const length of lengths) {
      const echoed = await from.call<Uint8Array>(
        'local',
        'echo',
        { bytes: new Uint8Array(length) },
        { timeout: PATIENCE },
      )
      if (echoed === undefined) throw new Error('no echo')
    }
    await from.call('local', 'fail').catch(() => undefined)
    await from.call('nobody', 'fail').catch(() => undefined)
  }
  // More names than the tables have places.
  for (let index = 0; index < 17_000; index += 1) local.publish(`topic/${index}`, 'x')
  local.publish('x'.repeat(1_000), 'a long topic')
  let arrived = (): void => undefined
  const floods = local.subscribe('flood/#', { callback: () => arrived() })
  await floods.ready
  for (let round = 0; round < 3; round += 1) {
    for (const address of [broker.address, `unix:${socket}`]) {
      const worker = new Worker(__filename, { workerData: { address, name: `worker${round}` } })
      // In the middle of its traffic.
      await new Promise<void>((resolve) => {
        arrived = resolve
      })
      await worker.terminate()
    }
  }
  await remote.close()
  await broker.close({ drain: 100 })
  console.log(`done ${bytes}`)
}

if (isMainThread) void main(process.argv[2] as string)
else void flood((workerData as { address: string }).address, (workerData as { name: string }).name)

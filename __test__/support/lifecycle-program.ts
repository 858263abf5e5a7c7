// Run by lifecycle.spec.ts in a process of its own: each scenario leaves something open, or ends in the middle of it.

import { setTimeout as sleep } from 'node:timers/promises'
import { Broker, connect } from 'elbus-node'

const never = new Promise<never>(() => undefined)

/** Written when the process ends by itself. */
function sayBye(): void {
  process.on('exit', (code) => console.log(`bye ${code}`))
}

/** Two clients in the process that have exchanged something. */
async function inside(): Promise<void> {
  const broker = await Broker.start()
  const [one, two] = [await broker.client('one'), await broker.client('two')]
  two.serve({ echo: (params: unknown) => params })
  one.subscribe('a/#', { callback: () => undefined })
  one.messages({ callback: () => undefined })
  console.log(await one.call('two', 'echo', 'echoed'))
}

const SCENARIOS: Record<string, (path: string) => Promise<unknown>> = {
  // ---- these end by themselves
  'in process': () => inside(),
  'no client': () => Broker.start(),
  'loaded only': async () => undefined,
  async 'closed listener'(path) {
    const broker = await Broker.start({ listen: [path, 'tcp://127.0.0.1:0'] })
    const client = await connect(path, { name: 'one' })
    await client.rtt()
    await client.close()
    await broker.close()
  },
  async 'closed with clients'(path) {
    const broker = await Broker.start({ listen: [path] })
    const client = await connect(path, { name: 'one' })
    await broker.client('two')
    client.on('close', (error) => console.log((error as { code?: string } | undefined)?.code))
    await broker.close()
  },
  async 'failed listen'() {
    const broker = await Broker.start()
    await broker.listen('/no/such/folder/x.sock').catch(() => undefined)
  },
  async 'failed connect'() {
    await connect('/no/such/folder/x.sock', { name: 'one' }).catch((error: { code?: string }) =>
      console.log(error.code),
    )
  },
  async 'call answered'() {
    await inside()
    const broker = await Broker.start()
    const client = await broker.client('one')
    await client.call('.broker', 'test', undefined, { timeout: Number.POSITIVE_INFINITY })
    await client.call('.broker', 'test', undefined, { timeout: 2 ** 30 })
  },
  async 'call timed out'() {
    const broker = await Broker.start()
    const client = await broker.client('one')
    client.serve({ never: () => never })
    await client
      .call('one', 'never', undefined, { timeout: 50 })
      .catch((error: { code?: string }) => console.log(error.code))
  },
  async 'unref socket'(path) {
    const client = await connect(path, { name: 'one' })
    client.unref()
    await client.rtt()
    console.log('unref')
  },
  async 'iterator left'() {
    const broker = await Broker.start()
    const client = await broker.client('one')
    const subscription = client.subscribe('a')
    await subscription.ready
    client.publish('a', 'x')
    for await (const message of subscription) {
      console.log(message.text())
      break
    }
  },
  async 'client connected inproc and closed'() {
    const broker = await Broker.start()
    const client = await connect(broker.address, { name: 'one' })
    await client.rtt()
    await client.close()
  },
  async 'exit code'() {
    await inside()
    process.exitCode = 7
  },

  // ---- these do not end
  async listens(path) {
    await Broker.start({ listen: [path] })
  },
  async 'listens, unreachable'(path) {
    // Nothing refers to it any more.
    void (await Broker.start({ listen: [path] }))
    globalThis.gc?.()
  },
  async 'socket client'(path) {
    await connect(path, { name: 'one' })
  },
  async 'connected inproc'() {
    const broker = await Broker.start()
    await connect(broker.address, { name: 'one' })
  },
  async 'ref client'() {
    const broker = await Broker.start()
    ;(await broker.client('one')).ref()
  },
  async 'awaited call'() {
    const broker = await Broker.start()
    const client = await broker.client('one')
    client.serve({ never: () => never })
    void client.call('one', 'never', undefined, { timeout: Number.POSITIVE_INFINITY })
  },
  async 'awaited message'() {
    const broker = await Broker.start()
    const client = await broker.client('one')
    for await (const message of client.messages()) console.log(message.text())
  },

  // ---- these end in the middle of traffic
  async 'process.exit'(path) {
    const broker = await Broker.start({ listen: [path] })
    const receivers = [await broker.client('local'), await connect(path, { name: 'remote' })]
    let received = 0
    for (const receiver of receivers) {
      const subscription = receiver.subscribe('t/#', {
        callback: () => {
          received += 1
          if (received === 20_000) process.exit(5)
        },
      })
      await subscription.ready
    }
    const senders = [await broker.client('sender'), await connect(path, { name: 'remote.sender' })]
    for (;;) {
      for (const sender of senders) {
        for (let index = 0; index < 100; index += 1)
          if (!sender.publish(`t/${index}`, 'x'.repeat(index))) break
      }
      await new Promise((resolve) => setImmediate(resolve))
    }
  },
  async 'uncaught throw'(path) {
    await Broker.start({ listen: [path] })
    const client = await connect(path, { name: 'one' })
    setInterval(() => client.publish('a', 'x'.repeat(1_000)), 1)
    setTimeout(() => {
      throw new Error('the program’s own mistake')
    }, 50)
    await sleep(60_000)
  },
  async 'exit in a callback'() {
    const broker = await Broker.start()
    const client = await broker.client('one')
    client.messages({ callback: () => process.exit(6) })
    client.send('one', 'x')
    await sleep(60_000)
  },
  async 'exit in a handler'(path) {
    const broker = await Broker.start({ listen: [path] })
    const local = await broker.client('local')
    local.serve({ exit: () => process.exit(8) })
    const remote = await connect(path, { name: 'remote' })
    await remote.call('local', 'exit')
  },
  async 'log closed'(path) {
    // Nobody reads its log any more. What is written by console.error then ends a process, so the package may not use it.
    await new Promise((resolve) => process.stdin.once('data', resolve))
    const broker = await Broker.start({ listen: [path] })
    const [local, remote] = [await broker.client('local'), await connect(path, { name: 'remote' })]
    broker.on('client', () => {
      throw new Error('a listener that throws')
    })
    let calls = 0
    local.serve({
      fails: () => {
        calls += 1
        throw new Error('a handler that throws')
      },
      echo: (params: unknown) => params,
    })
    const codes = new Set<string>()
    const end = Date.now() + 2_500
    while (Date.now() < end) {
      await remote.call('local', 'fails').catch((error: { code: string }) => codes.add(error.code))
      await (await broker.client('guest')).close()
    }
    const echo = await remote.call('local', 'echo', 'still here')
    await broker.close()
    process.exitCode = echo === 'still here' && calls > 100 && codes.size === 1 ? 9 : 1
    process.stdin.destroy()
  },
  async traffic(path) {
    const broker = await Broker.start({ listen: [path] })
    const client = await connect(path, { name: 'one' })
    const local = await broker.client('two')
    client.subscribe('#', { callback: () => undefined })
    console.log('running')
    for (;;) {
      local.publish('a/b', 'x'.repeat(1_000))
      client.publish('c', 'y')
      await new Promise((resolve) => setImmediate(resolve))
    }
  },
}

const [scenario = '', path = ''] = process.argv.slice(2)
sayBye()
void SCENARIOS[scenario]?.(path).then(() => console.log('begun'))

// What a user of the installed package does, once each: run on every platform by trial.mjs. Ends with `N passed, N failed`.
import { deepStrictEqual, ok, rejects, strictEqual } from 'node:assert'
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import path from 'node:path'
import process from 'node:process'
import { fileURLToPath } from 'node:url'
import { isMainThread, Worker, workerData } from 'node:worker_threads'
import { AaaMap, Broker, BusError, connect } from 'elbus-node'

const self = fileURLToPath(import.meta.url)
/** How long anything may take, emulated on a busy machine. */
const LONG_MS = 60_000

const has = (code) => (error) => error instanceof BusError && error.code === code

async function within(promise, what) {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited in vain: ${what}`)), LONG_MS)
  })
  return await Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

/** The next message of a subscription. */
async function next(from) {
  const { value } = await within(from[Symbol.asyncIterator]().next(), 'a message')
  return value
}

/** Another process or thread: says when it serves, answers `sum`, calls back, and leaves when it is told. */
async function peer(address, name) {
  const client = await connect(address, { name })
  const stop = new Promise((resolve) => {
    client.serve({ sum: (numbers) => numbers.reduce((a, b) => a + b, 0), stop: () => resolve() })
  })
  await client.publish('peers/arrived', { name, node: process.version }, { ack: true })
  await stop
  await client.close()
}

const CHECKS = {
  async 'require and import give the same package'() {
    strictEqual(createRequire(import.meta.url)('elbus-node').Broker, Broker)
  },

  async 'messages in the process, from 0 B to 1 MiB'({ broker }) {
    const [a, b] = [await broker.client('a'), await broker.client('b')]
    const inbox = b.messages()
    for (const size of [0, 1, 100, 5_000, 65_536, 1 << 20]) {
      const payload = new Uint8Array(size).map((_, index) => 65 + index * 7)
      await a.send('b', payload, { ack: true })
      const message = await next(inbox)
      deepStrictEqual([message.sender, Buffer.compare(message.data, payload)], ['a', 0])
    }
    await rejects(a.send('nobody', 'x', { ack: true }), has('ERR_BUS_NOT_REGISTERED'))
    await Promise.all([a.close(), b.close()])
  },

  async 'topics with wildcards, broadcasts by mask'({ broker }) {
    const [a, b] = [await broker.client('app.a'), await broker.client('app.b')]
    const [news, all] = [b.subscribe('news/+/today'), a.subscribe('#')]
    await Promise.all([news.ready, all.ready])
    b.publish('news/sport/yesterday', 'no')
    b.publish('news/sport/today', { yes: true })
    deepStrictEqual((await next(news)).decode(), { yes: true })
    deepStrictEqual(
      [(await next(all)).topic, (await next(all)).topic],
      ['news/sport/yesterday', 'news/sport/today'],
    )
    const inbox = a.messages()
    b.broadcast('app.*', 'everybody')
    strictEqual((await next(inbox)).text(), 'everybody')
    await Promise.all([a.close(), b.close()])
  },

  async 'calls, and what .broker answers'({ broker }) {
    const [a, b] = [await broker.client('caller'), await broker.client('callee')]
    b.serve({ add: ([x, y]) => x + y, fail: () => Promise.reject(new Error('secret')) })
    b.on('fault', () => undefined)
    strictEqual(await a.call('callee', 'add', [1, 2]), 3)
    deepStrictEqual(
      await Promise.all(Array.from({ length: 200 }, (_, x) => a.call('callee', 'add', [x, x]))),
      Array.from({ length: 200 }, (_, x) => 2 * x),
    )
    await rejects(a.call('callee', 'fail'), has('ERR_BUS_RPC'))
    deepStrictEqual(await a.call('.broker', 'test'), { ok: true })
    strictEqual((await a.call('.broker', 'info')).author.length > 0, true)
    ok((await a.call('.broker', 'stats')).r_frames > 0)
    const { clients } = await a.call('.broker', 'client.list')
    ok(clients.some(({ name }) => name === 'callee'))
    deepStrictEqual(await a.call('.broker', 'benchmark.test', { a: [1] }), { a: [1] })
    await Promise.all([a.close(), b.close()])
  },

  async 'clients on a UNIX socket and over TCP'({ addresses }) {
    for (const address of addresses) {
      const [a, b] = [await connect(address, { name: 'a' }), await connect(address, { name: 'b' })]
      const topics = b.subscribe('over/#')
      await topics.ready
      const payload = new Uint8Array(300_000).map((_, index) => 65 + index)
      await a.publish('over/it', payload, { ack: true })
      strictEqual(Buffer.compare((await next(topics)).data, payload), 0)
      b.serve({ twice: (n) => n * 2 })
      deepStrictEqual(
        await Promise.all(Array.from({ length: 100 }, (_, n) => a.call('b', 'twice', n))),
        Array.from({ length: 100 }, (_, n) => 2 * n),
      )
      await rejects(connect(address, { name: 'a' }), has('ERR_BUS_BUSY'))
      await Promise.all([a.close(), b.close()])
    }
  },

  async 'another process'({ broker, addresses }) {
    for (const address of addresses) {
      await visit(broker, 'process', () => {
        const child = fork(self, ['peer', address, 'process'])
        return once(child, 'exit').then(([status]) => status)
      })
    }
  },

  async 'worker threads, joined to the broker without a socket'({ broker }) {
    const names = ['thread.0', 'thread.1', 'thread.2']
    await Promise.all(
      names.map((name) =>
        visit(broker, name, () => {
          const worker = new Worker(self, { workerData: [broker.address, name] })
          return once(worker, 'exit').then(([status]) => status)
        }),
      ),
    )
  },

  async 'the access map: who may what, edited while it runs'({ broker, folder }) {
    const aaa = new AaaMap({
      narrow: { ...AaaMap.NOTHING, publish: ['own/#'], subscribe: ['own/#'] },
      far: { hosts: ['10.0.0.0/8'] },
    })
    const guarded = await broker.listen({ url: path.join(folder, 'guarded.sock'), aaa })
    const tcp = await broker.listen({ url: 'tcp://127.0.0.1:0', aaa })
    const refused = has('ERR_BUS_ACCESS')
    await rejects(connect(guarded, { name: 'stranger' }), refused)
    await rejects(connect(tcp, { name: 'far' }), refused)
    const narrow = await connect(guarded, { name: 'narrow' })
    const own = narrow.subscribe('own/#')
    await own.ready
    await narrow.publish('own/a', 'mine', { ack: true })
    strictEqual((await next(own)).text(), 'mine')
    await rejects(narrow.publish('other/a', 'x', { ack: true }), refused)
    await rejects(narrow.subscribe('#').ready, refused)
    await rejects(narrow.broadcast('*', 'x', { ack: true }), refused)
    await rejects(narrow.send('narrow', 'x', { ack: true }), refused)
    aaa.update('narrow', { publish: ['other/#'] })
    await narrow.publish('own/a', 'as it was when it connected', { ack: true })
    aaa.apply('narrow')
    await narrow.publish('other/a', 'x', { ack: true })
    await rejects(narrow.publish('own/a', 'x', { ack: true }), refused)
    aaa.delete('narrow')
    broker.forceDisconnect('narrow')
    await within(narrow.closed, 'the end of a client that is put out')
    await rejects(connect(guarded, { name: 'narrow' }), refused)
  },

  async 'what breaks the protocol ends its connection only'({ broker, addresses }) {
    const { createConnection } = await import('node:net')
    const [, tcp] = addresses
    const { port } = new URL(tcp)
    for (const bytes of ['eb0100', 'ffffffffffffffffff', 'eb01000100', '00']) {
      const socket = createConnection(Number(port), '127.0.0.1')
      socket.on('error', () => undefined).on('data', () => undefined)
      const closed = once(socket, 'close')
      socket.end(Buffer.from(bytes, 'hex'))
      await within(closed, `the end of ${bytes}`)
    }
    const client = await broker.client('still')
    deepStrictEqual(await client.call('.broker', 'test'), { ok: true })
    await client.close()
  },
}

/** Waits for a peer, lets it add, and sees it leave with status 0. */
async function visit(broker, name, start) {
  const host = await broker.client(`host.${name}`)
  const arrivals = host.subscribe('peers/arrived')
  await arrivals.ready
  const ended = start()
  for (;;) {
    const arrived = (await next(arrivals)).decode()
    if (arrived.name !== name) continue
    strictEqual(arrived.node, process.version)
    break
  }
  strictEqual(await host.call(name, 'sum', [1, 2, 3], { timeout: LONG_MS }), 6)
  await host.call(name, 'stop', null, { timeout: LONG_MS })
  strictEqual(await within(ended, `the end of ${name}`), 0)
  await host.close()
}

async function main() {
  const folder = mkdtempSync(path.join(tmpdir(), 'elbus-'))
  const broker = await Broker.start()
  const addresses = [
    await broker.listen(path.join(folder, 'bus.sock')),
    await broker.listen('tcp://127.0.0.1:0'),
  ]
  const counts = { passed: 0, failed: 0 }
  for (const [name, check] of Object.entries(CHECKS)) {
    try {
      await check({ broker, folder, addresses })
      counts.passed += 1
      console.log(`ok ${name}`)
    } catch (error) {
      counts.failed += 1
      console.log(`FAILED ${name}: ${error.stack}`)
    }
  }
  await broker.close()
  rmSync(folder, { recursive: true, force: true })
  console.log(`${counts.passed} passed, ${counts.failed} failed`)
  // And then it ends by itself: nothing of the broker is left that keeps it.
  process.exitCode = counts.failed === 0 ? 0 : 1
}

if (!isMainThread) await peer(...workerData)
else if (process.argv[2] === 'peer') {
  await peer(process.argv[3], process.argv[4])
  process.disconnect()
} else await main()

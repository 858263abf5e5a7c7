// The examples as the programs they are, with clients from outside: what they print and answer is checked.

import { spawn } from 'node:child_process'
import { chmodSync, existsSync, readdirSync, writeFileSync } from 'node:fs'
import { networkInterfaces } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { type Client, type ConnectOptions, connect } from 'elbus-node'
import { root, Script } from './support/script'
import { missing, testIf } from './support/skip'
import { socketPath, tempFolder } from './support/temp'
import { soon } from './support/within'

function start(
  t: ExecutionContext,
  name: string,
  args: string[] = [],
  env: Record<string, string> = {},
): Script {
  return Script.start(t, join(root, 'dist-examples', `${name}.js`), args, env)
}

/** Where an example says it listens. */
async function addressOf(program: Script): Promise<string> {
  return (await program.line(/^listening on /)).replace('listening on ', '')
}

async function enter(
  t: ExecutionContext,
  address: string,
  name: string,
  options: Partial<ConnectOptions> = {},
): Promise<Client> {
  const client = await connect(address, { ...options, name })
  t.teardown(() => client.close())
  return client
}

/** Stops an example: it closes in good order, without a word on standard error. */
async function stop(t: ExecutionContext, program: Script, signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
  program.kill(signal)
  const { status, errors } = await program.end()
  t.deepEqual({ status, errors }, { status: 0, errors: '' })
}

const denied = { code: 'ERR_BUS_ACCESS' } as const

// ---- the tour

/** A tour with folders of its own. */
function tour(
  t: ExecutionContext,
  args: string[],
  env: Record<string, string>,
): { program: Script; temp: string } {
  const temp = tempFolder(t)
  return { program: start(t, 'tour', args, { ELBUS_BIND: '', ELBUS_PYTHON: '', TMPDIR: temp, ...env }), temp }
}

const STEPS = [
  /^broker {7}in process \d+, listens on unix:\/.+\/bus\.sock$/,
  /^connected {4}tour\.app in the broker's thread$/,
  /^connected {4}tour\.worker in a worker thread$/,
  /^connected {4}tour\.process in process \d+$/,
  /^message {6}tour\.app -> tour\.worker: "hello from the app" arrived$/,
  /^message {6}tour\.process -> tour\.app: "hello from tour\.process" arrived$/,
  /^broadcast {4}tour\.app -> tour\.\*: "everybody listen" arrived at tour\.app, tour\.worker/,
  /^publication {2}tour\.app -> topic tour\/news\/yesterday: "old news" arrived at tour\.process/,
  /^publication {2}tour\.app -> topic tour\/news\/today: "fresh news" arrived at tour\.app, tour\.worker/,
  /^call {9}tour\.worker -> tour\.app, method add of \[1, 2\]: answered 3$/,
  /^call {9}tour\.app -> tour\.process, method hello of 7: answered 7$/,
  /^call {9}tour\.app -> \.broker, method test: answered {"ok":true}$/,
  /^denied {7}tour\.guest -> topic tour\/news\/today: ERR_BUS_ACCESS/,
  /^denied {7}login of tour\.stranger: ERR_BUS_ACCESS/,
  /^publication {2}tour\.guest -> topic tour\/news\/today: "a fact" arrived at tour\.app, tour\.worker/,
  /^client\.list {3}/,
  /^\.broker +internal /,
  /^stats /,
  /^the tour is over, the broker closed$/,
]

test('the tour shows every step, ends by itself and leaves nothing', async (t) => {
  const { program, temp } = tour(t, ['--once'], { ELBUS_NO_PYTHON: 'there is none here' })
  const { status, lines, errors } = await program.end()
  t.deepEqual({ status, errors }, { status: 0, errors: '' }, lines.join('\n'))
  t.true(lines.includes('skipped: Python, because there is none here'))
  let from = 0
  for (const step of STEPS) {
    const index = lines.findIndex((line, at) => at >= from && step.test(line))
    t.true(index >= 0, `${step} is missing in\n${lines.join('\n')}`)
    from = index + 1
  }
  t.deepEqual(readdirSync(temp), [])
})

testIf(missing('ELBUS_PYTHON'))('the tour takes the Python client along', async (t) => {
  const { program } = tour(t, ['--once'], { ELBUS_PYTHON: process.env.ELBUS_PYTHON as string })
  const { status, lines } = await program.end()
  t.is(status, 0, lines.join('\n'))
  const arrivals = [
    'call         tour.python -> tour.app, method add of [1, 2]: answered 3',
    'call         tour.app -> tour.python, method hello of 7: answered 7',
    'notification tour.app -> tour.python: "hello from the app" arrived',
    'broadcast    tour.app -> tour.*: "everybody listen" arrived at tour.app, tour.worker, tour.process and tour.python',
    'publication  tour.app -> topic tour/news/yesterday: "old news" arrived at tour.process and tour.python',
  ]
  for (const line of arrivals) t.true(lines.includes(line), `${line} is missing in\n${lines.join('\n')}`)
  t.false(lines.some((line) => line.startsWith('skipped')))
})

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  test(`the tour serves at ELBUS_BIND until ${signal}`, async (t) => {
    const socket = socketPath(t)
    const { program, temp } = tour(t, [], { ELBUS_BIND: socket })
    const connected = await program.line(/^connected {4}tour\.process/)
    await program.line(
      `               c = Client('${socket}', 'me'); c.connect(); c.send('tour.app', Frame('hello'))`,
    )
    const client = await enter(t, socket, 'me')
    await client.send('tour.app', 'is anybody there', { ack: true })
    await program.line('message      from me: is anybody there')
    t.is(await client.call('tour.app', 'add', [20, 22]), 42)

    program.kill(signal)
    await program.line('stopping     everybody leaves')
    // As Ctrl-C comes from the terminal and from npm.
    await stop(t, program, signal)
    t.false(existsSync(socket))
    t.deepEqual(readdirSync(temp), [])
    // The other process is gone: there is nobody to send a signal to.
    t.throws(() => process.kill(Number(connected.match(/\d+$/)?.[0]), 0), { code: 'ESRCH' })
  })
}

test('the tour can be stopped in its midst', async (t) => {
  // A client that never says anything: the tour would wait for it.
  const { program, temp } = tour(t, [], { ELBUS_PYTHON: silentInterpreter(t) })
  await program.line(/^connected {4}tour\.process/)
  await stop(t, program)
  t.deepEqual(readdirSync(temp), [])
})

test('the tour fails with status 1 if somebody does not say what is expected', async (t) => {
  // This one takes the options of Python for its own and ends at once.
  const { program } = tour(t, ['--once'], { ELBUS_PYTHON: '/bin/false' })
  const { status, lines } = await program.end()
  t.is(status, 1)
  t.is(lines.at(-1), 'FAILED: tour.python did not say "connected as tour.python": it ended with status 1')
})

test('the tour fails with status 1 where it cannot listen', async (t) => {
  const { program } = tour(t, ['--once'], { ELBUS_BIND: join(tempFolder(t), 'missing', 'bus.sock') })
  const { status, lines } = await program.end()
  t.is(status, 1)
  t.regex(lines.at(-1) ?? '', /^FAILED: .*missing/)
})

/** A program that takes any options and says nothing until it is ended. */
function silentInterpreter(t: ExecutionContext): string {
  const path = join(tempFolder(t), 'silent')
  writeFileSync(path, '#!/bin/sh\nexec sleep 600\n')
  chmodSync(path, 0o700)
  return path
}

// ---- threads

test('inter-thread: threads count, answer calls and stop', async (t) => {
  const socket = socketPath(t)
  const program = start(t, 'inter-thread', [socket])
  const address = await addressOf(program)
  t.is(address, `unix:${socket}`)
  await program.line('outside: 1 + 2 + 3 = 6, says a worker thread')

  const client = await enter(t, address, 'spec')
  const { sum, thread } = await client.call<{ sum: number; thread: number }>('sums', 'sum', [20, 22])
  t.is(sum, 42)
  t.true(thread > 0, 'the main thread has number 0')
  const counts: number[] = []
  for await (const message of client.subscribe('sensor/#')) {
    t.is(message.sender, 'sensor')
    if (counts.push(Number(message.text())) === 3) break
  }
  t.deepEqual(counts, [counts[0], Number(counts[0]) + 1, Number(counts[0]) + 2])
  await program.line(/^display: sensor counts \d*0$/)

  await stop(t, program)
  t.false(existsSync(socket))
})

// ---- access rules

test('broker-aaa: each client may do what the map says', async (t) => {
  const program = start(t, 'broker-aaa', ['127.0.0.1:0', '600'])
  const address = await addressOf(program)
  await t.throwsAsync(connect(address, { name: 'test3' }), denied)

  const free = await enter(t, address, 'test')
  const narrow = await enter(t, address, 'test2')
  const everything = free.subscribe('#')
  await everything.ready
  await narrow.publish('news/today', 'allowed', { ack: true })
  await t.throwsAsync(narrow.publish('other/today', 'denied', { ack: true }), denied)
  await narrow.send('test', 'allowed', { ack: true })
  await t.throwsAsync(narrow.send('test2', 'denied', { ack: true }), denied)
  await t.throwsAsync(narrow.send('.broker', 'denied', { ack: true }), denied)
  await t.throwsAsync(narrow.call('.broker', 'test'), denied)
  await t.throwsAsync(narrow.subscribe('news/#').ready, denied)
  await t.throwsAsync(narrow.broadcast('*', 'denied', { ack: true }), denied)

  await free.broadcast('*', 'allowed', { ack: true })
  await free.publish('other/today', 'allowed', { ack: true })
  const arrived: (string | undefined)[] = []
  for await (const { topic, sender } of everything) {
    arrived.push(`${topic} ${sender}`)
    if (arrived.length === 2) break
  }
  t.deepEqual(arrived, ['news/today test2', 'other/today test'])
  await stop(t, program)
})

test('broker-aaa: test2 is disconnected again and again, test is not', async (t) => {
  const program = start(t, 'broker-aaa', ['127.0.0.1:0', '0.1'])
  const address = await addressOf(program)
  const free = await enter(t, address, 'test')
  for (let round = 0; round < 2; round += 1) {
    const narrow = await enter(t, address, 'test2')
    const reason = await soon(narrow.closed, 'the end of test2')
    t.like(reason, { code: 'ERR_BUS_DISCONNECTED' })
    await program.line('test2 was disconnected; it may come again')
  }
  t.true(free.connected)
  await stop(t, program, 'SIGINT')
})

const outward = Object.values(networkInterfaces())
  .flatMap((addresses) => addresses ?? [])
  .find(({ family, internal }) => family === 'IPv4' && !internal)?.address

testIf(outward === undefined ? 'this machine has no address but loopback' : undefined)(
  'broker-aaa: test is let in from this machine only',
  async (t) => {
    const program = start(t, 'broker-aaa', ['0.0.0.0:0', '600'])
    const port = new URL(await addressOf(program)).port
    // By its own outward address a machine comes from that address.
    await t.throwsAsync(connect(`${outward}:${port}`, { name: 'test' }), denied)
    t.true((await enter(t, `${outward}:${port}`, 'test2')).connected)
    t.true((await enter(t, `127.0.0.1:${port}`, 'test')).connected)
    await stop(t, program)
  },
)

test('broker-aaa-live: edits hold from the next login on', async (t) => {
  const socket = socketPath(t)
  const program = start(t, 'broker-aaa-live', [socket])
  const address = await addressOf(program)
  await t.throwsAsync(connect(address, { name: 'a' }), denied)

  program.write('allow a {"publish":["news/#"],"subscribe":false}')
  await program.line('a may log in')
  const first = await enter(t, address, 'a')
  await first.publish('news/1', '', { ack: true })
  await t.throwsAsync(first.publish('other/1', '', { ack: true }), denied)
  await t.throwsAsync(first.subscribe('news/#').ready, denied)

  program.write('change a {"publish":["other/#"],"subscribe":null}')
  await program.line('a may {"publish":["other/#"]}')
  await first.publish('news/1', '', { ack: true })
  program.write('kick a')
  await program.line('a was disconnected')
  await soon(first.closed, 'the end of a')
  const second = await enter(t, address, 'a')
  await t.throwsAsync(second.publish('news/1', '', { ack: true }), denied)
  await second.publish('other/1', '', { ack: true })
  await t.notThrowsAsync(second.subscribe('news/#').ready)

  program.write('change a {"hosts":["somewhere"]}')
  await program.line(/^refused: .*somewhere/)
  program.write('allow b {"pubish":false}')
  await program.line(/^refused: .*pubish/)
  program.write('show')
  await program.line('{"a":{"publish":["other/#"]}}')
  program.write('forbid a')
  await program.line('a may not log in again')
  program.write('kick a')
  await program.line('a was disconnected')
  await t.throwsAsync(connect(address, { name: 'a' }), denied)

  program.endInput()
  const { status, errors } = await program.end()
  t.deepEqual({ status, errors }, { status: 0, errors: '' })
  t.false(existsSync(socket))
})

// ---- calls

test('broker-custom-rpc: methods of the application beside those of the broker', async (t) => {
  const program = start(t, 'broker-custom-rpc', [socketPath(t)])
  const address = await addressOf(program)
  const client = await enter(t, address, 'spec')
  t.is(await client.call('app', 'add', { a: 20, b: 22 }), 42)
  await t.throwsAsync(client.call('app', 'add', { a: 20 }), {
    code: 'ERR_BUS_RPC',
    message: 'a and b are numbers',
  })
  t.is(await client.call('app', 'caller'), 'spec')
  t.deepEqual(await client.call('.broker', 'test'), { ok: true })

  const other = await enter(t, address, 'other')
  t.deepEqual(await client.call('app', 'idle'), ['other'])
  await t.throwsAsync(client.call('app', 'disconnect', { name: 'other' }), {
    message: 'spec may not disconnect others',
  })
  const admin = await enter(t, address, 'admin')
  t.true(await admin.call('app', 'disconnect', { name: 'other' }))
  await soon(other.closed, 'the end of other')
  t.false(await admin.call('app', 'disconnect', { name: 'other' }))
  await stop(t, program)
})

/** A broker for the examples that are clients: one of the examples. */
async function broker(t: ExecutionContext): Promise<{ program: Script; address: string }> {
  const program = start(t, 'broker-custom-rpc', [socketPath(t)])
  return { program, address: await addressOf(program) }
}

/** What sender and listener say to each other over a broker. */
async function talk(t: ExecutionContext, address: string): Promise<void> {
  const alone = start(t, 'sender', [address])
  const { status, lines } = await alone.end()
  t.is(status, 0)
  t.deepEqual(lines, ['message: nobody is called example.listener', 'broadcast and publications: sent'])

  const listener = start(t, 'listener', [address, 'example/#'])
  await listener.line('example.listener is listening')
  const sender = start(t, 'sender', [address, 'hi'])
  t.deepEqual((await sender.end()).lines, ['message: delivered', 'broadcast and publications: sent'])
  await listener.line('message from example.sender: hi')
  await listener.line('broadcast from example.sender: hi')
  for (const number of [1, 2, 3]) {
    await listener.line(`publish from example.sender to example/numbers/${number}: hi ${number}`)
  }
  await stop(t, listener)
}

/** What rpc-caller and rpc-handler say to each other over a broker. */
async function call(t: ExecutionContext, address: string): Promise<void> {
  const handler = start(t, 'rpc-handler', [address])
  await handler.line('example.rpc is serving')
  const caller = start(t, 'rpc-caller', [address])
  const { status, lines, errors } = await caller.end()
  t.deepEqual({ status, errors }, { status: 0, errors: '' })
  t.deepEqual(lines, [
    'add: { total: 10 }',
    'get: { total: 10 }',
    'wrong params: RPC error -32602, value is a number',
    'no such method: RPC error -32601, method not found',
    'no such client: ERR_BUS_NOT_REGISTERED',
    'no answer in time: ERR_BUS_TIMEOUT',
    'given up: TimeoutError',
  ])
  await handler.line('notification from example.caller: here I come')
  for (let calls = 0; calls < 2; calls += 1) {
    await handler.line('example.caller gave up slow: ERR_BUS_TIMEOUT')
  }
  const client = await enter(t, address, 'spec')
  t.deepEqual(await client.call('example.rpc', 'get'), { total: 11 })
  await stop(t, handler)
}

test('sender and listener', async (t) => {
  await talk(t, (await broker(t)).address)
})

test('rpc-caller and rpc-handler', async (t) => {
  await call(t, (await broker(t)).address)
})

for (const variable of ['ELBUSD', 'BUSRTD', 'ELBUSD_PEER'] as const) {
  testIf(missing(variable))(`the examples that are clients, with the server ${variable}`, async (t) => {
    const socket = socketPath(t)
    const server = spawn(process.env[variable] as string, ['-B', socket], { stdio: 'ignore' })
    t.teardown(() => void server.kill('SIGKILL'))
    await answering(socket)
    await talk(t, socket)
    await call(t, socket)
  })
}

/** Waits until somebody listens: another program has no event for it. */
async function answering(address: string): Promise<void> {
  const end = performance.now() + 15_000
  for (;;) {
    try {
      const client = await connect(address, { name: 'early' })
      await client.close()
      return
    } catch (error) {
      if (performance.now() > end) throw error
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  }
}

test('listener says so when the broker goes', async (t) => {
  const { program, address } = await broker(t)
  const listener = start(t, 'listener', [address])
  await listener.line('example.listener is listening')
  await stop(t, program)
  const { status, errors } = await listener.end()
  t.is(status, 1)
  t.regex(errors, /^example\.listener is disconnected from unix:/)
})

test('every example has a test here', (t) => {
  const tested = [
    'broker-aaa',
    'broker-aaa-live',
    'broker-custom-rpc',
    'inter-thread',
    'listener',
    'rpc-caller',
    'rpc-handler',
  ]
  const known = [...tested, 'sender', 'tour', 'tour-client', 'tour-participant']
  const files = readdirSync(join(root, 'examples')).filter((file) => file.endsWith('.ts'))
  t.deepEqual(files.map((file) => file.replace('.ts', '')).sort(), known.sort())
})

// When a process ends by itself, when it does not, and that it ends well in the middle of anything.

import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { Broker, connect } from 'elbus-node'
import { start } from './support/child'
import { socketPath } from './support/temp'
import { startBroker } from './support/transports'
import { soon, within } from './support/within'

const PROGRAM = 'lifecycle-program'

const ENDING: Record<string, string[]> = {
  'in process': ['echoed'],
  'no client': [],
  'loaded only': [],
  'closed listener': [],
  'closed with clients': ['ERR_BUS_DISCONNECTED'],
  'failed listen': [],
  'failed connect': ['ERR_BUS_ADDRESS'],
  'call answered': ['echoed'],
  'call timed out': ['ERR_BUS_TIMEOUT'],
  'iterator left': ['x'],
  'client connected inproc and closed': [],
}

for (const [scenario, lines] of Object.entries(ENDING)) {
  test(`the process ends by itself: ${scenario}`, async (t) => {
    const path = socketPath(t)
    const { code, signal, stdout, stderr } = await start(t, PROGRAM, [scenario, path]).ended
    t.is(stderr, '')
    t.deepEqual([code, signal], [0, null])
    const written = stdout.trim().split('\n')
    t.deepEqual([...written].sort(), [...lines, 'begun', 'bye 0'].sort())
    t.is(written.at(-1), 'bye 0')
    t.false(existsSync(path))
  })
}

test('the process ends by itself though a socket client is open that was unref’d', async (t) => {
  const path = socketPath(t)
  await startBroker(t, { listen: [path] })
  const { code, stdout } = await start(t, PROGRAM, ['unref socket', path]).ended
  t.is(code, 0)
  t.is(stdout, 'unref\nbegun\nbye 0\n')
})

test('the exit code of the program is kept', async (t) => {
  const { code, stdout } = await start(t, PROGRAM, ['exit code']).ended
  t.is(code, 7)
  t.regex(stdout, /bye 7\n$/)
})

for (const scenario of [
  'listens',
  'listens, unreachable',
  'socket client',
  'connected inproc',
  'ref client',
  'awaited call',
]) {
  test(`the process goes on: ${scenario}`, async (t) => {
    const path = socketPath(t)
    if (scenario === 'socket client') await startBroker(t, { listen: [path] })
    const program = start(t, PROGRAM, [scenario, path], { node: ['--expose-gc'] })
    await soon(program.line('begun'), 'it has begun')
    // Long for something that ends by itself: all of those above are gone by then.
    await t.throwsAsync(within(program.ended, 700, 'its end'), { message: /in vain/ })
    program.kill('SIGTERM')
    t.is((await program.ended).signal, 'SIGTERM')
  })
}

test('the process goes on: who waits for a message', async (t) => {
  const program = start(t, PROGRAM, ['awaited message'])
  await t.throwsAsync(within(program.ended, 1_500, 'its end'), { message: /in vain/ })
})

const MIDDLE: Record<string, number> = {
  'process.exit': 5,
  'exit in a callback': 6,
  'exit in a handler': 8,
  'uncaught throw': 1,
}

for (const [scenario, expected] of Object.entries(MIDDLE)) {
  test(`C48: ends in the middle, five times: ${scenario}`, async (t) => {
    for (let round = 0; round < 5; round += 1) {
      const { code, signal, stdout, stderr } = await start(t, PROGRAM, [scenario, socketPath(t)]).ended
      t.deepEqual([code, signal], [expected, null], stderr)
      t.regex(stdout, new RegExp(`bye ${expected}\n$`))
      if (scenario === 'uncaught throw') t.regex(stderr, /the program’s own mistake/)
      else t.is(stderr, '')
    }
  })
}

for (const log of ['closed', 'closed after a while'] as const) {
  test(`C54: faults that nobody listens for, with stdout and stderr ${log}, end nothing`, async (t) => {
    const file = join(__dirname, 'support', `${PROGRAM}.js`)
    const child = spawn(process.execPath, [file, 'log closed', socketPath(t)], { stdio: 'pipe' })
    t.teardown(() => child.kill('SIGKILL'))
    const ended = new Promise<[number | null, NodeJS.Signals | null]>((resolve) =>
      child.on('exit', (code, signal) => resolve([code, signal])),
    )
    if (log === 'closed') for (const end of [child.stdout, child.stderr]) end.destroy()
    child.stdin.write('go')
    if (log === 'closed after a while') {
      await soon(new Promise((resolve) => child.stderr.once('data', resolve)), 'it complains')
      for (const end of [child.stdout, child.stderr]) end.destroy()
    }
    t.deepEqual(await soon(ended, 'it goes on and ends by itself'), [9, null])
  })
}

test('a broker whose process is killed tells its clients by the end of the connection', async (t) => {
  const path = socketPath(t)
  const program = start(t, PROGRAM, ['traffic', path])
  await soon(program.line('running'), 'it runs')
  const client = await connect(path, { name: 'here' })
  t.teardown(() => client.close())
  const call = client
    .call('one', 'nothing', null, { timeout: Number.POSITIVE_INFINITY })
    .catch((error: unknown) => error)
  await call
  program.kill('SIGKILL')
  t.is(((await soon(client.closed, 'the client knows')) as { code?: string }).code, 'ERR_BUS_DISCONNECTED')
  // The file it left is replaced by whoever comes next, once the system has closed all it had.
  await soon(program.ended, 'it has ended')
  t.true(existsSync(path))
  const broker = await Broker.start({ listen: [path] })
  await broker.close()
  t.false(existsSync(path))
})

test('a client whose process is killed is gone at the broker', async (t) => {
  const path = socketPath(t)
  const broker = await startBroker(t, { listen: [path] })
  const gone = new Promise<void>((resolve) => {
    broker.on('client', ({ type, client }) => {
      if (type === 'unreg' && client === 'one') resolve()
    })
  })
  const program = start(t, PROGRAM, ['socket client', path])
  await soon(program.line('begun'), 'it is connected')
  t.is(broker.clients('one').length, 1)
  program.kill('SIGKILL')
  await soon(gone, 'it is gone')
  t.is(broker.clients('one').length, 0)
})

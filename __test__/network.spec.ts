// What only a network shows, with an embedded broker and clients in Node: real addresses, and cables that are cut. The
// same for the Rust crates, with bad lines and resets besides, is crates/elbus/tests/netns.

import { join } from 'node:path'
import type { ExecutionContext } from 'ava'
import { Lan, withoutHosts } from './support/netns'
import { root, type Script } from './support/script'
import { testIf } from './support/skip'
import { within } from './support/within'

const program = join(__dirname, 'support', 'netns-program.js')
const reason = withoutHosts()

/** What logins of these names from a host come to. */
async function logins(lan: Lan, host: number, address: string, names: string[]): Promise<string[]> {
  const { lines } = await lan.start(host, program, 'login', address, ...names).end()
  return lines.map((line, index) => line.replace(`${names[index]} `, ''))
}

async function stop(t: ExecutionContext, script: Script): Promise<void> {
  script.endInput()
  const { status, errors } = await script.end()
  t.deepEqual({ status, errors }, { status: 0, errors: '' })
}

/** Networks by name, and whether they admit a client's IPv4 and IPv6 address and the two of loopback. */
const RULES: Record<string, [hosts: string[], admits: [boolean, boolean, boolean, boolean]]> = {
  'v4.any': [['0.0.0.0/0'], [true, false, true, false]],
  'v6.any': [['::/0'], [false, true, false, true]],
  'v4.host': [['10.77.0.2'], [true, false, false, false]],
  'v4.one': [['10.77.0.2/32'], [true, false, false, false]],
  'v4.other': [['10.77.0.3/32'], [false, false, false, false]],
  'v4.net': [['10.77.0.0/24'], [true, false, false, false]],
  'v6.host': [['fd77::2'], [false, true, false, false]],
  'v6.net': [['fd77::/64'], [false, true, false, false]],
  local: [
    ['127.0.0.0/8', '::1'],
    [false, false, true, true],
  ],
  none: [[], [false, false, false, false]],
}

testIf(reason)('C26: hosts of an access map go by the real address, mapped IPv4 included', async (t) => {
  const lan = new Lan(t, 2)
  const entries = Object.fromEntries(Object.entries(RULES).map(([name, [hosts]]) => [name, { hosts }]))
  // `[::]` takes IPv4 too, whose addresses it sees mapped into IPv6.
  const broker = lan.start(1, program, 'broker', '[::]:7777', JSON.stringify(entries))
  await broker.line('listening')
  const names = Object.keys(RULES)
  const ways = [
    [2, '10.77.0.1:7777'],
    [2, '[fd77::1]:7777'],
    [1, '127.0.0.1:7777'],
    [1, '[::1]:7777'],
  ] as const
  let admitted = 0
  for (const [way, [host, address]] of ways.entries()) {
    const expected = Object.values(RULES).map(([, admits]) => (admits[way] ? 'admitted' : 'ERR_BUS_ACCESS'))
    t.deepEqual(await logins(lan, host, address, names), expected, address)
    admitted += expected.filter((outcome) => outcome === 'admitted').length
  }
  t.log(`C26: ${names.length} rules x ${ways.length} ways in: ${admitted} logins admitted, all as ruled`)
  await broker.line('denied connect none')
  await stop(t, broker)
})

testIf(reason)(
  'C26: broker-aaa admits test from its own host only, and test2 for five seconds',
  async (t) => {
    const lan = new Lan(t, 2)
    const example = lan.start(1, join(root, 'dist-examples', 'broker-aaa.js'), '[::]:7777')
    await example.line(/^listening on /)
    const everybody = ['test', 'test2', 'other']
    const [denied, allowed] = ['ERR_BUS_ACCESS', 'admitted']
    for (const address of ['10.77.0.1:7777', '[fd77::1]:7777']) {
      t.deepEqual(await logins(lan, 2, address, everybody), [denied, allowed, denied], address)
      t.deepEqual(await logins(lan, 1, address, everybody), [denied, allowed, denied], address)
    }
    for (const address of ['127.0.0.1:7777', '[::1]:7777']) {
      t.deepEqual(await logins(lan, 1, address, everybody), [allowed, allowed, denied], address)
    }
    const home = lan.start(1, program, 'stay', '127.0.0.1:7777', 'test', '0')
    await home.line('connected')
    const stays: number[] = []
    for (let round = 0; round < 2; round += 1) {
      const far = lan.start(2, program, 'stay', '10.77.0.1:7777', 'test2', '100')
      await far.line('connected')
      const start = Date.now()
      const [, code, end, sent] = (await far.line(/^closed /)).split(' ')
      t.is(code, 'ERR_BUS_DISCONNECTED')
      t.true(Number(sent) > 0)
      await example.line('test2 was disconnected; it may come again')
      stays.push(Number(end) - start)
    }
    t.log(`C26: broker-aaa threw test2 out after ${stays.join(' and ')} ms`)
    t.true(stays.every((stay) => stay < 6_000))
    example.kill('SIGTERM')
    t.is((await example.end()).status, 0)
    t.regex(await home.line(/^closed /), /ERR_BUS_DISCONNECTED/)
  },
)

/**
 * Latest end of a client of ours at the broker, in milliseconds from the cut on, and at the client itself: a ping a
 * second, 12 s of silence.
 */
const [AT_BROKER, AT_CLIENT] = [6_300, 13_000]
/** What the broker's walk over its connections and a busy machine may add. */
const LATE = 1_000

for (const where of ['plug', 'far'] as const) {
  testIf(reason)(
    `C35: a cable cut ${where === 'far' ? 'far away' : 'at the plug'} is noticed by both ends`,
    async (t) => {
      const lan = new Lan(t, 2)
      const broker = lan.start(2, program, 'broker', '[::]:7777')
      await broker.line('listening')
      const address = '10.77.0.2:7777'
      const idle = lan.start(1, program, 'stay', address, 'idle', '0')
      const sending = lan.start(1, program, 'stay', address, 'sending', '2')
      const late = lan.start(1, program, 'late', address, 'late')
      await Promise.all([idle.line('connected'), sending.line('connected'), late.line('ready')])
      lan.cut(1, where)
      const cut = Date.now()
      late.write('now')

      const left: Record<string, number> = {}
      for (let gone = 0; gone < 2; gone += 1) {
        const [, name = '', end] = (await broker.line(/^unreg (?!\.broker)/)).split(' ')
        left[name] = Number(end) - cut
      }
      const [, lateCode, lateTime] = (await late.line(/^late /)).split(' ')
      const noticed = await Promise.all(
        [idle, sending].map(async (client) => {
          const [, code, end, sent] = (await within(client.line(/^closed /), 20_000, 'the end')).split(' ')
          return { code, after: Number(end) - cut, sent: Number(sent) }
        }),
      )
      t.log(
        `C35: cable cut (${where}): the broker dropped ${JSON.stringify(left)}, the clients noticed after ` +
          `${noticed.map(({ after }) => after).join(' and ')} ms, in a login after ${lateTime} ms (${lateCode})`,
      )
      t.deepEqual(Object.keys(left).sort(), ['idle', 'sending'])
      t.true(Object.values(left).every((after) => after > 0 && after <= AT_BROKER + LATE))
      t.true((noticed[1]?.sent ?? 0) > 0, 'frames were on their way')
      for (const { code, after } of noticed) {
        t.is(code, 'ERR_BUS_TIMEOUT')
        t.true(after <= AT_CLIENT + LATE)
      }
      // Where its own plug is out the kernel knows before the time is over.
      t.regex(lateCode ?? '', where === 'far' ? /^ERR_BUS_TIMEOUT$/ : /^ERR_BUS_(TIMEOUT|ADDRESS)$/)
      t.true(Number(lateTime) <= 5_000 + LATE)
      await stop(t, broker)
    },
  )
}

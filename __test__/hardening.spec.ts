// Raw peers that flood, drip, stall and lie to a broker embedded in a Node process: it goes on, its own clients and timers
// are not held up, its memory comes back. By the ids of the fault catalogue; each test checks the dose it gave. Peers that
// merely wait run beside each other, floods one after the other. `ELBUS_LONG=1` gives the doses of the catalogue in full.

import test, { type ExecutionContext } from 'ava'
import { connect, RpcError } from 'elbus-node'
import { Embedded, type EmbeddedOptions, isLong, MIB, sleep } from './support/embedded'
import type { Events } from './support/embedded-program'
import { GREETING } from './support/fake-broker'
import { rpc, text } from './support/raw-broker'
import {
  ACK,
  acknowledgementOf,
  ask,
  Code,
  codesOf,
  login,
  loginBytes,
  Op,
  operation,
  pour,
  tryLogin,
} from './support/raw-client'
import { RawPeer } from './support/raw-peer'
import { closing } from './support/transports'
import { soon, until } from './support/within'

const GIB = 1 << 30
const ENDLESS = Number.POSITIVE_INFINITY
/** Default of a UNIX socket. */
const FRAME_LIMIT = 64 * MIB
/** Default bound of a client's queue. */
const QUEUE = 16 * MIB
/** What is not in queues: buffers of reads and writes, and what V8 adds meanwhile. */
const BESIDE = 16 * MIB
/** Deadlines of a peer that does nothing are 5 s; the broker looks a few times a second, and this machine may be busy. */
const DEADLINE = 7_000

/** Registers a test by its id: starts a broker, has it attacked, checks that all is as before. */
function hostile(
  kind: 'waits' | 'floods',
  title: string,
  options: EmbeddedOptions,
  attack: (t: ExecutionContext, broker: Embedded, id: string) => Promise<void>,
): void {
  const register = kind === 'floods' ? test.serial : test
  register(title, async (t) => {
    t.timeout(isLong ? 1_200_000 : 120_000)
    const broker = await Embedded.start(t, options)
    await attack(t, broker, title.slice(0, 3))
    await broker.over(options.keeps)
  })
}

function seconds(ms: number): string {
  return `${(ms / 1_000).toFixed(2)} s`
}

function mib(bytes: number): string {
  return `${(bytes / MIB).toFixed(0)} MiB`
}

function faultsOf(events: Events): string[] {
  return (events.fault as { client?: string; reason: string }[]).map(({ reason }) => reason)
}

// ---- peers that wait

hostile(
  'waits',
  'C01: announced gigabytes cost no memory, and end their connection',
  {},
  async (t, broker, id) => {
    await broker.under(id, async () => {
      let announced = 0
      const big: RawPeer[] = []
      for (let index = 0; index < 200; index += 1) {
        const peer = await login(t, broker.address, `big.${index}`)
        peer.write(operation(Op.MESSAGE | ACK, '', 1, GIB))
        announced += 1
        big.push(peer)
      }
      for (const peer of big) {
        t.like(await acknowledgementOf(peer), { code: Code.DATA })
        await soon(peer.ended, 'the end of one that announced too much')
      }
      for (let cycle = 0; cycle < 60; cycle += 1) {
        const peer = await login(t, broker.address, `cycle.${cycle}`)
        peer.write(operation(Op.MESSAGE, '', 1, cycle % 2 === 0 ? GIB : FRAME_LIMIT))
        announced += 1
        peer.destroy()
      }
      const idle: RawPeer[] = []
      for (let index = 0; index < 200; index += 1) {
        idle.push(await login(t, broker.address, `idle.${index}`))
      }
      // What connections cost is no matter of announcements.
      const before = await broker.ask('memory')
      const start = performance.now()
      for (const peer of idle) {
        peer.write(operation(Op.MESSAGE, '', 1, FRAME_LIMIT))
        announced += 1
      }
      await sleep(300)
      const grown = (await broker.ask('memory')) - before
      await Promise.all(idle.map((peer) => soon(peer.ended, 'the end of one that sends no more')))
      const lasted = performance.now() - start
      t.is(announced, 460)
      t.true(lasted <= DEADLINE, `closed after ${lasted} ms`)
      t.true(grown <= 4 * MIB, `200 announcements under the limit cost ${grown / MIB} MiB`)
      return `460 announcements, 230 of 1 GiB refused at once, 200 of 64 MiB idle: closed after ${seconds(lasted)}, +${(grown / MIB).toFixed(1)} MiB`
    })
    t.true(faultsOf(await broker.ask('events')).length > 0)
  },
)

hostile('waits', 'C05: 300 silent logins are dropped: 236 at once, 64 in time', {}, async (t, broker, id) => {
  await broker.under(id, async () => {
    const start = performance.now()
    const peers: RawPeer[] = []
    for (let index = 0; index < 300; index += 1) peers.push(await RawPeer.connect(t, broker.address))
    await sleep(1_000)
    const left = peers.filter((peer) => !peer.hasEnded).length
    // In the middle of it somebody logs in as ever.
    const late = await connect(broker.address, { name: 'honest' })
    await late.close()
    await Promise.all(peers.map((peer) => soon(peer.ended, 'the end of a silent login')))
    const lasted = performance.now() - start
    t.is(peers.length, 300)
    t.true(left <= 64, `${left} are left`)
    t.true(lasted <= DEADLINE, `closed after ${lasted} ms`)
    return `300 silent sockets: ${left} left after 1 s, all closed after ${seconds(lasted)}`
  })
})

hostile(
  'waits',
  'C05: 300 silent logins that are all let in cost 4 KiB each',
  { options: { logins: 1_000 } },
  async (t, broker, id) => {
    await broker.under(id, async () => {
      const before = await broker.ask('memory')
      const start = performance.now()
      const peers: RawPeer[] = []
      for (let index = 0; index < 300; index += 1) peers.push(await RawPeer.connect(t, broker.address))
      await sleep(300)
      const grown = (await broker.ask('memory')) - before
      t.is(peers.filter((peer) => !peer.hasEnded).length, 300)
      await Promise.all(peers.map((peer) => soon(peer.ended, 'the end of a silent login')))
      const lasted = performance.now() - start
      t.true(lasted <= DEADLINE, `closed after ${lasted} ms`)
      // The threads that accept touch memory of their own.
      t.true(grown <= 300 * 4_096 + 2 * MIB, `${grown} bytes`)
      return `300 silent logins: ${(grown / 300 / 1_024).toFixed(1)} KiB each, all closed after ${seconds(lasted)}`
    })
  },
)

hostile('waits', 'C06: a login that drips has 5 s in all, however it drips', {}, async (t, broker, id) => {
  await broker.under(id, async () => {
    const name = 'x'.repeat(500)
    const said: string[] = []
    let written = 0
    await Promise.all(
      [100, 1_000, 4_000].map(async (pause) => {
        const peer = await RawPeer.connect(t, broker.address)
        const bytes = loginBytes(name)
        const start = performance.now()
        let count = 0
        const timer = setInterval(() => {
          if (peer.hasEnded) return
          peer.write(bytes.subarray(count, count + 1))
          count += 1
        }, pause)
        await soon(peer.ended, 'the end of a login that drips')
        clearInterval(timer)
        written += count
        const lasted = performance.now() - start
        t.true(lasted <= DEADLINE && lasted > 4_000, `${pause} ms: closed after ${lasted} ms`)
        t.true(
          count >= Math.floor(4_000 / pause) * 0.7 && count < bytes.length,
          `${count} bytes were dripped`,
        )
        said.push(`${count} B: ${seconds(lasted)}`)
      }),
    )
    t.true(written > 30)
    return `logins that drip, closed after ${said.join(', ')}`
  })
})

hostile('floods', 'C15: stalled readers are closed, and others get all', {}, async (t, broker, id) => {
  const sizes: readonly (readonly [bytes: number, total: number])[] = [
    [256 << 10, isLong ? 3 * GIB : 96 * MIB],
    [1 << 10, isLong ? GIB : 48 * MIB],
    [16 * MIB - 100, isLong ? 3 * GIB : 96 * MIB],
  ]
  const { growth } = await broker.under(id, async () => {
    const said: string[] = []
    await Promise.all(
      sizes.map(async ([size, total]) => {
        const topic = `load/${size}`
        const stalled = await login(t, broker.address, `stalled.${size}`)
        const taker = await login(t, broker.address, `taker.${size}`)
        const sender = await login(t, broker.address, `load.${size}`)
        for (const peer of [stalled, taker]) t.is(await ask(peer, Op.SUBSCRIBE, topic), Code.DONE)
        stalled.socket.pause()
        taker.discard()
        sender.discard()
        const body = Buffer.concat([text(topic), Buffer.alloc(size - topic.length - 1, 7)])
        const frame = operation(Op.PUBLISH, body)
        // As it arrives: with the name of its sender.
        const arriving = 6 + `load.${size}`.length + 1 + body.length
        const count = Math.ceil(total / size)
        const before = taker.socket.bytesRead
        const start = performance.now()
        let closedAfter = 0
        const closed = broker.gone(`stalled.${size}`, 30_000).then(() => {
          closedAfter = performance.now() - start
        })
        // Others read as fast as is sent: they are never more than half a queue behind.
        const ahead = Math.floor(QUEUE / 2 / size)
        for (let sent = 0; sent < count; sent += 1) {
          const most = Math.max(0, sent - ahead) * arriving
          if (taker.socket.bytesRead - before < most) {
            await until(() => taker.socket.bytesRead - before >= most, 'the other reads', 30_000)
          }
          await pour(sender, frame, 1)
        }
        const read = (): number => taker.socket.bytesRead - before
        await until(() => read() >= count * arriving, 'the other has got all', 30_000)
        // Pings come too.
        t.true(read() < count * arriving + 10_000)
        await closed
        t.true(closedAfter <= DEADLINE, `closed after ${closedAfter} ms`)
        for (const peer of [stalled, taker, sender]) peer.destroy()
        said.push(`${mib(count * size)} of ${size} B: ${seconds(closedAfter)}`)
      }),
    )
    await broker.gone('load.')
    await broker.gone('taker.')
    return `stalled readers closed after ${said.join(', ')}; the others got all`
  })
  // Three full queues, and frames of 16 MiB on their way in and out.
  t.true(growth <= 3 * QUEUE + 6 * 16 * MIB + BESIDE, `${growth / MIB} MiB`)
  const { slow } = await broker.ask('events')
  for (const [size] of sizes) {
    t.true(
      (slow as { client: string }[]).some(({ client }) => client === `stalled.${size}`),
      `${size} B`,
    )
  }
})

hostile('floods', 'C17: acknowledgements that nobody reads stop their sender', {}, async (t, broker, id) => {
  const { growth } = await broker.under(id, async () => {
    const sender = await login(t, broker.address, 'flooder')
    sender.socket.pause()
    const frames = 1_000_000
    const chunk = Buffer.alloc(11 * 1_000).fill(operation(Op.PUBLISH | ACK, 't\0'))
    const start = performance.now()
    const pouring = pour(sender, chunk, frames / 1_000, 10_000)
    await broker.gone('flooder')
    const lasted = performance.now() - start
    sender.destroy()
    const frameCount = Math.floor((await pouring) / 11)
    t.true(frameCount > 65_536, `${frameCount} operations were sent`)
    t.true(lasted <= DEADLINE, `closed after ${lasted} ms`)
    return `${frameCount} of ${frames} operations were taken, then its sender was cut after ${seconds(lasted)}`
  })
  t.true(growth <= QUEUE, `${growth / MIB} MiB`)
})

hostile(
  'floods',
  'C21: calls of .broker whose replies nobody reads are bounded',
  {},
  async (t, broker, id) => {
    const { growth } = await broker.under(id, async () => {
      const caller = await login(t, broker.address, 'caller')
      caller.socket.pause()
      const calls = 100_000
      const call = operation(Op.MESSAGE, Buffer.concat([text('.broker'), rpc.request(1, 'client.list')]))
      const chunk = Buffer.alloc(call.length * 100).fill(call)
      const pouring = pour(caller, chunk, calls / 100, 10_000)
      const start = performance.now()
      await broker.gone('caller')
      const lasted = performance.now() - start
      caller.destroy()
      const count = Math.floor((await pouring) / call.length)
      t.true(count > 20_000, `${count} calls were sent`)
      return `${count} of ${calls} calls were taken, the caller was cut after ${seconds(lasted)}`
    })
    t.true(growth <= QUEUE + BESIDE, `${growth / MIB} MiB`)
  },
)

// ---- peers that flood

hostile(
  'floods',
  'C02: halves of frames take no more than the budget',
  { listen: { payloadLimit: 0xffff_ffff }, options: isLong ? {} : { totalBytes: 64 * MIB } },
  async (t, broker, id) => {
    const budget = (isLong ? 256 : 64) * MIB
    const half = (isLong ? 384 : 96) * MIB
    const { growth } = await broker.under(id, async () => {
      const poured = await Promise.all(
        [0, 1, 2, 3].map(async (index) => {
          const peer = await login(t, broker.address, `half.${index}`)
          peer.write(operation(Op.MESSAGE | ACK, 'inside.a\0', 1, GIB))
          const chunk = Buffer.alloc(MIB, 7)
          const bytes = await pour(peer, chunk, half / MIB)
          peer.discard()
          peer.destroy()
          return bytes
        }),
      )
      await broker.gone('half.')
      const offered = poured.reduce((sum, bytes) => sum + bytes, 0)
      t.true(offered >= budget, `${mib(offered)} were poured`)
      return `4 frames of 1 GiB, ${mib(offered)} of them poured into a budget of ${mib(budget)}`
    })
    t.true(growth <= budget + 24 * MIB, `${growth / MIB} MiB`)
  },
)

hostile('floods', 'C07: a flood of logins keeps nobody out', {}, async (t, broker, id) => {
  await broker.under(id, async () => {
    let connects = 0
    let open = 0
    const end = performance.now() + (isLong ? 10_000 : 2_000)
    const trips: number[] = []
    let again = 0
    const storm = Array.from({ length: 32 }, async () => {
      while (performance.now() < end) {
        const peer = await RawPeer.connect({ teardown: () => undefined }, broker.address)
        connects += 1
        open += 1
        void peer.ended.then(() => {
          open -= 1
          peer.destroy()
        })
        // A third says nothing, a third half of what it should, a third leaves.
        if (connects % 3 === 1) peer.write(GREETING)
        if (connects % 3 === 2) peer.destroy()
      }
    })
    const honest = (async () => {
      while (performance.now() < end) {
        const begun = performance.now()
        // Whoever is dropped for the sake of a newer one tries again, as programs do.
        while (typeof (await broker.honest(`honest.${trips.length}`)) !== 'number') again += 1
        trips.push(performance.now() - begun)
        await sleep(20)
      }
    })()
    await Promise.all([...storm, honest])
    await sleep(200)
    const pending = open
    t.true(connects >= 2_000, `${connects} connects`)
    t.true(pending <= 64, `${pending} logins are pending`)
    trips.sort((one, other) => one - other)
    const [worst, median] = [trips.at(-1) as number, trips[trips.length >> 1] as number]
    t.true(trips.length >= 10)
    t.true(median <= 100, `logins took ${median} ms`)
    await soon(
      untilNone(() => open),
      'the last pending login ends',
    )
    return `${connects} connects in ${isLong ? 10 : 2} s: ${trips.length} logins beside took ${median.toFixed(1)} ms, at most ${worst.toFixed(1)} ms, ${again} had to try again; ${pending} pending at the end`
  })
})

async function untilNone(count: () => number): Promise<void> {
  while (count() > 0) await sleep(20)
}

const DEEP: readonly number[] = [129, 1_000, 100_000, 1_000_000]

hostile(
  'floods',
  'C09: texts of a million levels are refused, and their sender stays',
  {},
  async (t, broker, id) => {
    await broker.under(id, async () => {
      const peer = await login(t, broker.address, 'deep')
      let refused = 0
      for (const levels of DEEP) {
        for (const [flags, separator, behind] of [
          [Op.SUBSCRIBE, '/', ''],
          [Op.UNSUBSCRIBE, '/', ''],
          [Op.EXCLUDE, '/', ''],
          [Op.UNEXCLUDE, '/', ''],
          [Op.PUBLISH, '/', '\0payload'],
          [Op.PUBLISH_FOR, '/', '\0inside.a\0payload'],
          [Op.MESSAGE, '.', '\0payload'],
          [Op.BROADCAST, '.', '\0payload'],
        ] as const) {
          for (const part of ['', 'a', ...(flags === Op.BROADCAST ? ['?'] : ['+'])]) {
            const levelsText = Array(levels).fill(part).join(separator)
            const code = await ask(peer, flags, levelsText + behind, levels)
            t.is(code, Code.DATA, `operation ${flags} of ${levels} levels ${JSON.stringify(part)}`)
            refused += 1
          }
        }
      }
      for (const parts of [17, 129, 1_000, 30_000]) {
        const [, code] = await tryLogin(t, broker.address, Array(parts).fill('a').join('.'))
        t.is(code, Code.DATA, `a name of ${parts} parts`)
        refused += 1
      }
      t.is(refused, 4 * 8 * 3 + 4)
      t.is(await ask(peer, Op.PUBLISH, 'still/here\0'), Code.DONE)
      peer.destroy()
      await broker.gone('deep')
      return `${refused} texts of up to 1,000,000 levels refused`
    })
  },
)

hostile(
  'floods',
  'C12: a million subscriptions are refused, once for each operation',
  {},
  async (t, broker, id) => {
    const { growth } = await broker.under(id, async () => {
      const one = await login(t, broker.address, 'one')
      const million = Array.from({ length: 1_000_000 }, (_, index) => `bomb/${index}`).join('\0')
      t.is(await ask(one, Op.SUBSCRIBE, million), Code.DATA)
      t.is(await ask(one, Op.SUBSCRIBE, Buffer.alloc(FRAME_LIMIT)), Code.DATA)
      // It comes when it was answered: whatever came twice would come before it.
      t.is(await ask(one, Op.PUBLISH, 'x\0', 7), Code.DONE)
      const many = await login(t, broker.address, 'many')
      for (let index = 0; index < 1_000; index += 1) {
        const masks = Array.from({ length: 1_000 }, (_, number) => `m/${index}/${number}`)
        many.write(operation(Op.SUBSCRIBE | ACK, masks.join('\0'), index))
      }
      const codes = new Map<number, number>()
      for (let index = 0; index < 1_000; index += 1) {
        const { code, id: number } = (await acknowledgementOf(many)) as { code: number; id: number }
        t.is(number, index)
        codes.set(code, (codes.get(code) ?? 0) + 1)
      }
      // One of the default limit is the subscription to `.broker/warn` that everybody has.
      t.is(codes.get(Code.DONE), 65)
      t.is(codes.get(Code.DATA), 935)
      for (const peer of [one, many]) peer.destroy()
      await broker.gone('one')
      await broker.gone('many')
      return '1,000,000 masks in one frame, 64 MiB of NULs, 1,000 times 1,000: 0x72 each once'
    })
    t.true(growth <= 3 * FRAME_LIMIT, `${growth / MIB} MiB`)
  },
)

hostile(
  'floods',
  'C18: a victim that pauses stays, and loses nothing that was acknowledged',
  {},
  async (t, broker, id) => {
    await broker.under(id, async () => {
      const victim = await login(t, broker.address, 'victim')
      victim.socket.pause()
      const frames = isLong ? 60_000 : 20_000
      const frame = operation(Op.MESSAGE | ACK, 'victim\0attack')
      const chunk = Buffer.alloc(frame.length * 1_000).fill(frame)
      const attackers = await Promise.all(
        [0, 1, 2, 3, 4, 5, 6, 7].map((index) => login(t, broker.address, `attacker.${index}`)),
      )
      const start = performance.now()
      const poured = await Promise.all(attackers.map((attacker) => pour(attacker, chunk, frames / 1_000)))
      t.is(
        poured.reduce((sum, bytes) => sum + bytes, 0),
        8 * frames * frame.length,
      )
      let acknowledged = 0
      let refused = 0
      await until(
        () => {
          for (const attacker of attackers) {
            const codes = codesOf(attacker)
            acknowledged += codes.get(Code.DONE) ?? 0
            refused += codes.get(Code.NOT_DELIVERED) ?? 0
          }
          return acknowledged + refused >= 8 * frames
        },
        'all answers',
        60_000,
      )
      t.is(acknowledged + refused, 8 * frames)
      t.true(refused > 0 || acknowledged <= 65_536 + 10_000, 'the queue was filled')
      const paused = performance.now() - start
      t.true(paused < 5_000, 'the victim paused for less than the limit')
      t.is((await broker.ask('clients', 'victim')).length, 1)
      const arriving = 6 + 'attacker.0\0attack'.length
      victim.socket.resume()
      let arrived = 0
      await until(() => {
        const bytes = victim.takeReady()
        arrived += bytes.filter((byte) => byte === 0x12).length
        return arrived >= acknowledged
      }, 'all that was acknowledged')
      t.is(arrived, acknowledged, `${arriving} bytes each`)
      for (const peer of [victim, ...attackers]) peer.destroy()
      await broker.gone('attacker')
      return `${8 * frames} frames of 8 attackers at a victim that paused ${seconds(paused)}: it stays, ${acknowledged} acknowledged and arrived, ${refused} refused`
    })
  },
)

hostile(
  'floods',
  'C19: one frame that becomes a thousand stays within the budget',
  { options: { totalBytes: (isLong ? 256 : 32) * MIB } },
  async (t, broker, id) => {
    const budget = (isLong ? 256 : 32) * MIB
    const { growth } = await broker.under(id, async () => {
      const clients = isLong ? 1_000 : 300
      const sleepers: RawPeer[] = []
      for (let index = 0; index < clients; index += 1) {
        const sleeper = await login(t, broker.address, `sleeper.${index}`)
        sleeper.socket.pause()
        sleepers.push(sleeper)
      }
      // The name goes out with each copy.
      const name = `loud.${'x'.repeat(500)}`
      const loud = await login(t, broker.address, name)
      loud.discard()
      const frame = operation(Op.BROADCAST, '*\0')
      const frames = isLong ? 20_000 : 4_000
      const bytes = await pour(loud, Buffer.alloc(frame.length * 100).fill(frame), frames / 100)
      t.is(bytes, frames * frame.length)
      const output = frames * clients * (6 + name.length + 1)
      t.true(output > 2 * budget)
      const { queuedBytes } = await broker.ask('stats')
      t.true(queuedBytes <= budget + MIB, `${queuedBytes} bytes wait`)
      // The same by RPC: replies of 16 MiB that nobody reads.
      const caller = await login(t, broker.address, 'caller')
      caller.socket.pause()
      const body = Buffer.concat([text('.broker'), rpc.request(1, 'benchmark.test', Buffer.alloc(QUEUE, 7))])
      const calls = isLong ? 100 : 12
      const poured = await pour(caller, operation(Op.MESSAGE, body), calls, 3_000)
      // It is read no further once the first reply waits.
      t.true(poured >= QUEUE / 2, `${mib(poured)} were sent`)
      for (const peer of [...sleepers, loud, caller]) peer.destroy()
      await broker.gone('sleeper', 30_000)
      await broker.gone('caller')
      return `${frames} broadcasts that become ${mib(output)} for ${clients} clients, ${mib(poured)} of calls to be echoed, budget ${mib(budget)}`
    })
    t.true(growth <= budget + 2 * QUEUE + 2 * BESIDE, `${growth / MIB} MiB`)
  },
)

const CROWD = { count: 1_000, bytes: 500 }

hostile(
  'floods',
  'C20: filters that explode are refused or cheap',
  { crowd: CROWD },
  async (t, broker, id) => {
    const client = closing(t, await connect(broker.address, { name: 'asker' }))
    const times = async (filter: string): Promise<[ms: number, code: number | undefined]> => {
      const start = performance.now()
      const code = await client.call('.broker', 'client.list', { filter }).then(
        () => undefined,
        (error: unknown) => {
          if (error instanceof RpcError) return error.rpcCode
          throw new Error(`${filter.slice(0, 40)}: ${error}`)
        },
      )
      return [performance.now() - start, code]
    }
    /** True: refused. Undefined: answered, or refused for what it would cost; which of the two, the machine decides. */
    const FILTERS: readonly (readonly [filter: string, refused: boolean | undefined])[] = [
      ['(a+)+$z', undefined],
      ['(a|a)*b', undefined],
      ['(a*)*(a*)*(a*)*z', undefined],
      ['^(([a-z])+.)+[A-Z]([a-z])+$', undefined],
      ['(?:a{1,50}){1,50}z', undefined],
      ['((a{0,100}){0,100}){0,100}', undefined],
      [`${'(a?'.repeat(60)}${')'.repeat(60)}z`, undefined],
      ['('.repeat(250), true],
      ['[', true],
      ['a{4294967296}', true],
      ['x'.repeat(64 << 10), true],
      ['(?P<', true],
    ]
    await broker.under(id, async () => {
      // With nothing to look for and nothing to send: what a call costs here.
      const plain = Math.max(...(await Promise.all([1, 2, 3].map(() => times('^nobody$')))).map(([ms]) => ms))
      let worst = 0
      const rounds = isLong ? 50 : 3
      for (let round = 0; round < rounds; round += 1) {
        for (const [filter, refused] of FILTERS) {
          const [ms, code] = await times(filter)
          if (refused !== undefined || code !== undefined) {
            t.is(code, -32700, filter.slice(0, 40))
          }
          worst = Math.max(worst, ms)
        }
      }
      // The broker gives up after some milliseconds; the rest is this machine.
      t.true(worst <= plain + 500, `a filter took ${worst} ms, a harmless one ${plain} ms`)
      return `${rounds * FILTERS.length} hostile filters over 1,000 names of 500 B: at most ${worst.toFixed(1)} ms a call (harmless ${plain.toFixed(1)} ms)`
    })
    await client.close()
  },
)

hostile(
  'floods',
  'C28: announcements cannot be forged, and reserved names cannot be taken',
  { watch: ['#', '.broker/#', '.broker/warn', '.broker/info'] },
  async (t, broker, id) => {
    await broker.under(id, async () => {
      const liar = await login(t, broker.address, 'liar')
      const reader = await login(t, broker.address, 'reader')
      t.is(await ask(reader, Op.SUBSCRIBE, '.broker/warn\0.broker/x\0.broker/'), Code.DONE)
      let forged = 0
      const rounds = isLong ? 1_000 : 50
      for (let round = 0; round < rounds; round += 1) {
        for (const topic of [
          '.broker/warn',
          '.broker/info',
          '.broker/x',
          '.broker/',
          '.broker/+',
          '.broker//',
        ]) {
          t.is(await ask(liar, Op.PUBLISH, `${topic}\0x`), Code.ACCESS, topic)
          t.is(await ask(liar, Op.PUBLISH_FOR, `${topic}\0reader\0x`), Code.ACCESS, topic)
          forged += 2
        }
      }
      for (const name of ['.broker', '.broker%%1', '.', '.x', '.broker.x', '%%1', '.broker\0']) {
        const [, code] = await tryLogin(t, broker.address, name)
        t.true(code === Code.DATA || (name === '%%1' && code === 0x71), `${name}: ${code}`)
        forged += 1
      }
      t.is(reader.waiting % 6, 0)
      t.is(codesOf(reader).size, 0, 'nothing was delivered')
      for (const peer of [liar, reader]) peer.destroy()
      await broker.gone('liar')
      return `${forged} forgeries refused`
    })
    t.deepEqual(Object.keys(await broker.ask('seen')), ['.broker'])
    const { denied } = await broker.ask('events')
    t.true(
      (denied as { client: string; operation: string; target: string }[]).some(
        (event) =>
          event.client === 'liar' && event.operation === 'publish' && event.target.startsWith('.broker/'),
      ),
    )
  },
)

hostile(
  'floods',
  'C30: who is disconnected sends and gets nothing more',
  { watch: ['flood/#'] },
  async (t, broker, id) => {
    await broker.under(id, async () => {
      const rounds = isLong ? 20 : 3
      let late = 0
      let after = 0
      let frames = 0
      for (let round = 0; round < rounds; round += 1) {
        const name = `flooder.${round}`
        const sender = await login(t, broker.address, name)
        const secondary = await login(t, broker.address, `${name}%%1`)
        const feeder = await login(t, broker.address, `feeder.${round}`)
        for (const peer of [sender, secondary, feeder]) peer.discard()
        let last = 0
        sender.socket.on('data', () => {
          last = Number(process.hrtime.bigint())
        })
        const out = operation(Op.PUBLISH, 'flood/x\0payload')
        const own = operation(Op.MESSAGE, `${name}\0payload`)
        const pouring = Promise.all([
          pour(sender, Buffer.alloc(out.length * 500).fill(out), ENDLESS),
          pour(secondary, Buffer.alloc(out.length * 500).fill(out), ENDLESS),
          pour(feeder, Buffer.alloc(own.length * 100).fill(own), ENDLESS),
        ])
        let before = 0
        while (before < 20_000) before = (await broker.ask('seen'))[name] ?? 0
        const { result, at } = await broker.ask('forceDisconnect', name)
        t.is(result, true)
        await soon(Promise.all([sender.ended, secondary.ended]), 'both are out')
        // What was in the queue of the receiver before may still be read by it.
        await sleep(10)
        const then = (await broker.ask('clients', 'watcher'))[0]?.sent.frames as number
        const seen = await broker.ask('seen')
        await sleep(200)
        after += ((await broker.ask('clients', 'watcher'))[0]?.sent.frames as number) - then
        t.is((await broker.ask('clients', name)).length, 0, 'secondaries follow')
        t.true((seen[`${name}%%1`] ?? 0) > 0, 'the secondary took part')
        frames += (seen[name] ?? 0) + (seen[`${name}%%1`] ?? 0)
        late = Math.max(late, (last - at) / 1e6)
        feeder.destroy()
        const sent = await pouring
        t.true(sent[0] > 0 && sent[1] > 0 && sent[2] > 0)
      }
      await broker.gone('feeder')
      t.is(after, 0, 'frames came from somebody who was disconnected')
      t.true(frames >= 20_000 * rounds)
      t.deepEqual(
        [
          (await broker.ask('forceDisconnect', 'nobody')).result,
          (await broker.ask('forceDisconnect', 'inside.a')).result,
          (await broker.ask('forceDisconnect', '.broker')).result,
        ],
        [false, 'ERR_BUS_NOT_SUPPORTED', 'ERR_BUS_NOT_SUPPORTED'],
      )
      // Read here, in a thread that floods at the same time, so this is more than the broker's.
      t.true(late <= 100, `the last bytes came ${late} ms later`)
      return `${rounds} times in the midst of ${frames} frames: 0 frames in from 10 ms after it, the last bytes out read after ${late.toFixed(1)} ms`
    })
  },
)

hostile(
  'floods',
  'one client of the process that is flooded leaves the others of its thread their turn',
  // What JavaScript received by the ten thousand leaves holes in the memory of V8 and of the C library.
  { watch: ['flood/#'], keeps: 96 << 20 },
  async (t, broker) => {
    const peers = await Promise.all(['flooder.a', 'flooder.b'].map((name) => login(t, broker.address, name)))
    const frame = operation(Op.PUBLISH, 'flood/x\0payload')
    const chunk = Buffer.alloc(frame.length * 500).fill(frame)
    for (const peer of peers) peer.discard()
    const pouring = Promise.all(peers.map((peer) => pour(peer, chunk, ENDLESS)))
    await sleep(500)
    await broker.ask('worst')
    await sleep(1_000)
    const { trip, delay, trips } = await broker.ask('worst')
    const { queue } = (await broker.ask('clients', 'watcher'))[0] as { queue: number }
    for (const peer of peers) peer.destroy()
    await pouring
    await broker.gone('flooder.')
    const seen = await broker.ask('seen')
    t.true((seen['flooder.a'] ?? 0) + (seen['flooder.b'] ?? 0) > 50_000, JSON.stringify(seen))
    t.log(
      `queue of the flooded ${queue}; others of its thread: ${trips} round trips in 1 s, the worst ${trip.toFixed(1)} ms, event loop late by ${delay.toFixed(1)} ms`,
    )
    // As a message and its answer wait for a turn each, a busy machine counts in the turns themselves.
    t.true(trip <= 4 * delay + 50, `a round trip took ${trip} ms, with the event loop late by ${delay} ms`)
  },
)

test.serial('events that nobody listens for end nothing', async (t) => {
  t.timeout(120_000)
  const broker = await Embedded.start(t, {
    listeners: false,
    options: { queue: { frames: 100 }, stallTimeout: 500 },
  })
  // Faults, before the login and behind it.
  for (const bytes of [Buffer.from('GET / HTTP/1.1\r\n\r\n'), Buffer.from([...GREETING, 1, 0, 0xff])]) {
    const peer = await RawPeer.connect(t, broker.address)
    peer.write(bytes)
    await soon(peer.ended, 'the end of a stranger')
  }
  for (let index = 0; index < 100; index += 1) {
    const peer = await login(t, broker.address, `broken.${index}`)
    peer.write(operation(0x3e, 'no operation'))
    await soon(peer.ended, 'the end of one that broke the protocol')
  }
  // Denials.
  const liar = await login(t, broker.address, 'liar')
  for (let index = 0; index < 100; index += 1) t.is(await ask(liar, Op.PUBLISH, '.broker/x\0x'), Code.ACCESS)
  t.is((await broker.ask('stats')).denied, 100)
  // A reader that is slow, and put out.
  const slow = await login(t, broker.address, 'slow')
  slow.socket.pause()
  await pour(liar, operation(Op.MESSAGE, Buffer.concat([text('slow'), Buffer.alloc(10_000)])), 1_000)
  await broker.gone('slow')
  t.true((await broker.ask('stats')).refused > 0)
  const events = await broker.ask('events')
  t.deepEqual(events, { denied: [], fault: [], slow: [], client: [] })
  liar.destroy()
  await broker.over()
})

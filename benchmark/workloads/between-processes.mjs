// Loads between processes of their own: a client, a broker or hub, another client.
import { cpuSeconds, residentBytes } from '../machine.mjs'
import { startFarSide } from '../peers/peers.mjs'

const TOPIC = 'bench/one'
/** Deliveries a publisher may be ahead of its slowest receiver, how often a receiver tells how far it is, and a turn. */
const SMALL = { window: 8_192, credit: 1_024, burst: 128 }
const LARGE = { window: 64, credit: 16, burst: 16 }
const LARGE_BYTES = 64 << 10
const IDLE_CLIENTS = 1_000
/** How long a broker is left alone before it is looked at, in milliseconds. */
const REST = 400

const OURS = ['embedded', 'elbusd']
/** Those that are brokers, or what comes closest. */
const BROKERS = ['nats', 'redis', 'mosquitto', 'aedes', 'zeromq']
const unix = ['embedded unix', 'elbusd unix', 'hub unix']
const tcp = ['embedded tcp', 'elbusd tcp', 'hub tcp', ...BROKERS.map((name) => `${name} tcp`)]
const direct = ['process.send', 'MessagePort']

/** Why some are left out of a load. */
const CALLS_ONLY = 'for calls only, which it is made for'
const onlyCalls = { moleculer: CALLS_ONLY }

/**
 * Which others a contestant is put in relation to: ours to all over the same transport, and to those without one, the
 * others to the hub.
 */
function references(contestants) {
  return (contestant) => {
    const [name, transport] = contestant.split(' ')
    const isComparable = (other) => {
      const [peer, theirs] = other.split(' ')
      if (OURS.includes(peer) || other === contestant) return false
      return (transport ?? theirs) === (theirs ?? transport) && (OURS.includes(name) || peer === 'hub')
    }
    return Object.fromEntries(contestants.filter(isComparable).map((other) => [other.split(' ')[0], other]))
  }
}

/** To all, over whatever transport: where what is measured is not what the transport costs. */
function allReferences(contestants) {
  return (contestant) =>
    OURS.includes(contestant.split(' ')[0])
      ? Object.fromEntries(
          contestants
            .filter((other) => !OURS.includes(other.split(' ')[0]))
            .map((other) => [other.split(' ')[0], other]),
        )
      : {}
}

function sum(cpu) {
  return Object.values(cpu).reduce((total, used) => total + used, 0)
}

/** CPU of all who took part and of each, per million. */
function shares(cpu, messages) {
  const perMillion = (used) => (used / messages) * 1e6
  const each = Object.entries(cpu).map(([name, used]) => [name, perMillion(used)])
  return { ...Object.fromEntries(each), cpu: perMillion(sum(cpu)) }
}

/**
 * Starts two programs with a far side between them, or one that starts the other. `settings` are for both; `second` gets
 * as many processes as `copies` says, where it is started by the other and a process has one channel only.
 */
async function startPair(stage, contestant, options, { first, second, settings, copies = 1 }) {
  const far = await startFarSide(stage, contestant, options)
  const common = { ...settings, peer: far.client, address: far.address }
  const broker = far.pid === undefined ? {} : { broker: [far.pid] }
  if (!far.isDirect) {
    const other = stage.start(second.program, { ...common, ...second.settings })
    const isReady = other.next('ready')
    if (far.isOrdered) await isReady
    const one = stage.start(first.program, { ...common, ...first.settings })
    const [onePid, otherPid] = await Promise.all([one.next('ready'), isReady])
    return { one, others: [other], watch: { ...broker, [first.as]: [onePid], [second.as]: [otherPid] } }
  }
  const expected = await Promise.all(
    Array.from({ length: copies }, (_, index) =>
      stage.expect(second.program, { ...common, ...second.settings, receivers: 1, first: index }),
    ),
  )
  const children = expected.map(({ child }) => child)
  const one = stage.start(first.program, { ...common, ...first.settings, children })
  const others = expected.map(({ actor }) => actor)
  const onePid = await one.next('ready')
  const otherPids = await Promise.all(others.map((actor) => actor.next('ready')))
  // Threads of one process are not told apart.
  const pids = otherPids.filter((pid) => pid !== onePid)
  const watch = { [first.as]: [onePid], ...(pids.length > 0 ? { [second.as]: pids } : {}) }
  return { one, others, watch }
}

/** Publishes or sends for a while, and gives deliveries, seconds and CPU. */
async function transfer(stage, contestant, options, { receivers, payload, flow, verb }) {
  const { warmUp, duration } = options
  const { window, credit, burst } = flow
  const { one, others, watch } = await startPair(stage, contestant, options, {
    first: { program: 'publisher.mjs', as: 'publisher', settings: { window, burst } },
    second: { program: 'subscriber.mjs', as: 'subscriber', settings: { credit, warmUp, duration } },
    settings: { topic: TOPIC, payload, receivers, verb },
    copies: receivers,
  })
  for (const other of others) other.order('watch', watch)
  one.order('go')
  const measured = await Promise.all(others.map((other) => other.next('measured')))
  one.order('stop')
  const sent = await one.next('sent')
  for (const other of others) other.order('total', sent)
  await Promise.all(others.map((other) => other.next('received')))
  await Promise.all([one, ...others].map((actor) => actor.leave()))
  // Each of several looks at the same processes, at about the same time.
  const [{ seconds, cpu }] = measured
  const perSecond = measured.reduce((total, part) => total + part.messages / part.seconds, 0)
  return { perSecond, ...shares(cpu, perSecond * seconds) }
}

const transferShares = {
  publisher: { title: 'of that the publisher' },
  broker: { title: 'of that the broker or hub' },
  subscriber: { title: 'of that the subscriber' },
}

function publication(receivers) {
  const contestants = [...unix, ...tcp, ...direct]
  return {
    load: `N4 publication between processes, 1→${receivers}`,
    id: 'N4',
    contestants,
    references: references(contestants),
    leftOut: onlyCalls,
    figures: {
      rate: {
        title: 'deliveries, M/s',
        goal: [
          { atLeast: 1.5, of: 'hub', for: OURS },
          { atLeast: 3, of: BROKERS, for: OURS },
        ],
      },
      cpu: { title: 'CPU of all, s per million' },
      ...transferShares,
    },
    async run(stage, contestant, options) {
      const { payload } = options
      const measured = await transfer(stage, contestant, options, { receivers, payload, flow: SMALL })
      return { ...measured, rate: measured.perSecond / 1e6 }
    },
  }
}

function message() {
  const contestants = [...tcp, ...direct]
  return {
    load: 'N4 message to one client between processes',
    id: 'N4',
    contestants,
    references: references(contestants),
    leftOut: onlyCalls,
    figures: {
      rate: { title: 'messages, M/s' },
      cpu: { title: 'CPU of all, s per million' },
      ...transferShares,
    },
    async run(stage, contestant, options) {
      const load = { receivers: 1, payload: options.payload, flow: SMALL, verb: 'send' }
      const measured = await transfer(stage, contestant, options, load)
      return { ...measured, rate: measured.perSecond / 1e6 }
    },
  }
}

function large() {
  const contestants = [...tcp, ...direct]
  return {
    load: 'N4 publication between processes, 64 KiB',
    id: 'N4',
    contestants,
    references: references(contestants),
    leftOut: onlyCalls,
    figures: {
      rate: { title: 'payload, MB/s' },
      cpu: { title: 'CPU of all, s per million' },
      ...transferShares,
    },
    async run(stage, contestant, options) {
      const load = { receivers: 1, payload: LARGE_BYTES, flow: LARGE }
      const measured = await transfer(stage, contestant, options, load)
      return { ...measured, rate: (measured.perSecond * LARGE_BYTES) / 1e6 }
    },
  }
}

function call(inFlight) {
  const contestants = [...unix, ...tcp, 'moleculer tcp', ...direct]
  const figures =
    inFlight === 1
      ? {
          p50: { title: 'p50, µs', goal: { atMost: 1, of: 'hub', for: OURS } },
          p99: { title: 'p99, µs' },
        }
      : { rate: { title: 'calls, thousand/s', goal: { atLeast: 250, for: OURS } } }
  return {
    load: `N5 call between processes, ${inFlight} in flight`,
    id: 'N5',
    contestants,
    references: references(contestants),
    figures: {
      ...figures,
      cpu: { title: 'CPU of all, s per million' },
      caller: { title: 'of that the caller' },
      broker: { title: 'of that the broker or hub' },
      callee: { title: 'of that the callee' },
    },
    async run(stage, contestant, options) {
      const { payload, warmUp, duration } = options
      const { one, others, watch } = await startPair(stage, contestant, options, {
        first: { program: 'caller.mjs', as: 'caller', settings: { inFlight, warmUp, duration } },
        second: { program: 'callee.mjs', as: 'callee' },
        settings: { payload },
      })
      one.order('watch', watch)
      one.order('go')
      const { messages, seconds, cpu } = await one.next('measured')
      one.order('stop')
      const { p50, p99 } = await one.next('called')
      await Promise.all([one, ...others].map((actor) => actor.leave()))
      return { p50, p99, rate: messages / seconds / 1e3, ...shares(cpu, messages) }
    },
  }
}

function delivery() {
  const contestants = [...unix, ...BROKERS.map((name) => `${name} tcp`), ...direct]
  return {
    load: 'N6 start of broker and client, until the first message',
    id: 'N6',
    contestants,
    references: allReferences(contestants),
    leftOut: onlyCalls,
    figures: {
      total: { title: 'from the start of the broker, ms' },
      client: { title: 'of that after the broker listened, ms' },
    },
    async run(stage, contestant, options) {
      const begin = performance.now()
      const far = await startFarSide(stage, contestant, options)
      const listened = performance.now()
      const { client: peer, address, isDirect } = far
      const settings = { peer, address, topic: TOPIC, payload: options.payload }
      const actors = []
      if (isDirect) {
        const { actor, child } = await stage.expect('first-delivery.mjs', {
          ...settings,
          roles: ['subscriber'],
        })
        actors.push(actor)
        const parent = { ...settings, roles: ['publisher'], children: [child] }
        actors.push(stage.start('first-delivery.mjs', parent))
      } else {
        const both = { ...settings, roles: ['subscriber', 'publisher'] }
        actors.push(stage.start('first-delivery.mjs', both))
      }
      await actors[0].next('delivered')
      const now = performance.now()
      await Promise.all(actors.map((actor) => actor.leave()))
      return { total: now - begin, client: isDirect ? undefined : now - listened }
    },
  }
}

function idle() {
  const contestants = [...unix, ...BROKERS.filter((name) => name !== 'zeromq').map((name) => `${name} tcp`)]
  return {
    load: `idle clients, ${IDLE_CLIENTS.toLocaleString('en')} of them`,
    id: 'idle',
    contestants,
    references: allReferences(contestants),
    leftOut: {
      ...onlyCalls,
      ...Object.fromEntries(
        ['zeromq', ...direct].map((name) => [name, 'no broker of its own, so no idle clients']),
      ),
    },
    figures: {
      each: { title: 'memory of the broker for each client, KiB' },
      alone: { title: 'memory of the broker without clients, MiB' },
      cpu: { title: 'CPU of the broker, %' },
    },
    async run(stage, contestant, options) {
      const rest = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds))
      const { client: peer, address, pid } = await startFarSide(stage, contestant, options)
      await rest(REST)
      const alone = residentBytes(pid)
      const clients = stage.start('idle.mjs', { peer, address, clients: IDLE_CLIENTS })
      await clients.next('ready')
      await rest(REST)
      const begin = performance.now()
      const used = cpuSeconds(pid)
      // A client of ours pings once a second.
      await rest(1_000)
      const seconds = (performance.now() - begin) / 1e3
      const figures = {
        each: (residentBytes(pid) - alone) / 1024 / IDLE_CLIENTS,
        alone: alone / 2 ** 20,
        cpu: ((cpuSeconds(pid) - used) / seconds) * 100,
      }
      await clients.leave()
      return figures
    },
  }
}

/** `processes`, `message`, `large`, `remote-call`, `delivery` and `idle`. */
export const betweenProcesses = {
  processes: [publication(1), publication(8)],
  message: [message()],
  large: [large()],
  'remote-call': [call(1), call(64)],
  delivery: [delivery()],
  idle: [idle()],
}

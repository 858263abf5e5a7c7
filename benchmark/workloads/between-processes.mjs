// Loads between processes of their own: a client, a broker or hub, another client.
import { freePort } from '../actor.mjs'

const TOPIC = 'bench/one'
/** Deliveries a publisher may be ahead of its slowest receiver, and how often a receiver tells how far it is. */
const WINDOW = 8_192
const CREDIT = 1_024
const BURST = 128

/** Where a peer listens. */
async function address(stage, transport) {
  if (transport === 'unix') {
    const path = stage.socketPath()
    return { text: `unix:${path}`, where: { path } }
  }
  const port = await freePort()
  return { text: `tcp://127.0.0.1:${port}`, where: { host: '127.0.0.1', port } }
}

/** How each far side is started: the module of its clients, and its process. */
const farSides = {
  async embedded(stage, at) {
    const broker = stage.start('broker.mjs', { listen: [at.text] })
    await broker.next('ready')
    return { peer: 'elbus', pid: broker.pid }
  },
  async elbusd(stage, at, { elbusd }) {
    const { path, host, port } = at.where
    return {
      peer: 'elbus',
      pid: await stage.spawn(elbusd, ['-B', path ?? `${host}:${port}`, '-w', '2'], at.where),
    }
  },
  async hub(stage, at) {
    const hub = stage.start('hub.mjs', { listen: [at.where] })
    await hub.next('ready')
    return { peer: 'hub', pid: hub.pid }
  },
  async nats(stage, at, { natsServer }) {
    const { host, port } = at.where
    return { peer: 'nats', pid: await stage.spawn(natsServer, ['-a', host, '-p', String(port)], at.where) }
  },
}

const contestants = [
  'embedded unix',
  'elbusd unix',
  'hub unix',
  'embedded tcp',
  'elbusd tcp',
  'hub tcp',
  'nats tcp',
]

/** Which others a contestant is put in relation to. */
function references(contestant) {
  const [, transport] = contestant.split(' ')
  return transport === 'tcp' ? { hub: 'hub tcp', nats: 'nats tcp' } : { hub: 'hub unix' }
}

async function farSide(stage, contestant, options) {
  const [name, transport] = contestant.split(' ')
  const at = await address(stage, transport)
  return { ...(await farSides[name](stage, at, options)), address: at.text }
}

function sum(cpu) {
  return Object.values(cpu).reduce((total, used) => total + used, 0)
}

function publication(receivers) {
  return {
    load: `N4 publication between processes, 1→${receivers}`,
    contestants,
    references,
    figures: {
      rate: { title: 'deliveries, M/s', goal: { atLeast: 1, of: 'hub', for: ['embedded', 'elbusd'] } },
      cpu: { title: 'CPU of all, s per million' },
      publisher: { title: 'of that the publisher' },
      broker: { title: 'of that the broker or hub' },
      subscriber: { title: 'of that the subscriber' },
    },
    async run(stage, contestant, options) {
      const { payload, warmUp, duration } = options
      const { peer, pid, address } = await farSide(stage, contestant, options)
      const common = { peer, address, topic: TOPIC, payload, receivers }
      const publisher = stage.start('publisher.mjs', { ...common, window: WINDOW, burst: BURST })
      await publisher.next('ready')
      const watch = { publisher: [publisher.pid], broker: [pid] }
      const settings = { ...common, name: 'subscriber', credit: CREDIT, warmUp, duration, watch }
      const subscriber = stage.start('subscriber.mjs', settings)
      await subscriber.next('ready')
      publisher.order('go')
      const { messages, seconds, cpu } = await subscriber.next('measured')
      publisher.order('stop')
      subscriber.order('total', await publisher.next('sent'))
      await subscriber.next('received')
      await Promise.all([publisher.leave(), subscriber.leave()])
      const perMillion = (used) => (used / messages) * 1e6
      return {
        rate: messages / seconds / 1e6,
        cpu: perMillion(sum(cpu)),
        publisher: perMillion(cpu.publisher),
        broker: perMillion(cpu.broker),
        subscriber: perMillion(cpu.subscriber),
      }
    },
  }
}

function call(inFlight) {
  const isOne = inFlight === 1
  const better = isOne ? { atMost: 1 / 1.5 } : { atLeast: 1.5 }
  const goal = { ...better, of: 'nats', for: ['embedded', 'elbusd'] }
  return {
    load: `N5 call between processes, ${inFlight} in flight`,
    contestants,
    references,
    figures: {
      ...(isOne
        ? { p50: { title: 'p50, µs', goal }, p99: { title: 'p99, µs' } }
        : { rate: { title: 'calls, thousand/s', goal } }),
      cpu: { title: 'CPU of all, s per million' },
      caller: { title: 'of that the caller' },
      broker: { title: 'of that the broker or hub' },
      callee: { title: 'of that the callee' },
    },
    async run(stage, contestant, options) {
      const { payload, warmUp, duration } = options
      const { peer, pid, address } = await farSide(stage, contestant, options)
      const callee = stage.start('callee.mjs', { peer, address })
      await callee.next('ready')
      const watch = { callee: [callee.pid], broker: [pid] }
      const settings = { name: 'caller', peer, address, payload, inFlight, warmUp, duration, watch }
      const caller = stage.start('caller.mjs', settings)
      await caller.next('ready')
      caller.order('go')
      const { messages, seconds, cpu } = await caller.next('measured')
      caller.order('stop')
      const { p50, p99 } = await caller.next('called')
      await Promise.all([caller.leave(), callee.leave()])
      const perMillion = (used) => (used / messages) * 1e6
      return {
        p50,
        p99,
        rate: messages / seconds / 1e3,
        cpu: perMillion(sum(cpu)),
        caller: perMillion(cpu.caller),
        broker: perMillion(cpu.broker),
        callee: perMillion(cpu.callee),
      }
    },
  }
}

/** `processes` and `remote-call`. */
export const betweenProcesses = {
  processes: [publication(1), publication(8)],
  'remote-call': [call(1), call(64)],
}

// Loads over the wire: what crates/loadtest is asked to measure, and what is shown of it. A measurement serves more
// than one row of the goals; a case is one load with those it is about, on one transport.

const BROKERS = ['ours', 'busrtd', 'elbusd']
/** Brokers with topics and no messages to clients by name; over TCP alone. */
const TOPICS = ['nats', 'redis', 'mosquitto']
const BUSY_POLL = 'ours-busy-poll'

const unix = (names) => names.map((name) => `${name} unix`)
const tcp = (names) => names.map((name) => `${name} tcp`)

const MANY = 100_000
const MILLION = 1_000_000
const KIB_64 = 65_536

const RECEIVERS = [1, 10, 100, 1_000]
const SENDERS = [1, 10, 100, 1_000]
const PAYLOADS = [16, 100, 1_024, 16_384, KIB_64, 1_048_576]
const SUBSCRIPTIONS = [0, 1_000, MANY]
/** Frames each sender has under way, however many there are: else a thousand would send in batches of four. */
const PER_SENDER = 64

const equals = [...unix(BROKERS), ...tcp(BROKERS)]
const everybody = [...equals, ...tcp(TOPICS)]
const relays = ['relay unix', 'relay tcp']
const growing = [...unix(['ours', 'busrtd']), ...tcp(['nats'])]

/**
 * What is measured, by name: the words for `elbus-loadtest`, who takes part, `rounds` where fewer are enough, and
 * `queueSize` where the brokers' queues have to hold more frames than otherwise.
 */
export const measurements = {
  message: { arguments: ['message'], contestants: [...equals, ...relays] },
  publish: { arguments: ['publish'], contestants: everybody },
  'publish to 8': { arguments: ['publish', '--receivers', 8], contestants: everybody },
  'publish from 8': { arguments: ['publish', '--senders', 8], contestants: everybody },
  'large message': {
    arguments: ['message', '--payload', KIB_64],
    contestants: [...unix(['ours']), ...tcp(['ours']), ...relays],
  },
  'large publish': { arguments: ['publish', '--payload', KIB_64], contestants: everybody },
  'round trip': { arguments: ['round-trip'], contestants: everybody },
  'realtime round trip': {
    arguments: ['round-trip', '--realtime'],
    contestants: unix([...BROKERS, BUSY_POLL]),
  },
  'acknowledged 1': { arguments: ['acked'], contestants: [...unix(BROKERS), ...tcp(['ours', 'mosquitto'])] },
  'acknowledged 64': {
    arguments: ['acked', '--in-flight', 64],
    contestants: [...unix(BROKERS), ...tcp(['ours', 'mosquitto'])],
  },
  'many masks': { arguments: ['subscriptions', '--subscriptions', MANY], contestants: unix(BROKERS) },
  'a million masks': {
    arguments: ['subscriptions', '--subscriptions', MILLION],
    contestants: unix(['ours', 'busrtd']),
    rounds: 3,
  },
  calls: { arguments: ['broker'], contestants: unix(BROKERS) },
  idle: {
    // As long as the timeout, in which a broker pings once or twice.
    arguments: ['idle', '--duration', 5],
    contestants: [...unix(BROKERS), ...tcp(['ours', ...TOPICS])],
    rounds: 3,
  },
  ...points(RECEIVERS, receiversPoint, (at) => ({
    arguments: ['publish', '--receivers', at, ...longer(at)],
    contestants: growing,
  })),
  ...points(SENDERS, sendersPoint, (at) => ({
    arguments: ['publish', '--senders', at, '--window', at * PER_SENDER, ...longer(at)],
    // busrtd puts out a receiver of so many; elbusd does not.
    contestants: [...unix(['ours', 'elbusd']), ...tcp(['nats'])],
    queueSize: 131_072,
  })),
  ...points(PAYLOADS, payloadPoint, (at) => ({
    arguments: ['publish', '--payload', at],
    contestants: growing,
  })),
  ...points(SUBSCRIPTIONS, subscriptionsPoint, (at) => ({
    arguments: ['publish', '--subscriptions', at],
    contestants: unix(['ours', 'busrtd']),
  })),
}

function receiversPoint(at) {
  return `publish, ${at} receivers`
}

function sendersPoint(at) {
  return `publish, ${at} senders`
}

function payloadPoint(at) {
  return `publish, ${at} B`
}

function subscriptionsPoint(at) {
  return `publish, ${at} masks of others`
}

/** A thousand clients need a moment until all of them are under way. */
function longer(clients) {
  return clients < 1_000 ? [] : ['--warm-up', 0.5, '--duration', 1]
}

function points(list, nameOf, measurement) {
  return Object.fromEntries(list.map((at) => [nameOf(at), measurement(at)]))
}

/** A figure of the load generator, by its name there: what it is called here, times what. */
const figure = (title, source, { scale = 1, goal } = {}) => ({ title, source, scale, goal })

const rate = (goal, what = 'deliveries') => figure(`${what}, M/s`, what, { scale: 1e-6, goal })
const cpu = (goal) => figure('broker CPU, s per million', 'broker CPU', { goal })
const megabytes = (goal) => figure('payload, MB/s', 'payload', { goal })
const latency = (quantile, goal) => figure(`${quantile}, µs`, `answer ${quantile}`, { goal })

/** Everybody else in a load, by the first word of the name. */
function others(contestants) {
  const names = contestants.filter((name) => !name.startsWith('ours'))
  return (contestant) =>
    contestant.startsWith('relay')
      ? {}
      : Object.fromEntries(
          names.filter((name) => name !== contestant).map((name) => [name.split(' ')[0], name]),
        )
}

/** A load of one measurement: those of `names` over one transport, or all. */
function show(id, load, from, transport, figures, names) {
  const contestants = measurements[from].contestants.filter((label) => {
    const [name, over] = label.split(' ')
    const isHere = names === undefined ? name !== 'relay' && name !== BUSY_POLL : names.includes(name)
    return over === transport && isHere
  })
  const over = transport === 'unix' ? 'UNIX sockets' : 'TCP'
  return {
    load: `${id} ${load}, ${over}`,
    id,
    from,
    contestants,
    references: others(contestants),
    floors: relays.concat('relay'),
    figures,
  }
}

const tenth = { atMost: 0.1, of: ['busrtd', 'elbusd'] }
const third = { atMost: 1 / 3, of: 'nats' }

const oneWay = [
  ['message 1→1', 'message', 8],
  ['publish 1→1', 'publish', 8],
  ['publish 1→8', 'publish to 8', 12],
]
/** From many to one; there is no goal for it. */
const fanIn = ['publish 8→1', 'publish from 8']

const cpuOfDeliveries = oneWay.flatMap(([load, from]) => [
  show('S1', load, from, 'unix', { cpu: cpu(tenth) }),
  show('S1', load, from, 'tcp', { cpu: cpu(third) }),
])
cpuOfDeliveries.push(
  show('S1', ...fanIn, 'unix', { cpu: cpu() }),
  show('S1', ...fanIn, 'tcp', { cpu: cpu() }),
)

const ratesOfDeliveries = oneWay.flatMap(([load, from, millions]) => [
  show('S2', load, from, 'unix', { rate: rate({ atLeast: millions }) }),
  show('S2', load, from, 'tcp', { rate: rate() }),
])
ratesOfDeliveries.push(
  show('S2', ...fanIn, 'unix', { rate: rate() }),
  show('S2', ...fanIn, 'tcp', { rate: rate() }),
)

const besideRelay = { cpu: cpu({ atMost: 1.5, of: 'relay' }), rate: rate() }
const relayed = ['unix', 'tcp'].flatMap((transport) => [
  show('S3', 'message 1→1', 'message', transport, besideRelay, ['ours', 'relay']),
  show('S3', 'message 1→1, 64 KiB', 'large message', transport, besideRelay, ['ours', 'relay']),
])

const large = [
  show('S4', 'publish 1→1, 64 KiB', 'large publish', 'unix', {
    bytes: megabytes({ atLeast: 2, of: 'busrtd' }),
    cpu: cpu({ atMost: 0.5, of: 'busrtd' }),
  }),
  show('S4', 'publish 1→1, 64 KiB', 'large publish', 'tcp', { bytes: megabytes(), cpu: cpu() }),
]

const trips = (p50, p99) => ({
  p50: latency('p50', p50 && { atMost: p50, of: 'busrtd' }),
  p99: latency('p99', p99 && { atMost: p99, of: 'busrtd' }),
  cpu: cpu(),
})

const roundTrips = [
  show('S5', 'round trip', 'round trip', 'unix', trips(0.5, 0.6)),
  // Of those without messages to clients by name: by two topics.
  show('S5', 'round trip', 'round trip', 'tcp', trips()),
  show('S5', 'realtime round trip', 'realtime round trip', 'unix', trips(0.9, 0.9)),
  show('S5', 'realtime round trip, busy poll', 'realtime round trip', 'unix', trips(0.5, 0.5), [
    BUSY_POLL,
    'busrtd',
  ]),
]

const thousands = (what, goal) => figure(`${what}, thousand/s`, what, { scale: 1e-3, goal })

const acknowledged = [1, 64].flatMap((inFlight) => {
  const load = `acknowledged message, ${inFlight} in flight`
  const figures = (goal) => ({ rate: thousands('acknowledgements', goal), cpu: cpu() })
  return [
    show('S6', load, `acknowledged ${inFlight}`, 'unix', figures({ atLeast: 3, of: 'busrtd' })),
    // MQTT's QoS 1, to a topic.
    show('S6', load, `acknowledged ${inFlight}`, 'tcp', figures()),
  ]
})

const stall = (goal) =>
  figure('longest round trip while they are taken, ms', 'round trip while taken max', { scale: 1e-3, goal })
const memoryEach = (goal) => figure('memory each, B', 'memory each', { goal })
const taken = (goal) => figure('time to take them, s', 'time to take them', { goal })

const masks = [
  show('S7', 'publish beside 100,000 masks of others', 'many masks', 'unix', {
    growth: figure('broker CPU beside that with none, ×', 'broker CPU them/none', {
      goal: { atMost: 1.05, isRatio: true },
    }),
    none: figure('broker CPU with none, s per million', 'broker CPU with none'),
    them: figure('broker CPU with them, s per million', 'broker CPU with them'),
    rate: figure('deliveries with them, M/s', 'deliveries with them', { scale: 1e-6 }),
    taken: taken({ atMost: 0.1 }),
    memory: memoryEach(),
    stall: stall(),
  }),
  show('S7', 'publish beside 1,000,000 masks of others', 'a million masks', 'unix', {
    memory: memoryEach({ atMost: 250 }),
    stall: stall({ atMost: 20 }),
    taken: taken(),
    them: figure('broker CPU with them, s per million', 'broker CPU with them'),
  }),
]

const calls = [
  show('S8', 'calls of .broker, 64 in flight', 'calls', 'unix', {
    perCpu: {
      title: 'calls per CPU second of the broker, thousand/s',
      source: 'broker CPU',
      of: (value) => 1e3 / value,
      goal: { atLeast: 4, of: 'busrtd' },
    },
    rate: thousands('calls'),
    cpu: cpu(),
  }),
]

const idling = ['unix', 'tcp'].map((transport) =>
  show('S9', '1,000 idle clients', 'idle', transport, {
    memory: figure('memory per client, KiB', 'memory per client', { goal: { atMost: 6 } }),
    alone: figure('memory of the broker alone, MiB', 'memory alone', {
      scale: 1 / 1024,
      goal: { atMost: 6 },
    }),
    cpu: figure('CPU with them, %', 'idle CPU', { goal: { atMost: 0.3 } }),
  }),
)

/** One point of a curve. */
function point(of, load, from, at, figures) {
  const { contestants } = measurements[from]
  const growth = { of, at, curve: `S10 growth with ${of}` }
  return {
    load: `S10 ${load}`,
    id: 'S10',
    from,
    contestants,
    references: others(contestants),
    figures,
    growth,
  }
}

/** How much dearer the dearest delivery is than the first of a curve, by round; no curve but a figure of it. */
function flatness(what, list, nameOf) {
  const { contestants } = measurements[nameOf(list[0])]
  return {
    load: `S10 dearest delivery beside that with ${what}`,
    id: 'S10',
    from: list.map(nameOf),
    contestants,
    references: () => ({}),
    figures: {
      growth: {
        title: 'broker CPU, ×',
        source: 'broker CPU',
        over: ([first, ...rest]) => Math.max(...rest.map((value) => value / first)),
        goal: { atMost: 1.2, isRatio: true },
      },
    },
  }
}

const count = (number, one, many) => (number === 1 ? `1 ${one}` : `${number.toLocaleString('en')} ${many}`)
const curves = { cpu: cpu(), rate: rate() }

const growth = [
  ...RECEIVERS.map((at) =>
    point('receivers', `publish, ${count(at, 'receiver', 'receivers')}`, receiversPoint(at), at, curves),
  ),
  flatness('one receiver', RECEIVERS, receiversPoint),
  ...SENDERS.map((at) =>
    point('senders', `publish, ${count(at, 'sender', 'senders')}`, sendersPoint(at), at, curves),
  ),
  flatness('one sender', SENDERS, sendersPoint),
  // A byte costs what it costs: there is no goal for what a larger payload may.
  ...PAYLOADS.map((at) =>
    point('payload', `publish, ${at.toLocaleString('en')} B`, payloadPoint(at), at, {
      ...curves,
      bytes: megabytes(),
    }),
  ),
  ...SUBSCRIPTIONS.map((at) =>
    point(
      'masks held by others',
      `publish, ${count(at, 'mask', 'masks')} of others`,
      subscriptionsPoint(at),
      at,
      curves,
    ),
  ),
  flatness('no masks of others', SUBSCRIPTIONS, subscriptionsPoint),
]

/** All loads by the names they are asked for with, in the order of the goals. */
export const workloads = {
  cpu: cpuOfDeliveries,
  rate: ratesOfDeliveries,
  relay: relayed,
  large,
  'round-trip': roundTrips,
  acknowledged,
  masks,
  'broker-calls': calls,
  idle: idling,
  growth,
}

export const peerNames = [...BROKERS.slice(1), ...TOPICS]
export const busyPoll = BUSY_POLL

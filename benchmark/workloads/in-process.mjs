// Loads inside one process: a broker and its clients.

const TOPIC = 'bench/one'
const OURS = 'in process'
const ALONE = [OURS]
/** What Node brings along to pass something on within a process: no bus, but what one is held against. */
const FLOORS = ['EventEmitter', 'MessageChannel']

const besideFloors = {
  contestants: [OURS, ...FLOORS],
  references: (contestant) =>
    contestant === OURS ? Object.fromEntries(FLOORS.map((name) => [name, name])) : {},
  floors: FLOORS,
}

const perSecond = ({ messages, seconds }) => messages / seconds / 1e6
const cpuPerMillion = ({ messages, cpu }) => (cpu / messages) * 1e6

/** Runs one program to its end and gives what it measured. */
async function alone(stage, program, settings) {
  const actor = stage.start(program, settings)
  const measured = await actor.next('measured')
  await actor.leave()
  return measured
}

function oneWay(burst, by, goal) {
  return {
    load: `N1 one-way, in process, bursts of ${burst}${by === 'iterator' ? ', for await' : ''}`,
    id: 'N1',
    ...(by === 'callback' ? besideFloors : { contestants: ALONE }),
    figures: {
      rate: { title: 'messages, M/s', goal, better: 'more' },
      cpu: { title: 'CPU, s per million' },
    },
    async run(stage, contestant, { payload, warmUp, duration }) {
      const settings = { topic: TOPIC, payload, burst, by, contestant, warmUp, duration }
      const measured = await alone(stage, 'one-way.mjs', settings)
      return { rate: perSecond(measured), cpu: cpuPerMillion(measured) }
    },
  }
}

function call(inFlight, params) {
  const isOne = inFlight === 1
  const figures = isOne
    ? { p50: { title: 'p50, µs', goal: { atMost: 1 } }, p99: { title: 'p99, µs' } }
    : { rate: { title: 'calls, M/s', goal: { atLeast: 1.2 } } }
  return {
    load: `N2 call, in process, ${params === 'bytes' ? 'bytes' : 'an object'}, ${inFlight} in flight`,
    id: 'N2',
    ...(params === 'bytes' ? besideFloors : { contestants: ALONE }),
    figures: { ...figures, cpu: { title: 'CPU, s per million' } },
    async run(stage, contestant, { payload, warmUp, duration }) {
      const settings = { payload, inFlight, params, contestant, warmUp, duration }
      const measured = await alone(stage, 'call.mjs', settings)
      const { p50, p99 } = measured
      return { p50, p99, rate: perSecond(measured), cpu: cpuPerMillion(measured) }
    },
  }
}

const start = {
  load: 'N6 fresh process, until the first message',
  id: 'N6',
  contestants: ALONE,
  // A process takes a tenth of a second, so each round can afford some.
  samples: 4,
  figures: {
    total: { title: 'from require, ms', goal: { atMost: 30 } },
    loaded: { title: 'of that require itself, ms' },
    sinceStart: { title: 'from the start of the process, ms' },
  },
  run: (stage) => alone(stage, 'first-message.cjs', {}),
}

const steady = {
  load: 'N7 one subscriber, 10 million messages',
  id: 'N7',
  contestants: ALONE,
  figures: {
    rss: { title: 'peak RSS, MiB', goal: { atMost: 120 } },
    rssBefore: { title: 'peak RSS before the first, MiB' },
    pause: { title: 'longest pause of the event loop, ms', goal: { atMost: 20 } },
    turn: { title: 'longest turn of the loop, ms of CPU' },
    rate: { title: 'messages, M/s' },
    cpu: { title: 'CPU, s per million' },
  },
  async run(stage, _contestant, { payload }) {
    const measured = await alone(stage, 'steady.mjs', { topic: TOPIC, payload, messages: 10_000_000 })
    return { ...measured, rate: perSecond(measured), cpu: cpuPerMillion(measured) }
  },
}

/** `one-way`, `call`, `start` and `steady`. */
export const inProcess = {
  'one-way': [
    oneWay(1, 'callback'),
    oneWay(16, 'callback', { atLeast: 6 }),
    oneWay(128, 'callback', { atLeast: 6 }),
    oneWay(128, 'iterator'),
  ],
  call: [call(1, 'bytes'), call(1, 'object'), call(128, 'bytes'), call(128, 'object')],
  start: [start],
  steady: [steady],
}

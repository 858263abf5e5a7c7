// Results as the two parts give them, small, with every kind of row: goals in figures and in ratios, peers that are
// there, left out and missing, a floor, memory, growth, and a load nobody finished.

/** Rounds of one figure. */
export const rounds = (...values) => values.map((value) => ({ value }))

const peers = { busrtd: 'busrtd', elbusd: 'elbusd', nats: 'nats' }

/** A load of one figure; `samples` by contestant. */
export function load({ title, figure, samples, ...more }) {
  return {
    load: { load: title, contestants: Object.keys(samples), figures: { value: figure }, ...more },
    samples: [title, new Map(Object.entries(samples).filter(([, list]) => list !== undefined))],
  }
}

/** What `measureWire` or `measureNode` would give. */
export function result(part, loads, more = {}) {
  return {
    part,
    about: { cpus: 2 },
    cases: loads.map((one) => one.load),
    samples: new Map(loads.map((one) => one.samples)),
    loads: [0.1, 1.25],
    ...more,
  }
}

export const quiet = { cores: 2, load: 0.1, others: 0.01, pace: 3, isBusy: false, isSlow: false }
export const busy = { ...quiet, load: 9.14, others: 0.6, isBusy: true, reason: 'load 9.1 on 2 cores' }

const growing = (at, ours, other) =>
  load({
    title: `S10 publish, 1→${at}`,
    figure: { title: 'broker CPU, s per million' },
    growth: { of: 'receivers', at },
    references: () => peers,
    samples: { ours: rounds(...ours), nats: rounds(...other) },
  })

/** Both parts with a bit of everything. */
export const results = () => [
  result(
    'wire',
    [
      load({
        title: 'S1 publish, 1→8',
        id: 'S1',
        figure: { title: 'broker CPU, s per million', goal: { atMost: 0.1, of: ['busrtd', 'elbusd'] } },
        references: () => peers,
        samples: {
          ours: rounds(0.05, 0.04, 0.06),
          busrtd: rounds(0.8, 0.7, 0.9),
          elbusd: rounds(0.4, 0.5, 0.6),
          nats: undefined,
        },
      }),
      load({
        title: 'S2 publish, 1→8',
        id: 'S2',
        figure: { title: 'deliveries, M/s', goal: { atLeast: 12 } },
        references: () => peers,
        samples: { ours: rounds(18, 10, 14), busrtd: rounds(2, 2, 2), elbusd: rounds(3, 3, 3) },
      }),
      load({
        title: 'S3 message, 1→1',
        id: 'S3',
        figure: { title: 'broker CPU, s per million', goal: { atMost: 1.5, of: 'relay' } },
        references: (name) => (name === 'relay' ? {} : { relay: 'relay', busrtd: 'busrtd' }),
        samples: { ours: rounds(0.08), relay: rounds(0.02), busrtd: rounds(0.9) },
      }),
      load({
        title: 'S9 idle clients',
        id: 'S9',
        figure: { title: 'memory per client, KiB', goal: { atMost: 6 } },
        samples: { ours: rounds(5), busrtd: rounds(220) },
      }),
      growing(1, [0.1, 0.09, 0.11], [0.3, 0.3, 0.33]),
      growing(10, [0.05, 0.04, 0.06], [0.2, 0.2, 0.22]),
      growing(100, [0.05, 0.04, 0.06], [0.15, 0.1, 0.2]),
    ],
    { missing: { nats: 'nats-server is missing: apt-get install nats-server' } },
  ),
  result(
    'node',
    [
      load({
        title: 'N4 publication, 1→1',
        id: 'N4',
        figure: {
          title: 'deliveries, M/s',
          goal: [
            { atLeast: 3, of: 'best' },
            { atLeast: 1.5, of: 'hub' },
          ],
        },
        references: (name) =>
          name.endsWith('tcp') ? { hub: 'hub tcp', redis: 'redis tcp' } : { hub: 'hub unix' },
        samples: {
          'embedded tcp': rounds(4, 5, 4.5),
          'hub tcp': rounds(2, 2, 2),
          'redis tcp': rounds(0.01, 0.01, 0.01),
          'embedded unix': rounds(6),
        },
      }),
      load({
        title: 'N5 call, 1 in flight',
        id: 'N5',
        figure: { title: 'p50, µs', goal: { atMost: 1, of: 'hub' } },
        references: () => ({ hub: 'hub tcp' }),
        samples: { 'embedded tcp': undefined },
      }),
    ],
    { failure: new Error('N5 call, 1 in flight, embedded tcp: the callee ended') },
  ),
]

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { summarise } from '../conclusions.mjs'
import { betterOf, evaluate, goalText, unitOf } from '../evaluation.mjs'
import { record } from '../record.mjs'
import { digits, summary } from '../statistics.mjs'
import { busy, load, quiet, result, results, rounds } from './fixture.mjs'

const runOf = (found, conditions = quiet) =>
  record({ date: '2026-01-01', command: 'npm run benchmark', conditions, results: found })

/** The one row of a load with these samples. */
function rowsOf(part, one, conditions, more) {
  return evaluate(runOf([result(part, [load({ title: 'X load', ...one })], more)], conditions))
}

test('the middle of rounds', () => {
  for (const [values, wanted] of [
    [[3, 1, 2], { min: 1, median: 2, max: 3 }],
    [[4, 1, 2, 3], { min: 1, median: 2.5, max: 4 }],
    [[7], { min: 7, median: 7, max: 7 }],
    [[Number.NaN, 2, undefined, null], { min: 2, median: 2, max: 2 }],
    [[], undefined],
    [[undefined], undefined],
  ]) {
    assert.deepEqual(summary(values), wanted)
  }
})

test('numbers as people read them', () => {
  for (const [value, wanted] of [
    [undefined, '–'],
    [null, '–'],
    [Number.NaN, '–'],
    [0, '0'],
    [0.08662, '0.0866'],
    [0.998, '0.998'],
    [0.99999, '1.00'],
    [1.234, '1.23'],
    [9.999, '10.0'],
    [63.46, '63.5'],
    [99.97, '100'],
    [1234.5, '1235'],
    [9_999.6, '10 k'],
    [313_400, '313 k'],
    [10_800_000, '10.8 M'],
    [3.1e9, '3.1 G'],
  ]) {
    assert.equal(digits(value), wanted)
  }
})

test('a title is what is measured and its unit', () => {
  assert.deepEqual(unitOf('CPU of all, s per million'), { what: 'CPU of all', unit: 's per million' })
  assert.deepEqual(unitOf('of that the caller'), { what: 'of that the caller', unit: '' })
})

test('which way is better', () => {
  for (const [figure, wanted] of [
    [{ title: 'messages, M/s' }, 'more'],
    [{ title: 'deliveries per second' }, 'more'],
    [{ title: 'CPU, s per million' }, 'less'],
    [{ title: 'anything', goal: { atLeast: 1 } }, 'more'],
    [{ title: 'messages, M/s', goal: [{ atMost: 1 }] }, 'less'],
    [{ title: 'messages, M/s', better: 'less', goal: { atLeast: 1 } }, 'less'],
  ]) {
    assert.equal(betterOf(figure), wanted, JSON.stringify(figure))
  }
})

test('goals in words', () => {
  assert.equal(goalText({ atLeast: 8 }), '≥ 8')
  assert.equal(goalText({ atMost: 2 / 3, of: 'nats' }), '≤ 0.667 × nats')
  assert.equal(goalText({ atLeast: 250_000 }), '≥ 250 k')
  assert.equal(goalText({ atMost: 0.1, of: ['busrtd', 'elbusd'] }), '≤ 0.1 × the best of busrtd, elbusd')
  assert.equal(goalText({ atLeast: 1, of: ['hub'] }), '≥ 1 × hub')
  assert.equal(goalText({ atLeast: 3, of: 'best' }), '≥ 3 × the best peer')
})

test('ratios are between medians, and the best peer is the one hardest to beat', () => {
  const references = () => ({ a: 'a', b: 'b', relay: 'relay', gone: 'gone' })
  const samples = { ours: rounds(9, 4, 1), a: rounds(2), b: rounds(8), relay: rounds(16) }
  const [more] = rowsOf('wire', { figure: { title: 'x, M/s' }, references, samples })
  assert.deepEqual(more.ratios, { a: 2, b: 0.5, relay: 0.25 })
  assert.deepEqual(more.best, { name: 'b', ratio: 0.5 })
  const [less] = rowsOf('wire', { figure: { title: 'x, s' }, references, samples })
  assert.deepEqual(less.best, { name: 'a', ratio: 2 })
})

test('a reference that measured nothing gives no ratio instead of an infinite one', () => {
  const [row] = rowsOf('wire', {
    figure: { title: 'x, M/s' },
    references: () => ({ a: 'a' }),
    samples: { ours: rounds(1), a: rounds(0) },
  })
  assert.deepEqual(row.ratios, {})
})

test('who is ours', () => {
  const samples = { elbusd: rounds(1), 'ours tcp': rounds(1), 'embedded tcp': rounds(1), nats: rounds(1) }
  const ours = (part, more) =>
    rowsOf(part, { figure: { title: 'x' }, samples, ...more })
      .filter((row) => row.ours)
      .map(({ contestant }) => contestant)
  assert.deepEqual(ours('wire'), ['ours tcp'])
  assert.deepEqual(ours('node'), ['elbusd', 'ours tcp', 'embedded tcp'])
  assert.deepEqual(ours('node', { ours: ['nats'] }), ['nats'])
  assert.deepEqual(ours('wire', { samples: { 'busrtd unix': rounds(1) } }), [])
  assert.deepEqual(ours('node', { samples: { 'in process': rounds(1), EventEmitter: rounds(1) } }), [
    'in process',
  ])
})

const states = (row) => row.goals.map(({ state }) => state)

test('goals in figures', () => {
  const state = (goal, value, title = 'x, M/s', conditions = quiet) => {
    const [row] = rowsOf('wire', { figure: { title, goal }, samples: { ours: rounds(value) } }, conditions)
    return states(row).join(' ')
  }
  for (const [goal, value, wanted] of [
    [{ atLeast: 8 }, 8, 'met'],
    [{ atLeast: 8 }, 7.99, 'missed'],
    [{ atMost: 8 }, 8, 'met'],
    [{ atMost: 8 }, 8.01, 'missed'],
    [[{ atLeast: 1 }, { atLeast: 9 }], 8, 'met missed'],
    [{ atLeast: 1, for: ['embedded'] }, 8, ''],
    [{ atLeast: 1, for: ['ours'] }, 8, 'met'],
    [undefined, 8, ''],
  ]) {
    assert.equal(state(goal, value), wanted, JSON.stringify(goal))
  }
  // Rates and times are not judged on a busy machine; memory, its rate excepted, and ratios are.
  for (const [title, wanted] of [
    ['deliveries, M/s', 'not judged'],
    ['p50, µs', 'not judged'],
    ['throughput, MiB/s', 'not judged'],
    ['memory per client, KiB', 'met'],
    ['memory per mask, B', 'met'],
    ['CPU beside no masks, ×', 'not judged'],
  ]) {
    assert.equal(state({ atMost: 8 }, 1, title, busy), wanted, title)
  }
  for (const [values, wanted] of [
    [[1, 2, 3], 'met'],
    [[1, 2, 9], 'not judged'],
  ]) {
    const figure = { title: 'slower by, %', goal: { atMost: 8, isRatio: true } }
    const [row] = rowsOf('wire', { figure, samples: { ours: rounds(...values) } }, busy)
    assert.deepEqual(states(row), [wanted])
  }
})

test('what is not judged says why', () => {
  const figure = { title: 'x, M/s', goal: { atLeast: 8 } }
  const [row] = rowsOf('wire', { figure, samples: { ours: rounds(9) } }, busy)
  assert.deepEqual(row.goals, [
    { goal: { atLeast: 8 }, value: 9, state: 'not judged', reason: 'load 9.1 on 2 cores' },
  ])
})

test('goals in ratios are judged on any machine, where the peer was measured', () => {
  const references = (name) => (name === 'ours unix' ? { hub: 'hub' } : { hub: 'hub', nats: 'nats' })
  const samples = { ours: rounds(4, 4, 4), 'ours unix': rounds(4, 4, 4), hub: rounds(2, 2, 2) }
  const ended = (goal, more) => {
    const rows = rowsOf('node', { figure: { title: 'x, M/s', goal }, references, samples }, busy, more)
    return rows.map((row) => row.goals.map(({ state, reason }) => reason ?? state).join())
  }
  assert.deepEqual(ended({ atLeast: 2, of: 'hub' }), ['met', 'met', ''])
  assert.deepEqual(ended({ atLeast: 2.1, of: 'best' }), ['without nats', 'missed', ''])
  // The goal beside nats is none of what has no nats beside it.
  assert.deepEqual(ended({ atLeast: 1, of: 'nats' }), ['nats: no samples', '', ''])
  assert.deepEqual(ended({ atLeast: 1, of: 'nats' }, { missing: { nats: 'apt-get install' } }), [
    'nats: apt-get install',
    '',
    '',
  ])
  const left = { settings: { peers: ['hub'] } }
  assert.deepEqual(ended({ atLeast: 1, of: 'nats' }, left), ['nats: left out by --peers', '', ''])
  const failed = { failure: new Error('round 1: X load, hub: a\nround 1: X load, nats: b') }
  assert.deepEqual(ended({ atLeast: 1, of: 'nats' }, failed)[0], 'nats: failed: round 1: X load, nats: b')
  // Of several that are meant, the hardest one that is there; who is not there is named.
  assert.deepEqual(ended({ atLeast: 2, of: ['nats', 'hub'] }), ['without nats', 'met', ''])
})

test('a busy machine has a verdict on a ratio only where all rounds agree', () => {
  for (const [conditions, ours, wanted] of [
    [quiet, [4, 2, 6], 'met'],
    [busy, [4, 3, 6], 'met'],
    [busy, [4, 2, 6], 'rounds from 1.00 to 3.00, load 9.1 on 2 cores'],
    [busy, [1, 2, 2], 'missed'],
    [busy, [4, 4, undefined, 6], 'met'],
    [busy, [4, undefined, 6], '2 rounds, load 9.1 on 2 cores'],
  ]) {
    const [row] = rowsOf(
      'wire',
      {
        figure: { title: 'x, M/s', goal: { atLeast: 1.5, of: 'hub' } },
        references: () => ({ hub: 'hub' }),
        samples: { ours: rounds(...ours), hub: rounds(2, 2, 2, 2) },
      },
      conditions,
    )
    const [{ state, reason }] = row.goals
    assert.equal(reason ?? state, wanted)
  }
})

test('a load that failed is missed beside one that did not', () => {
  const figure = { title: 'p50, µs', goal: { atMost: 2 } }
  const loads = [
    load({ title: 'N2 a', figure, samples: { 'in process': rounds(1) } }),
    load({ title: 'N2 b', figure, samples: { 'in process': undefined } }),
  ]
  const failure = new Error('round 1: N2 b, in process: ended')
  const lines = summarise(runOf([result('node', loads, { failure })]))
  assert.deepEqual(
    lines
      .filter(({ number }) => number === 'N2')
      .map(({ row, state, reason }) => [row.load, reason ?? state]),
    [
      ['N2 a', 'met'],
      ['N2 b', 'failed: round 1: N2 b, in process: ended'],
    ],
  )
  const missing = { hub: 'no hub', 'ours-poll': 'this elbusd has no option --poll' }
  const option = summarise(
    runOf([result('wire', [{ ...loads[1], load: { ...loads[1].load, id: 'S5' } }], { missing })]),
  )
  assert.equal(option.find(({ number }) => number === 'S5').reason, 'this elbusd has no option --poll')
})

test('a part that did not begin says so in each of its rows, one that did says what it was not asked for', () => {
  const failure = new Error('cannot run cargo\nmore')
  const reasonOf = (found) => summarise(runOf([found])).find(({ number }) => number === 'S2').reason
  assert.equal(reasonOf(result('wire', [], { failure })), 'cannot run cargo')
  const one = load({ title: 'S1 x', figure: { title: 'CPU, s' }, samples: { ours: rounds(1) } })
  assert.equal(reasonOf(result('wire', [one], { failure })), 'not part of this run')
})

test('the summary has every row of the goals, with a figure or a reason', () => {
  const lines = summarise(runOf(results()))
  const shown = lines.map(({ number, row, goal, value, state, reason }) =>
    [number, row?.contestant, goal && goalText(goal), value, state, reason].filter(
      (part) => part !== undefined,
    ),
  )
  assert.deepEqual(
    [...new Set(lines.map(({ number }) => number))],
    [
      ...Array.from({ length: 10 }, (_, at) => `S${at + 1}`),
      ...Array.from({ length: 7 }, (_, at) => `N${at + 1}`),
    ],
  )
  const of = (number) => shown.filter(([first]) => first === number).map((line) => line.slice(1))
  assert.deepEqual(of('S1'), [['ours', '≤ 0.1 × the best of busrtd, elbusd', 0.1, 'met']])
  assert.deepEqual(of('S2'), [['ours', '≥ 12', 14, 'met']])
  assert.deepEqual(of('S3'), [['ours', '≤ 1.5 × relay', 4, 'missed']])
  assert.deepEqual(of('S4'), [['not measured', 'not part of this run']])
  assert.deepEqual(of('S9'), [['ours', '≤ 6', 5, 'met']])
  // Without a goal each point is shown.
  assert.deepEqual(of('S10'), [
    ['ours', 'no goal'],
    ['ours', 'no goal'],
    ['ours', 'no goal'],
  ])
  assert.deepEqual(of('N4'), [
    ['embedded tcp', '≥ 3 × the best peer', 2.25, 'missed'],
    ['embedded tcp', '≥ 1.5 × hub', 2.25, 'met'],
    [
      'embedded unix',
      '≥ 3 × the best peer',
      'not measured',
      'hub: no samples, as the run failed: N5 call, 1 in flight, embedded tcp: the callee ended',
    ],
    [
      'embedded unix',
      '≥ 1.5 × hub',
      'not measured',
      'hub: no samples, as the run failed: N5 call, 1 in flight, embedded tcp: the callee ended',
    ],
  ])
  assert.deepEqual(of('N5'), [
    ['not measured', 'failed: N5 call, 1 in flight, embedded tcp: the callee ended'],
  ])
})

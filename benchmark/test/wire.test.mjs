// What the wire part makes of the load generator's report, and that its loads fit together.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { samplesOf } from '../wire.mjs'
import { measurements, workloads } from '../workloads/wire.mjs'

const cases = Object.values(workloads).flat()

const outcome = (figures, problems = []) => ({
  figures: Object.entries(figures).map(([name, value]) => ({ name, value })),
  problems,
})

test('every row of the goals has a load', () => {
  const rows = new Set(cases.map(({ id }) => id))
  for (let number = 1; number <= 10; number += 1) assert.ok(rows.has(`S${number}`), `S${number}`)
})

test('every load has a title of its own, and shows whom its measurement measures', () => {
  assert.equal(new Set(cases.map(({ load }) => load)).size, cases.length)
  for (const { load, id, from, contestants } of cases) {
    assert.ok(load.startsWith(`${id} `), load)
    assert.ok(contestants.length > 0, load)
    for (const name of [from].flat()) {
      for (const contestant of contestants)
        assert.ok(measurements[name].contestants.includes(contestant), `${load}: ${contestant}`)
    }
  }
})

test('every measurement is shown', () => {
  const shown = new Set(cases.flatMap(({ from }) => from))
  assert.deepEqual([...shown].sort(), Object.keys(measurements).sort())
})

test('what a goal is set against takes part', () => {
  for (const { load, contestants, references, figures } of cases) {
    for (const { goal } of Object.values(figures)) {
      for (const name of [goal?.of ?? []].flat()) {
        const related = contestants.some((contestant) => references(contestant)[name] !== undefined)
        // Without messages by name nats has no part in some loads over TCP.
        assert.ok(related || (name === 'nats' && load.includes('message')), `${load}: ${name}`)
      }
    }
  }
})

test('figures are scaled, and a round that lost frames keeps its place and is named', () => {
  const one = {
    load: 'S2 x',
    from: 'publish',
    contestants: ['ours unix', 'busrtd unix'],
    figures: {
      rate: { source: 'deliveries', scale: 1e-6 },
      perCpu: { source: 'broker CPU', of: (value) => 1 / value },
    },
  }
  const rounds = [outcome({ deliveries: 2e6, 'broker CPU': 0.5 }), outcome({ deliveries: 9 }, ['1 lost'])]
  const report = { loads: [{ title: 'publish', brokers: [{ label: 'ours unix', outcomes: rounds }] }] }
  const { samples, problems } = samplesOf([one], report)
  assert.deepEqual([...samples.get('S2 x')], [['ours unix', [{ rate: 2, perCpu: 2 }, {}]]])
  assert.deepEqual(problems, ['S2 x, ours unix: round 2: 1 lost'])
})

test('growth compares the points of a round', () => {
  const [flat] = cases.filter(({ from }) => Array.isArray(from))
  const [contestant] = flat.contestants
  const costs = { [flat.from[0]]: [2, 1], [flat.from[1]]: [3, 1], [flat.from[2]]: [1, 4] }
  const loads = flat.from.map((title) => ({
    title,
    brokers: [
      {
        label: contestant,
        outcomes: (costs[title] ?? [1, 1]).map((cost) => outcome({ 'broker CPU': cost })),
      },
    ],
  }))
  const { samples } = samplesOf([flat], { loads })
  assert.deepEqual(samples.get(flat.load).get(contestant), [{ growth: 1.5 }, { growth: 4 }])
})

import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { test } from 'node:test'
import { summarise } from '../conclusions.mjs'
import { evaluate } from '../evaluation.mjs'
import { asText, load as read, record, save } from '../record.mjs'
import {
  document,
  groups,
  markdownTable,
  preamble,
  shareTable,
  summaryTable,
  table,
  tally,
} from '../report.mjs'
import { busy, load, quiet, result, results } from './fixture.mjs'

const runOf = (conditions = quiet) =>
  record({ date: '2026-01-01', command: 'npm run benchmark', conditions, results: results() })

/** Cells of a table, without the widths. */
const cells = (text) =>
  text.split('\n').map((line) =>
    line
      .slice(2, -2)
      .split(' | ')
      .map((cell) => cell.trim()),
  )

const tableOf = (name, run = runOf()) =>
  cells(table(groups(evaluate(run)).find((group) => group.name === name).rows))

test('a table is as wide as its widest cells, and a bar in one does not end it', () => {
  assert.equal(
    markdownTable(['a', 'b'], [['→ long', 'x|y']]),
    '| a      | b    |\n| ------ | ---- |\n| → long | x\\|y |',
  )
})

test('a column for each reference there is, and for the best where there is a choice', () => {
  assert.deepEqual(tableOf('S1')[0], [
    'load',
    'figure',
    'with',
    'min',
    'median',
    'max',
    '÷ busrtd',
    '÷ elbusd',
    '÷ best peer',
    'goal',
  ])
  assert.deepEqual(tableOf('S1')[2].slice(2), [
    'ours',
    '0.0400',
    '0.0500',
    '0.0600',
    '0.0625',
    '0.100',
    '0.100 (elbusd)',
    '≤ 0.1 × the best of busrtd, elbusd: met (0.100 × elbusd)',
  ])
  // The load and the figure stand in their first line alone.
  assert.deepEqual(tableOf('S1')[3].slice(0, 4), ['', '', 'busrtd', '0.700'])
  assert.deepEqual(tableOf('S9')[0], ['load', 'figure', 'with', 'min', 'median', 'max', 'goal'])
  assert.deepEqual(tableOf('S10')[0], ['load', 'figure', 'with', 'min', 'median', 'max', '÷ nats'])
})

test('a busy machine has ratios and no verdicts on rates', () => {
  const line = tableOf('S2', runOf(busy))[2]
  assert.deepEqual(line.slice(6), ['7.00', '4.67', '4.67 (elbusd)', '≥ 12: not judged: load 9.1 on 2 cores'])
})

test('the summary puts figures beside goals', () => {
  const run = runOf()
  const lines = summarise(run)
  const found = cells(summaryTable(lines))
  assert.deepEqual(found[2], [
    'S1',
    'broker CPU per million deliveries',
    'publish, 1→8',
    'broker CPU, s per million',
    'ours',
    '0.0500',
    '≤ 0.1 × the best of busrtd, elbusd',
    '0.100 × elbusd',
    'met',
  ])
  assert.deepEqual(found[3].slice(4), ['ours', '14.0', '≥ 12', '4.67 × elbusd', 'met'])
  assert.deepEqual(found[5], [
    'S4',
    '64 KiB payloads',
    '',
    '',
    '',
    '',
    '',
    '',
    'not measured: not part of this run',
  ])
  assert.equal(tally(lines), '4 met, 2 missed, 0 not judged, 13 not measured')
})

test('shares of a sum stand apart', () => {
  const row = { load: 'N4', contestant: 'hub', median: 1, min: 1, max: 1, ratios: {}, goals: [] }
  const rows = [
    { ...row, figure: 'CPU of all, s' },
    { ...row, figure: 'of that the publisher', median: 0.25 },
    { ...row, figure: 'of that the broker', median: 0.75 },
    { ...row, figure: 'of that the broker', median: 0.5, contestant: 'nats' },
  ]
  assert.equal(cells(table(rows)).length, 3)
  assert.deepEqual(cells(shareTable(rows)), [
    ['load', 'with', 'of that the publisher', 'of that the broker'],
    ['----', '----', '---------------------', '------------------'],
    ['N4', 'hub', '0.250', '0.750'],
    ['', 'nats', '', '0.500'],
  ])
  assert.equal(shareTable(rows.slice(0, 1)), undefined)
})

test('who was not measured, and how to install it', () => {
  const text = preamble(runOf(busy))
  assert.match(text, /not measured: nats: nats-server is missing: apt-get install nats-server/)
  assert.match(
    text,
    /goals in rates and times are not judged, ratios only where all rounds agree: load 9\.1 on 2 cores/,
  )
  assert.match(text, /load averages at the beginning of each round: 0\.10 1\.25/)
  assert.match(text, /FAILED: N5 call, 1 in flight, embedded tcp: the callee ended/)
})

test('how a figure was made of measurements is not kept', () => {
  const one = load({
    title: 'S1 x',
    figure: { title: 'CPU, s', source: 'broker CPU', over: Math.max },
    samples: {},
  })
  const run = record({ date: '', command: '', conditions: quiet, results: [result('wire', [one])] })
  assert.deepEqual(run.parts[0].cases[0].figures, {
    value: { title: 'CPU, s', goal: undefined, better: undefined },
  })
})

test('a run is the same after it was saved', (t) => {
  const folder = mkdtempSync(path.join(tmpdir(), 'benchmark-'))
  t.after(() => rmSync(folder, { recursive: true }))
  const file = path.join(folder, 'deep', 'run.json')
  const run = runOf()
  save(file, run)
  const again = read(file)
  assert.equal(asText(again), readFileSync(file, 'utf8'))
  const draw = (from) => document(from, evaluate(from), summarise(from), [], 'run.json')
  assert.equal(draw(again), draw(run))
  for (const text of ['{}', '{ "rows": [] }', 'null', 'no JSON']) {
    writeFileSync(file, text)
    assert.throws(() => read(file), /run\.json (holds no run|was written by another version)/)
  }
})

test('all in one file, charts under their tables', () => {
  const run = runOf()
  const chart = { part: 'wire', group: 'S1', title: 'S1 publish', file: 'run/s1.svg' }
  const text = document(run, evaluate(run), summarise(run), [chart], 'run.json')
  const order = [
    '# Benchmark',
    '# Summary',
    '# Over the wire',
    '## S1',
    '![S1 publish](run/s1.svg)',
    '## S2',
    '# From Node',
  ]
  let at = -1
  for (const wanted of order) {
    const found = text.indexOf(`${wanted}\n`, at + 1)
    assert.ok(found > at, wanted)
    at = found
  }
})

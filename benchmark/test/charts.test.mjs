import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  barChart,
  bytesText,
  fitted,
  lineChart,
  scaleOf,
  spacing,
  spansDecades,
  textWidth,
  tickText,
  wrapped,
} from '../charts.mjs'
import { evaluate } from '../evaluation.mjs'
import { charts, shortTitles, slug } from '../plots.mjs'
import { record } from '../record.mjs'
import { quiet, results } from './fixture.mjs'

/** Where each text of a drawing is. */
function boxes(svg) {
  const pattern =
    /<text class="\w+" x="([\d.-]+)" y="([\d.-]+)" font-size="(\d+)" text-anchor="(\w+)"( font-weight="600")?>([^<]*)</g
  return [...svg.matchAll(pattern)].map(([, x, y, size, anchor, weight, escaped]) => {
    const text = escaped
      .replaceAll('&lt;', '<')
      .replaceAll('&gt;', '>')
      .replaceAll('&quot;', '"')
      .replaceAll('&amp;', '&')
    const width = textWidth(text, Number(size), weight !== undefined)
    const left = Number(x) - (anchor === 'end' ? width : anchor === 'middle' ? width / 2 : 0)
    return { text, left, right: left + width, top: Number(y) - Number(size) * 0.8, bottom: Number(y) + 1 }
  })
}

/** No text leaves the drawing or touches another. */
function assertReadable(svg) {
  const [, width, height] = svg.match(/viewBox="0 0 (\d+) ([\d.]+)"/)
  const all = boxes(svg)
  assert.equal(all.length, svg.split('<text').length - 1)
  all.forEach((box, index) => {
    assert.ok(box.left >= 0 && box.right <= Number(width), `outside: ${box.text}`)
    assert.ok(box.top >= 0 && box.bottom <= Number(height), `outside: ${box.text}`)
    for (const other of all.slice(index + 1)) {
      const apart =
        box.right <= other.left ||
        other.right <= box.left ||
        box.bottom <= other.top ||
        other.bottom <= box.top
      assert.ok(apart, `${box.text} touches ${other.text}`)
    }
  })
  assert.doesNotMatch(svg, /NaN|Infinity|undefined/)
}

test('axes begin at nothing and end past the greatest value, in round steps', () => {
  for (const [values, isLog, ticks] of [
    [[4.6], false, [0, 1, 2, 3, 4, 5]],
    [[0.36], false, [0, 0.1, 0.2, 0.3, 0.4]],
    [[5], false, [0, 1, 2, 3, 4, 5]],
    [[0], false, [0, 0.2, 0.4, 0.6, 0.8, 1]],
    [[3, 2_000], true, [1, 10, 100, 1_000, 10_000]],
    [[2, 5], true, [1, 2, 5, 10]],
    [[1, 1], true, [1, 2, 5, 10]],
  ]) {
    const scale = scaleOf(values, isLog)
    assert.deepEqual(
      scale.ticks.map((tick) => Number(tick.toPrecision(6))),
      ticks,
      `${values}`,
    )
    assert.equal(scale.at(ticks.at(-1)), 1)
    assert.equal(scale.at(ticks[0]), 0)
  }
})

test('a logarithmic axis only where values span decades, and none is nothing', () => {
  assert.equal(spansDecades([1, 40]), false)
  assert.equal(spansDecades([1, 60]), true)
  assert.equal(spansDecades([0, 60]), false)
})

test('numbers on axes', () => {
  assert.deepEqual([0, 0.1 + 0.2, 1_000, 20_000, 3e6, 2e9].map(tickText), [
    '0',
    '0.3',
    '1000',
    '20 k',
    '3 M',
    '2 G',
  ])
  assert.deepEqual([0, 16, 100, 1_024, 65_536, 1 << 20].map(bytesText), [
    '0 B',
    '16 B',
    '100 B',
    '1 KiB',
    '64 KiB',
    '1 MiB',
  ])
})

test('texts that are too long end in an ellipsis or go on in the next line', () => {
  assert.equal(fitted('short', 100, 12), 'short')
  const cut = fitted('a very long name of a contestant', 100, 12)
  assert.match(cut, /^a very.*…$/)
  assert.ok(textWidth(cut, 12) <= 100)
  assert.deepEqual(wrapped('one two three', textWidth('one two', 12), 12), ['one two', 'three'])
})

const spread = (median) => ({ min: median * 0.9, median, max: median * 1.2, text: `${median} (a – b)` })

test('bars have whiskers, units, a direction and their goals', () => {
  const bars = [
    { label: 'ours', tone: 'ours', ...spread(4), goal: { value: 3, text: '≥ 3' } },
    {
      label: 'a peer <with> & "signs" that goes on and on and on beyond any room',
      tone: 'peer',
      ...spread(1),
    },
  ]
  const svg = barChart({
    title: 'T & T',
    notes: ['Note.'],
    panels: [{ title: 'deliveries, M/s', better: 'more', bars }],
  })
  assertReadable(svg)
  assert.match(svg, /<title>T &amp; T<\/title>/)
  assert.match(svg, />deliveries, M\/s \(more is better\)</)
  assert.match(svg, />goal ≥ 3</)
  assert.equal(svg.match(/class="goal"/g).length, 2)
  assert.equal(svg.match(/class="whisker"/g).length, 6)
  assert.equal(svg.match(/<rect class="ours"/g).length, 1)
  assert.match(svg, /prefers-color-scheme:dark/)
  assert.doesNotMatch(
    barChart({ title: 'T', panels: [{ title: 'x', better: 'less', bars }], theme: 'dark' }),
    /@media/,
  )
})

test('values over decades are marks on a logarithmic axis, not bars', () => {
  const bars = [0.02, 1, 300].map((value) => ({ label: `${value}`, tone: 'peer', ...spread(value) }))
  const svg = barChart({ title: 'T', panels: [{ title: 'CPU, s', better: 'less', bars }] })
  assertReadable(svg)
  assert.match(svg, />CPU, s \(less is better, logarithmic\)</)
  assert.doesNotMatch(svg, /<rect class="peer"/)
  assert.equal(svg.match(/<circle class="peer"/g).length, 3)
})

test('nothing measured but zero is a chart all the same', () => {
  const zero = { label: 'x', tone: 'ours', min: 0, median: 0, max: 0, text: '0' }
  assertReadable(barChart({ title: 'T', panels: [{ title: 'x', better: 'less', bars: [zero] }] }))
})

test('lines have a legend, marks of their own, and an axis for what grows', () => {
  const xs = [16, 64, 100, 256, 1_024, 4_096, 16_384, 65_536, 1 << 20]
  const labels = [
    'ours',
    'busrtd',
    'elbusd',
    'nats',
    'redis',
    'mosquitto',
    'a name that takes rather more room',
    'zeromq',
  ]
  const series = labels.map((label, at) => ({
    label,
    tone: at === 0 ? 'ours' : 'peer',
    points: xs.map((x) => ({ x, ...spread(x * (at + 1)) })),
  }))
  const x = { title: 'payload', isBytes: true }
  const svg = lineChart({ title: 'Growth', x, y: { title: 'CPU, s per million', better: 'less' }, series })
  assertReadable(svg)
  for (const text of [...labels, '16 B', '64 KiB', '1 MiB', 'payload (logarithmic)'])
    assert.ok(svg.includes(`>${text}<`), text)
  assert.match(svg, />CPU, s per million \(less is better, logarithmic\)</)
  // 64 and 100 bytes are too near to each other for both texts.
  assert.ok(!(svg.includes('>64 B<') && svg.includes('>100 B<')))
  assert.equal(svg.match(/<path class="line lours"/g).length, 1)
  assert.equal(new Set(svg.match(/<path class="line \w+"/g)).size, labels.length)
})

test('shares of a sum are parts of a whole in the chart of their load', () => {
  const row = {
    part: 'node',
    load: 'N4 x',
    better: 'less',
    ours: false,
    goals: [],
    min: 1,
    median: 1,
    max: 1,
  }
  const of = (contestant, figure, median) => ({ ...row, contestant, figure, median })
  const rows = ['hub', 'nats'].flatMap((name) => [
    of(name, 'CPU of all, s', 4),
    of(name, 'of that the publisher', 1),
    of(name, 'of that the broker or hub', name === 'hub' ? 3 : 0),
  ])
  const svg = charts(rows)[0].draw()
  assertReadable(svg)
  const texts = boxes(svg).map(({ text }) => text)
  for (const text of [
    'who has what share of CPU of all, %',
    'publisher',
    'broker or hub',
    '25 + 75',
    '100 + 0',
  ]) {
    assert.ok(texts.includes(text), text)
  }
  // One for each name in the legend, and one for each share there is.
  assert.equal(svg.match(/<rect class="f0"/g).length, 3)
  assert.equal(svg.match(/<rect class="f1"/g).length, 2)
  assert.doesNotMatch(charts(rows.filter(({ figure }) => !figure.includes('hub')))[0].draw(), /who has/)
})

test('what grows from nothing has its place before the first of many', () => {
  const places = (xs) => xs.map((x) => Number(spacing(xs).at(x).toFixed(3)))
  assert.deepEqual(places([1, 10, 1_000]), [0, 0.333, 1])
  assert.deepEqual(places([0, 10, 100, 1_000]), [0, 0.333, 0.667, 1])
  assert.deepEqual(places([0, 5, 10]), [0, 0.5, 1])
  assert.deepEqual(places([7]), [0.5])
  assert.deepEqual([spacing([0, 10]).isLog, spacing([0, 10, 1_000]).isLog], [false, true])
})

test('short names for loads that begin alike', () => {
  const titles = [
    'N1 one-way, bursts of 1',
    'N1 one-way, bursts of 16',
    'N1 one-way, bursts of 16, for await',
  ]
  assert.deepEqual(
    [...shortTitles(titles).values()],
    ['bursts of 1', 'bursts of 16', 'bursts of 16, for await'],
  )
  assert.deepEqual([...shortTitles(['N6 fresh process']).values()], ['fresh process'])
})

test('names of files', () => {
  assert.equal(slug('N4 publication, 1→8 (÷ hub)'), 'n4-publication-1-to-8-by-hub')
})

test('the charts of a run: one for each load with peers, one for each curve', () => {
  const run = record({ date: '', command: '', conditions: quiet, results: results() })
  const found = charts(evaluate(run))
  assert.deepEqual(
    found.map(({ part, group, name }) => [part, group, name]),
    [
      ['wire', 'S10', 's10-growth-with-receivers-broker-cpu'],
      ['wire', 'S1', 's1-publish-1-to-8'],
      ['wire', 'S2', 's2-publish-1-to-8'],
      ['wire', 'S3', 's3-message-1-to-1'],
      ['wire', 'S9', 's9-idle-clients'],
      ['node', 'N4', 'n4-publication-1-to-1'],
    ],
  )
  for (const { draw } of found) for (const theme of [undefined, 'light', 'dark']) assertReadable(draw(theme))
  const s3 = found.find(({ group }) => group === 'S3').draw()
  for (const tone of ['ours', 'peer', 'floor'])
    assert.equal(s3.match(new RegExp(`<rect class="${tone}"`, 'g')).length, 1)
})

test('what is no row of the goals has its own title', () => {
  const row = {
    part: 'node',
    better: 'less',
    ours: true,
    goals: [],
    min: 1,
    median: 2,
    max: 3,
    contestant: 'x',
  }
  const rows = [
    { ...row, id: 'idle', load: 'idle clients', figure: 'CPU, s' },
    { ...row, id: 'N8', load: 'more', figure: 'CPU, s' },
  ]
  assert.deepEqual(
    charts(rows).map(({ title, group }) => [title, group]),
    [
      ['idle clients', 'idle'],
      ['N8 more', 'N8'],
    ],
  )
})

test('what stands for itself is drawn together, shares of a sum and single points are not drawn', () => {
  const row = {
    part: 'node',
    better: 'less',
    ours: true,
    goals: [],
    min: 1,
    median: 2,
    max: 3,
    contestant: 'in process',
  }
  const found = charts(
    [
      { ...row, load: 'N1 bursts of 1', figure: 'CPU, s' },
      { ...row, load: 'N1 bursts of 16', figure: 'CPU, s' },
      { ...row, load: 'N1 bursts of 16', figure: 'of that the caller' },
      { ...row, load: 'N1 grown', figure: 'CPU, s', growth: { of: 'receivers', at: 1 } },
    ],
    { N1: 'one way' },
  )
  assert.deepEqual(
    found.map(({ title }) => title),
    ['N1 one way'],
  )
  const texts = boxes(found[0].draw()).map(({ text }) => text)
  assert.ok(texts.includes('bursts of 1') && texts.includes('bursts of 16'))
  assert.ok(!texts.some((text) => text.startsWith('of that')))
})

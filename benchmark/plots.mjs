// Which charts show a run: growth as lines, one load with several contestants as bars, and loads of ours alone together
// as bars. charts.mjs draws them.
import { barChart, lineChart } from './charts.mjs'
import { goalText, isShare, rowOf, unitOf } from './evaluation.mjs'
import { digits } from './statistics.mjs'

/** A name for a file that says what is in it. */
export function slug(text) {
  return text
    .toLowerCase()
    .replaceAll('→', '-to-')
    .replaceAll('÷', '-by-')
    .replaceAll('×', '-times-')
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-+|-+$/g, '')
}

function groupedBy(rows, keyOf) {
  const found = new Map()
  for (const row of rows) {
    const key = keyOf(row)
    if (!found.has(key)) found.set(key, [])
    found.get(key).push(row)
  }
  return found
}

const toneOf = ({ ours, floor }) => (ours ? 'ours' : floor ? 'floor' : 'peer')

/** A goal in absolute figures is a line across its bar; a ratio has no place on the axis. */
function bar(row, label) {
  const { min, median, max, goals } = row
  const range = min === max ? '' : ` (${digits(min)} – ${digits(max)})`
  const goal = goals.map((outcome) => outcome.goal).find(({ of }) => of === undefined)
  const line = goal && { value: goal.atLeast ?? goal.atMost, text: goalText(goal) }
  return { label, tone: toneOf(row), min, median, max, text: `${digits(median)}${range}`, goal: line }
}

/** What tells these loads apart: their titles without their number and what all of them have before a comma. */
export function shortTitles(titles) {
  const pieces = titles.map((title) => title.replace(/^[SN]\d+ /, '').split(/(?<=,) /))
  let shared = 0
  while (
    pieces.length > 1 &&
    pieces.every((list) => list.length > shared + 1 && list[shared] === pieces[0][shared])
  ) {
    shared += 1
  }
  return new Map(titles.map((title, at) => [title, pieces[at].slice(shared).join(' ')]))
}

/** A panel for each figure, and one for the shares of the figure they follow. */
function panels(rows, labelOf) {
  const isWhole = ({ figure }) => !isShare(figure)
  const byFigure = groupedBy(rows.filter(isWhole), ({ figure }) => figure)
  const found = [...byFigure].map(([title, list]) => ({
    title,
    better: list[0].better,
    bars: list.map((row) => bar(row, labelOf(row))),
  }))
  const first = rows.findIndex(({ figure }) => isShare(figure))
  if (first > 0) found.push(...sharePanel(rows, unitOf(rows[first - 1].figure).what, labelOf))
  return found
}

/** Who used what of `whole`. Shares that are no sum of anything, such as one alone, are left to the tables. */
function sharePanel(rows, whole, labelOf) {
  const shares = rows.filter(({ figure }) => isShare(figure))
  const titles = [...new Set(shares.map(({ figure }) => figure))]
  const bars = []
  for (const [label, list] of groupedBy(shares, labelOf)) {
    const medians = titles.map((title) => list.find(({ figure }) => figure === title)?.median ?? 0)
    const sum = medians.reduce((total, median) => total + median, 0)
    if (sum === 0) continue
    const parts = medians.map((median) => (median / sum) * 100)
    bars.push({ label, parts, text: parts.map((part) => part.toFixed(0)).join(' + ') })
  }
  if (titles.length < 2 || bars.length === 0) return []
  const names = titles.map((title) => title.replace(/^of that (the )?/, ''))
  return [{ title: `who has what share of ${whole}, %`, names, bars }]
}

const bars = 'Bars and marks are medians, whiskers go from the least to the greatest round.'
const marks = 'Marks are medians, whiskers go from the least to the greatest round.'

/** All charts of the rows: `{ part, group, title, name, draw(theme) }`, `name` the file's without its ending. */
export function charts(rows, titles = {}) {
  const found = []
  const add = (row, title, draw) => {
    const group = rowOf(row) ?? row.load
    let name = slug(title)
    // Two titles may differ by signs alone.
    while (found.some((other) => other.name === name)) name += '-2'
    found.push({ part: row.part, group, title, name, draw })
  }

  const growing = rows.filter(({ growth, figure }) => growth !== undefined && !isShare(figure))
  const curves = groupedBy(growing, (row) => `${row.part} ${curveOf(row)} ${row.figure}`)
  for (const list of curves.values()) addCurve(add, list)

  const rest = rows.filter(({ growth }) => growth === undefined)
  const contestants = groupedBy(rest, ({ part, load }) => `${part} ${load}`)
  const isAlone = ({ part, load }) =>
    new Set(contestants.get(`${part} ${load}`).map((row) => row.contestant)).size === 1
  const together = groupedBy(rest, (row) =>
    isAlone(row) ? `${row.part} ${rowOf(row)}` : `${row.part} ${row.load}`,
  )
  for (const list of together.values()) {
    const [row] = list
    const number = rowOf(row)
    const isOne = !isAlone(row) || new Set(list.map(({ load }) => load)).size === 1
    const about = titles[number] === undefined ? number : `${number} ${titles[number]}`
    const title = isOne ? withNumber(row) : about
    const short = shortTitles([...new Set(list.map(({ load }) => load))])
    const drawn = panels(list, isOne ? ({ contestant }) => contestant : ({ load }) => short.get(load))
    if (drawn.length > 0) add(row, title, (theme) => barChart({ title, notes: [bars], panels: drawn, theme }))
  }
  return found
}

/** The title of a load, with its row of the goals in front. */
function withNumber(row) {
  const number = rowOf(row)
  const isKnown = !/^[SN]\d+$/.test(number ?? '') || row.load.startsWith(`${number} `)
  return isKnown ? row.load : `${number} ${row.load}`
}

/** What the loads of a curve have in common. */
function curveOf(row) {
  return row.growth.curve ?? `${rowOf(row) ?? ''} growth with ${row.growth.of}`.trim()
}

/** One figure over what grows; a line for each contestant. A single point is no growth. */
function addCurve(add, list) {
  const [row] = list
  const { what } = unitOf(row.figure)
  const title = `${curveOf(row)}: ${what}`
  if (new Set(list.map(({ growth }) => growth.at)).size < 2) return
  const byContestant = groupedBy(list, ({ contestant }) => contestant)
  const series = [...byContestant].map(([label, of]) => ({
    label,
    tone: toneOf(of[0]),
    points: of.map(({ growth, min, median, max }) => ({ x: growth.at, min, median, max })),
  }))
  const x = { title: row.growth.of, isBytes: /payload|bytes|size/.test(row.growth.of) }
  const y = { title: row.figure, better: row.better }
  add(row, title, (theme) => lineChart({ title, notes: [marks], x, y, series, theme }))
}

// Draws charts as SVG text: bars with whiskers, and lines over a growing quantity. Knows nothing of benchmarks; what is
// drawn is chosen in plots.mjs. No text is measured by a font here, as there is none: widths are those of a wide font,
// so that no text runs into another with a narrower one.

const WIDTH = 760
const EDGE = 16
const LABEL_MOST = 300
const BAR = 16
const BAR_STEP = 24
const SIZE = { title: 15, text: 12, tick: 11 }

/** Beyond this many times the least value, the greatest leaves nothing to see of it on a linear axis. */
const LINEAR_SPAN = 50

/** Colours on a card of their own, light, or dark where the reader asks for that. Lines differ in their marks as well. */
const COLOURS = {
  card: ['#ffffff', '#0d1117'],
  edge: ['#d1d9e0', '#3d444d'],
  text: ['#1f2328', '#f0f6fc'],
  mute: ['#59636e', '#9198a1'],
  grid: ['#d1d9e0', '#2f363f'],
  ours: ['#0969da', '#4493f8'],
  peer: ['#818b98', '#7d8590'],
  floor: ['#9a6700', '#d29922'],
  goal: ['#1a7f37', '#3fb950'],
}
/** Of lines that are not ours; ours has the colour it has in bars. */
const LINES = [
  ['#bc4c00', '#f0883e'],
  ['#8250df', '#ab7df8'],
  ['#1a7f37', '#3fb950'],
  ['#bf3989', '#f778ba'],
  ['#6e7781', '#b1bac4'],
  ['#9a6700', '#d29922'],
  ['#1b7c83', '#39c5cf'],
]

function rules(theme) {
  const of = (name) => COLOURS[name][theme]
  const lines = LINES.map((line, at) => `.f${at}{fill:${line[theme]}}.s${at}{stroke:${line[theme]}}`)
  return [
    `.card{fill:${of('card')};stroke:${of('edge')}}.text{fill:${of('text')}}.mute{fill:${of('mute')}}`,
    `.grid{stroke:${of('grid')}}.whisker{stroke:${of('text')}}.goal{stroke:${of('goal')}}.halo{stroke:${of('card')}}.goaltext{fill:${of('goal')}}`,
    ...['ours', 'peer', 'floor'].map((tone) => `.${tone}{fill:${of(tone)}}.l${tone}{stroke:${of(tone)}}`),
    ...lines,
  ].join('')
}

/** `theme`: `light`, `dark`, or as the reader has it. */
function style(theme) {
  const fixed =
    'text{font-family:system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif}.line{fill:none;stroke-width:2}'
  if (theme !== undefined) return `${fixed}${rules(theme === 'dark' ? 1 : 0)}`
  return `${fixed}${rules(0)}@media(prefers-color-scheme:dark){${rules(1)}}`
}

const escaped = (text) =>
  String(text).replace(/[&<>"]/g, (sign) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[sign])

/** Pixels a text takes at most. */
export function textWidth(text, size, isBold = false) {
  let units = 0
  for (const sign of text) {
    if (/[ijlI.,:;|'!()[\]]/.test(sign)) units += 0.41
    else if (/[mwMW@%→—×]/.test(sign)) units += 1
    else if (/[A-Z]/.test(sign)) units += 0.77
    else units += sign === ' ' ? 0.34 : 0.65
  }
  return units * size * (isBold ? 1.1 : 1)
}

/** The text, or as much of it as fits, with an ellipsis. */
export function fitted(text, width, size) {
  if (textWidth(text, size) <= width) return text
  const signs = [...text]
  while (signs.length > 1 && textWidth(`${signs.join('')}…`, size) > width) signs.pop()
  return `${signs.join('').trimEnd()}…`
}

/** Words in lines that fit. */
export function wrapped(text, width, size, isBold) {
  const lines = []
  for (const word of text.split(' ')) {
    const longer = `${lines.at(-1) ?? ''} ${word}`.trim()
    if (lines.length > 0 && textWidth(longer, size, isBold) <= width) lines[lines.length - 1] = longer
    else lines.push(word)
  }
  return lines
}

const THIN = ' stroke-width="1.5"'
const DASHED = ' stroke-width="2" stroke-dasharray="5 3"'

const places = (value) => Number(value.toFixed(1))

/** A drawing that grows downwards. */
class Drawing {
  #parts = []

  text(x, y, text, { size = SIZE.text, anchor = 'start', tone = 'text', bold = false } = {}) {
    const weight = bold ? ' font-weight="600"' : ''
    const at = `x="${places(x)}" y="${places(y)}" font-size="${size}" text-anchor="${anchor}"${weight}`
    this.#parts.push(`<text class="${tone}" ${at}>${escaped(text)}</text>`)
  }

  line(x1, y1, x2, y2, tone, more = '') {
    const ends = `x1="${places(x1)}" y1="${places(y1)}" x2="${places(x2)}" y2="${places(y2)}"`
    this.#parts.push(`<line class="${tone}" ${ends}${more}/>`)
  }

  rect(x, y, width, height, tone) {
    const size = `width="${places(width)}" height="${places(height)}"`
    this.#parts.push(`<rect class="${tone}" x="${places(x)}" y="${places(y)}" ${size} rx="2"/>`)
  }

  path(points, tone) {
    const steps = points.map(([x, y], at) => `${at === 0 ? 'M' : 'L'}${places(x)} ${places(y)}`)
    this.#parts.push(`<path class="line ${tone}" d="${steps.join('')}"/>`)
  }

  /** Circle, square, triangle, diamond, in turns. */
  mark(x, y, at, tone) {
    const shapes = [
      [places(x), places(y)],
      [-4, -4, 4, -4, 4, 4, -4, 4],
      [0, -5, 5, 4, -5, 4],
      [0, -5.5, 5.5, 0, 0, 5.5, -5.5, 0],
    ]
    const shape = shapes[at % shapes.length]
    if (shape.length === 2) {
      this.#parts.push(`<circle class="${tone}" cx="${shape[0]}" cy="${shape[1]}" r="4.2"/>`)
      return
    }
    const corners = shape.map((offset, index) => places(offset + (index % 2 === 0 ? x : y)))
    this.#parts.push(`<polygon class="${tone}" points="${corners.join(' ')}"/>`)
  }

  /** Title and the lines under it; where the next thing may begin. */
  head(title, notes) {
    let y = EDGE + SIZE.title
    const lines = wrapped(title, WIDTH - 2 * EDGE, SIZE.title, true)
    for (const line of lines) {
      this.text(EDGE, y, line, { size: SIZE.title, bold: true })
      y += SIZE.title + 5
    }
    for (const line of notes.flatMap((note) => wrapped(note, WIDTH - 2 * EDGE, SIZE.text))) {
      this.text(EDGE, y, line, { tone: 'mute' })
      y += SIZE.text + 5
    }
    return y
  }

  end(height, title, about, theme) {
    const size = `width="${WIDTH}" height="${places(height)}" viewBox="0 0 ${WIDTH} ${places(height)}"`
    const card = `<rect class="card" x="0.5" y="0.5" width="${WIDTH - 1}" height="${places(height - 1)}" rx="6"/>`
    const named = `<title>${escaped(title)}</title><desc>${escaped(about)}</desc>`
    const open = `<svg xmlns="http://www.w3.org/2000/svg" ${size} role="img">`
    return `${[open, named, `<style>${style(theme)}</style>`, card, ...this.#parts, '</svg>'].join('\n')}\n`
  }
}

/** A number on an axis, without zeros that say nothing. */
export function tickText(value) {
  const [unit, sign] =
    value >= 1e9 ? [1e9, ' G'] : value >= 1e6 ? [1e6, ' M'] : value >= 1e4 ? [1e3, ' k'] : [1, '']
  return `${Number((value / unit).toPrecision(3))}${sign}`
}

/** Bytes as people write them. */
export function bytesText(bytes) {
  if (bytes === 0) return '0 B'
  const units = ['B', 'KiB', 'MiB', 'GiB']
  const at = Math.min(units.length - 1, Math.max(0, Math.floor(Math.log2(bytes) / 10)))
  return `${Number((bytes / 2 ** (10 * at)).toPrecision(3))} ${units[at]}`
}

/** 1, 2 or 5 times a power of ten, at least as great as the value. */
function roundStep(value) {
  const power = 10 ** Math.floor(Math.log10(value))
  return power * ([1, 2, 5, 10].find((step) => step * power >= value * (1 - 1e-9)) ?? 10)
}

/** From a value to its share of the axis, and the values with a tick. Logarithmic where `isLog`. */
export function scaleOf(values, isLog, wanted = 5) {
  // Where nothing was measured but zero there is an axis as well.
  const most = Math.max(...values) || 1
  if (!isLog) {
    const step = roundStep(most / wanted)
    const count = Math.max(1, Math.ceil(most / step - 1e-9))
    const ticks = Array.from({ length: count + 1 }, (_, at) => at * step)
    return { isLog, ticks, at: (value) => value / ticks.at(-1) }
  }
  const low = Math.floor(Math.log10(Math.min(...values)) + 1e-9)
  const high = Math.max(low + 1, Math.ceil(Math.log10(most) - 1e-9))
  const steps = high - low < 2 ? [1, 2, 5] : [1]
  const ticks = []
  for (let power = low; power <= high; power += 1) {
    for (const step of steps) if (power < high || step === 1) ticks.push(step * 10 ** power)
  }
  return { isLog, ticks, at: (value) => (Math.log10(value) - low) / (high - low) }
}

/** True if values spread too far for a linear axis, and a logarithmic one can hold them. */
export function spansDecades(values, most = LINEAR_SPAN) {
  const least = Math.min(...values)
  return least > 0 && Math.max(...values) / least > most
}

/** Which of these texts, at these places, can be written without touching the one before. */
function roomy(places, size) {
  let end = Number.NEGATIVE_INFINITY
  return places.filter(({ x, text }) => {
    const half = textWidth(text, size) / 2
    if (x - half < end + 8) return false
    end = x + half
    return true
  })
}

const direction = { more: 'more is better', less: 'less is better' }

/** The lines of a panel's title; where the next thing may begin. */
function panelTitle(drawing, y, title) {
  let below = y
  for (const line of wrapped(title, WIDTH - 2 * EDGE, SIZE.text, true)) {
    drawing.text(EDGE, below + SIZE.text, line, { bold: true })
    below += SIZE.text + 5
  }
  return below
}

/** Names beside their signs, in as many lines as they need; `sign(x, y, index)` draws one, 18 wide. */
function legend(drawing, y, names, sign) {
  let x = EDGE
  let below = y
  names.forEach((name, index) => {
    const text = fitted(name, WIDTH - 2 * EDGE - 40, SIZE.text)
    const width = 24 + textWidth(text, SIZE.text) + 16
    if (x + width > WIDTH - EDGE && x > EDGE) {
      x = EDGE
      below += SIZE.text + 7
    }
    sign(x, below + 6, index)
    drawing.text(x + 24, below + 10, text)
    x += width
  })
  return below + SIZE.text + 7
}

/** Grid and numbers of an axis under bars. */
function axis(drawing, x, ticks, top, bottom) {
  for (const tick of ticks) drawing.line(x(tick), top, x(tick), bottom, 'grid')
  const texts = ticks.map((tick) => ({ x: x(tick), text: tickText(tick) }))
  for (const { x: at, text } of roomy(texts, SIZE.tick)) {
    drawing.text(at, bottom + SIZE.tick + 4, text, { size: SIZE.tick, anchor: 'middle', tone: 'mute' })
  }
}

/** A name to the left of its bar and its numbers behind the axis, where no whisker, grid or goal ends up under them. */
function aside(drawing, left, middle, { label, text }) {
  drawing.text(left - 10, middle + 4, fitted(label, LABEL_MOST, SIZE.text), { anchor: 'end' })
  drawing.text(WIDTH - EDGE, middle + 4, text, { anchor: 'end' })
}

function whisker(drawing, from, to, y) {
  drawing.line(from, y, to, y, 'whisker', THIN)
  for (const end of [from, to]) drawing.line(end, y - 4, end, y + 4, 'whisker', THIN)
}

/** One panel of bars, from `y` down; where the next may begin. */
function drawBars(drawing, y, { left, right }, { title, better, bars }) {
  const values = bars.flatMap(({ min, median, max }) => [min, median, max])
  const goals = bars.map(({ goal }) => goal).filter((goal) => goal !== undefined)
  values.push(...goals.map(({ value }) => value))
  const isLog = spansDecades(values)
  const scale = scaleOf(values, isLog, Math.max(2, Math.floor((right - left) / 90)))
  const x = (value) => left + (right - left) * scale.at(value)

  let top = panelTitle(drawing, y, `${title} (${direction[better]}${isLog ? ', logarithmic' : ''})`)
  if (goals.length > 0) {
    const text = `goal ${[...new Set(goals.map((goal) => goal.text))].join(' and ')}`
    drawing.line(EDGE, top + 8, EDGE + 18, top + 8, 'goal', DASHED)
    const tone = 'goaltext'
    drawing.text(EDGE + 24, top + SIZE.text, fitted(text, WIDTH - 2 * EDGE - 24, SIZE.text), { tone })
    top += SIZE.text + 5
  }
  top += 5
  const bottom = top + bars.length * BAR_STEP
  axis(drawing, x, scale.ticks, top, bottom)
  bars.forEach((bar, index) => {
    const { tone, min, median, max, goal } = bar
    const above = top + index * BAR_STEP
    const middle = above + BAR_STEP / 2
    aside(drawing, left, middle, bar)
    if (!isLog) drawing.rect(left, middle - BAR / 2, Math.max(1, x(median) - left), BAR, tone)
    if (goal !== undefined) {
      // A rim of the card's colour, or it would not be seen on a bar.
      drawing.line(x(goal.value), above, x(goal.value), above + BAR_STEP, 'halo', ' stroke-width="5"')
      drawing.line(x(goal.value), above, x(goal.value), above + BAR_STEP, 'goal', DASHED)
    }
    whisker(drawing, x(min), x(max), middle)
    if (isLog) drawing.mark(x(median), middle, 0, tone)
  })
  return bottom + SIZE.tick + 20
}

/** Fills of the parts of a whole. */
const PARTS = ['f0', 'f1', 'f6', 'f3', 'f2', 'f4', 'f5']

/** One panel of wholes and what each of the names has of them. */
function drawParts(drawing, y, { left, right }, { title, names, bars }) {
  let top = panelTitle(drawing, y, title) + 4
  const fill = (index) => PARTS[index % PARTS.length]
  top =
    legend(drawing, top, names, (x, middle, index) => drawing.rect(x, middle - 6, 18, 12, fill(index))) + 3
  const bottom = top + bars.length * BAR_STEP
  const x = (percent) => left + ((right - left) * percent) / 100
  axis(drawing, x, [0, 25, 50, 75, 100], top, bottom)
  bars.forEach((bar, index) => {
    const middle = top + (index + 0.5) * BAR_STEP
    aside(drawing, left, middle, bar)
    let before = 0
    bar.parts.forEach((percent, part) => {
      // A gap of one keeps neighbours apart for whoever cannot tell their colours.
      const width = x(before + percent) - x(before) - 1
      if (width > 0) drawing.rect(x(before), middle - BAR / 2, width, BAR, fill(part))
      before += percent
    })
  })
  return bottom + SIZE.tick + 20
}

/**
 * Bars with whiskers from the least to the greatest value, in panels one below the other: `panels` are `{ title, better,
 * bars }`, bars `{ label, tone, min, median, max, text, goal }` with the tones `ours`, `peer` and `floor`, `goal` a
 * line across the bar at `{ value, text }`. Where values span decades a mark on a logarithmic axis stands for each bar,
 * because the length of a bar says nothing there. A panel `{ title, names, bars }` with bars `{ label, parts, text }`
 * shows what each name has of a whole, in percent.
 */
export function barChart({ title, notes = [], panels, theme }) {
  const drawing = new Drawing()
  const bars = panels.flatMap((panel) => panel.bars)
  const labels = Math.min(LABEL_MOST, Math.max(...bars.map(({ label }) => textWidth(label, SIZE.text))))
  const numbers = Math.max(...bars.map(({ text }) => textWidth(text, SIZE.text)))
  const frame = { left: EDGE + labels + 10, right: WIDTH - EDGE - numbers - 10 }
  let y = drawing.head(title, notes) + 6
  for (const panel of panels) y = (panel.names ? drawParts : drawBars)(drawing, y, frame, panel)
  return drawing.end(y, title, notes.join(' '), theme)
}

/** Class of each line's fill and stroke: the first of ours has the colour it has in bars, no two others the same. */
function lineTones(series) {
  const ours = series.findIndex(({ tone }) => tone === 'ours')
  return series.map((_, index) => {
    if (index === ours) return { fill: 'ours', stroke: 'lours' }
    const other = (ours >= 0 && ours < index ? index - 1 : index) % LINES.length
    return { fill: `f${other}`, stroke: `s${other}` }
  })
}

/** Share of the axis from the first to the last of these values. None at all has a place before the first of many. */
export function spacing(xs) {
  const some = xs.filter((x) => x > 0)
  const isLog = spansDecades(some, 15)
  const place = isLog ? (x) => Math.log10(x > 0 ? x : some[0] / 10) : (x) => x
  const [first, last] = [place(xs[0]), place(xs.at(-1))]
  return { isLog, at: (x) => (first === last ? 0.5 : (place(x) - first) / (last - first)) }
}

/** A line with its marks and whiskers. */
function drawLine(drawing, points, index, { fill, stroke }) {
  for (const { x, min, max } of points) {
    drawing.line(x, min, x, max, stroke, THIN)
    for (const end of [min, max]) drawing.line(x - 3, end, x + 3, end, stroke, THIN)
  }
  drawing.path(
    points.map(({ x, median }) => [x, median]),
    stroke,
  )
  for (const { x, median } of points) drawing.mark(x, median, index, fill)
}

/**
 * Lines over a growing quantity, with whiskers: `x` is `{ title, isBytes }`, `y` `{ title, better }`, series are
 * `{ label, tone, points }` with points `{ x, min, median, max }`. Axes are logarithmic where they span decades.
 */
export function lineChart({ title, notes = [], x: across, y: up, series, theme }) {
  const drawing = new Drawing()
  const points = series.flatMap((one) => one.points)
  const xs = [...new Set(points.map((point) => point.x))].sort((a, b) => a - b)
  const values = points.flatMap(({ min, median, max }) => [min, median, max])
  const scale = scaleOf(values, spansDecades(values))
  const space = spacing(xs)
  const about = `${up.title} (${direction[up.better]}${scale.isLog ? ', logarithmic' : ''})`
  const tones = lineTones(series)
  const below = drawing.head(title, [about, ...notes]) + 4
  const names = series.map(({ label }) => label)
  const sign = (x, y, index) => {
    drawing.line(x, y, x + 18, y, tones[index].stroke, ' stroke-width="2"')
    drawing.mark(x + 9, y, index, tones[index].fill)
  }
  const top = legend(drawing, below, names, sign) + 11

  const left = EDGE + Math.max(...scale.ticks.map((tick) => textWidth(tickText(tick), SIZE.tick))) + 8
  const right = WIDTH - EDGE - 24
  const bottom = top + 260
  const toX = (value) => left + 18 + (right - left - 36) * space.at(value)
  const toY = (value) => bottom - (bottom - top) * scale.at(value)
  for (const tick of scale.ticks) {
    drawing.line(left, toY(tick), right, toY(tick), 'grid')
    drawing.text(left - 8, toY(tick) + 4, tickText(tick), { size: SIZE.tick, anchor: 'end', tone: 'mute' })
  }
  const asText = across.isBytes ? bytesText : tickText
  // From the right: the end tells the most, so what is too near to it goes.
  const mirrored = xs.map((value) => ({ x: -toX(value), text: asText(value) })).reverse()
  for (const { x, text } of roomy(mirrored, SIZE.tick)) {
    drawing.line(-x, bottom, -x, bottom + 5, 'grid')
    drawing.text(-x, bottom + 18, text, { size: SIZE.tick, anchor: 'middle', tone: 'mute' })
  }
  const named = `${across.title}${space.isLog ? ' (logarithmic)' : ''}`
  drawing.text((left + right) / 2, bottom + 38, named, { anchor: 'middle' })

  series.forEach((one, index) => {
    const placed = [...one.points]
      .sort((a, b) => a.x - b.x)
      .map(({ x, min, median, max }) => ({ x: toX(x), min: toY(min), median: toY(median), max: toY(max) }))
    drawLine(drawing, placed, index, tones[index])
  })
  return drawing.end(bottom + 54, title, `${up.title} over ${across.title}. ${notes.join(' ')}`, theme)
}

// A run in words: a table per row of the goals, the summary, the machine. The figures come from evaluation.mjs.
import { describe, rule } from './conditions.mjs'
import { goalText, isShare, rowOf } from './evaluation.mjs'
import { parts as partTitles } from './goals.mjs'
import { digits } from './statistics.mjs'

const ratio = (value) => (value === undefined ? '' : digits(value))

/** `2.31: met` would not say what was compared where a goal is a ratio, so that is named. */
function outcomeText({ goal, value, against, state, reason }) {
  if (goal === undefined) return state
  if (state === 'not judged' || state === 'not measured') return `${goalText(goal)}: ${state}: ${reason}`
  const compared = goal.of === undefined ? '' : ` (${digits(value)} × ${against})`
  return `${goalText(goal)}: ${state}${compared}${reason === undefined ? '' : `, ${reason}`}`
}

/** A table in Markdown that can be read as it is. A bar in a cell would end it. */
export function markdownTable(head, lines) {
  const cells = [head, ...lines].map((line) =>
    line.map((text) => text.replaceAll('|', '\\|').replaceAll('\n', ' ')),
  )
  const widths = head.map((_, column) => Math.max(3, ...cells.map((line) => [...line[column]].length)))
  const written = (line) =>
    `| ${line.map((text, at) => text + ' '.repeat(widths[at] - [...text].length)).join(' | ')} |`
  const [first, ...rest] = cells
  return [written(first), written(widths.map((width) => '-'.repeat(width))), ...rest.map(written)].join('\n')
}

/** Who used what of a sum, in medians: a line for each load and contestant, a column for each share. */
export function shareTable(rows) {
  const shares = rows.filter(({ figure }) => isShare(figure))
  const titles = [...new Set(shares.map(({ figure }) => figure))]
  const found = new Map()
  for (const { load, contestant, figure, median } of shares) {
    const key = `${load}\n${contestant}`
    if (!found.has(key)) found.set(key, { load, contestant, medians: {} })
    found.get(key).medians[figure] = median
  }
  let before
  const lines = [...found.values()].map(({ load, contestant, medians }) => {
    const cells = [load === before ? '' : load, contestant, ...titles.map((title) => ratio(medians[title]))]
    before = load
    return cells
  })
  return lines.length === 0 ? undefined : markdownTable(['load', 'with', ...titles], lines)
}

/** The rows of one group, without shares of a sum; a column for each reference one of them has, and for the best where there is a choice. */
export function table(all) {
  const rows = all.filter(({ figure }) => !isShare(figure))
  const references = [...new Set(rows.flatMap(({ ratios }) => Object.keys(ratios)))]
  const hasBest = references.length > 1 && rows.some(({ ours, best }) => ours && best !== undefined)
  const hasGoals = rows.some(({ goals }) => goals.length > 0)
  const head = ['load', 'figure', 'with', 'min', 'median', 'max', ...references.map((name) => `÷ ${name}`)]
  if (hasBest) head.push('÷ best peer')
  if (hasGoals) head.push('goal')
  const lines = rows.map(
    ({ load, figure, contestant, min, median, max, ours, ratios, best, goals }, index) => {
      const before = rows[index - 1]
      const isNew = before?.load !== load
      const line = [
        isNew ? load : '',
        isNew || before.figure !== figure ? figure : '',
        contestant,
        ...[min, median, max].map(digits),
        ...references.map((name) => ratio(ratios[name])),
      ]
      if (hasBest) line.push(ours && best ? `${digits(best.ratio)} (${best.name})` : '')
      if (hasGoals) line.push(goals.map(outcomeText).join('; '))
      return line
    },
  )
  return markdownTable(head, lines)
}

/** Rows by part and row of the goals, in the order they were measured in. */
export function groups(rows) {
  const found = new Map()
  for (const row of rows) {
    const name = rowOf(row) ?? row.load
    const key = `${row.part} ${name}`
    if (!found.has(key)) found.set(key, { part: row.part, name, rows: [] })
    found.get(key).rows.push(row)
  }
  return [...found.values()]
}

/** Every row of the goals, its figure beside its goal and its ratio. */
export function summaryTable(lines) {
  const head = ['row', 'about', 'load', 'figure', 'ours', 'median', 'goal', 'ratio', 'verdict']
  let before = {}
  const written = lines.map((line) => {
    const { number, about, row, goal, state, reason } = line
    const isNew = before.number !== number
    const isSame = !isNew && before.row?.load === row?.load
    const cells = [
      isNew ? number : '',
      isNew ? about : '',
      row === undefined || isSame ? '' : row.load.replace(new RegExp(`^${number} `), ''),
      row === undefined || (isSame && before.row?.figure === row.figure) ? '' : row.figure,
      row?.contestant ?? '',
      row?.median === undefined ? '' : digits(row.median),
      goal === undefined ? '' : goalText(goal),
      ratioText(line),
      reason === undefined ? state : `${state}: ${reason}`,
    ]
    before = line
    return cells
  })
  return markdownTable(head, written)
}

/** What a goal compares, or else where the row stands beside the best peer. */
function ratioText({ row, goal, value, against }) {
  if (goal?.of !== undefined) return value === undefined ? '' : `${digits(value)} × ${against}`
  return row?.best === undefined ? '' : `${digits(row.best.ratio)} × ${row.best.name}`
}

/** One line: how many goals ended how. */
export function tally(lines) {
  const counts = new Map()
  for (const { state } of lines) counts.set(state, (counts.get(state) ?? 0) + 1)
  const states = ['met', 'missed', 'not judged', 'not measured']
  return states.map((state) => `${counts.get(state) ?? 0} ${state}`).join(', ')
}

/** The machine, the versions, the settings and how busy it was. */
export function preamble(run) {
  const lines = [`- measured: ${run.date}, \`${run.command}\``]
  if (run.conditions !== undefined) {
    lines.push(`- machine: ${describe(run.conditions)}`)
    if (run.conditions.reason !== undefined) {
      lines.push(
        `- goals in rates and times are not judged, ratios only where all rounds agree: ${run.conditions.reason}`,
      )
    }
  }
  for (const { part, about, settings, loads, missing, failure } of run.parts) {
    lines.push(`- ${partTitles[part]}: ${pairs({ ...about, ...settings })}`)
    if (loads?.length > 0) {
      lines.push(
        `  - load averages at the beginning of each round: ${loads.map((load) => load.toFixed(2)).join(' ')}`,
      )
    }
    for (const [name, reason] of Object.entries(missing ?? {})) {
      if (reason) lines.push(`  - not measured: ${name}: ${reason}`)
    }
    for (const line of failure?.split('\n') ?? []) lines.push(`  - FAILED: ${line}`)
  }
  return lines.join('\n')
}

/** Nested facts, such as the versions of peers, in a line. */
function pairs(facts) {
  return Object.entries(facts)
    .filter(([, value]) => value !== undefined && value !== null)
    .map(([name, value]) => `${name} ${inWords(value)}`)
    .join(', ')
}

function inWords(value) {
  if (Array.isArray(value)) return value.map(inWords).join(' ')
  if (typeof value === 'object') return `(${pairs(value)})`
  return typeof value === 'number' && !Number.isInteger(value) ? digits(value) : String(value)
}

/**
 * All of a run in Markdown. `charts` are `{ part, group, title, file }`, `file` as a link from where this is kept, and
 * `source` is the file of the run itself.
 */
export function document(run, rows, lines, charts, source) {
  const text = ['# Benchmark', '', `Drawn from [${source}](${source}), not written by hand.`, '']
  text.push(preamble(run), '', rule, '')
  text.push('# Summary', '', `${tally(lines)}.`, '', summaryTable(lines))
  let part
  for (const group of groups(rows)) {
    if (group.part !== part) {
      part = group.part
      text.push('', `# ${partTitles[part]}`)
    }
    text.push('', `## ${group.name}`, '', table(group.rows))
    const shares = shareTable(group.rows)
    if (shares !== undefined) text.push('', 'Medians of the shares:', '', shares)
    for (const { title, file } of charts.filter(
      (chart) => chart.part === part && chart.group === group.name,
    )) {
      text.push('', `![${title}](${file})`)
    }
  }
  return `${text.join('\n')}\n`
}

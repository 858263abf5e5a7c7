// Figures of all rounds as a table, and as JSON.
import { mkdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { summary } from './statistics.mjs'

function digits(value) {
  if (value === undefined || Number.isNaN(value)) return '–'
  if (value >= 100) return value.toFixed(0)
  if (value >= 10) return value.toFixed(1)
  return value >= 1 ? value.toFixed(2) : value.toPrecision(2)
}

/** True or false if the goal is about this contestant, undefined otherwise. */
function isMet(goal, contestant, median, ratios) {
  if (goal === undefined) return undefined
  if (goal.for !== undefined && !goal.for.includes(contestant.split(' ')[0])) return undefined
  const value = goal.of === undefined ? median : ratios[goal.of]
  if (value === undefined) return undefined
  return goal.atLeast === undefined ? value <= goal.atMost : value >= goal.atLeast
}

function goalText({ atLeast, atMost, of }) {
  return `${atLeast === undefined ? '≤' : '≥'} ${digits(atLeast ?? atMost)}${of === undefined ? '' : ` × ${of}`}`
}

/**
 * Least, middle and greatest of each figure, its relation to the references, and whether its goal is met. `samples` is
 * by load and contestant: a list of figures by name.
 */
export function evaluate(cases, samples) {
  const rows = []
  for (const { load, figures, references } of cases) {
    const byContestant = samples.get(load)
    if (byContestant === undefined) continue
    for (const [figure, { title, goal }] of Object.entries(figures)) {
      const medianOf = (contestant) => {
        const values = byContestant.get(contestant)?.map((sample) => sample[figure])
        return values === undefined ? undefined : summary(values).median
      }
      for (const [contestant, list] of byContestant) {
        const values = list.map((sample) => sample[figure])
        const { min, median, max } = summary(values)
        const ratios = {}
        for (const [name, reference] of Object.entries(references?.(contestant) ?? {})) {
          const against = medianOf(reference)
          if (against !== undefined && reference !== contestant) ratios[name] = median / against
        }
        const met = isMet(goal, contestant, median, ratios)
        rows.push({ load, figure: title, contestant, min, median, max, ratios, goal, met, values })
      }
    }
  }
  return rows
}

/** The rows as a Markdown table that can be read as it is. */
export function table(rows) {
  const head = ['load', 'figure', 'with', 'min', 'median', 'max', '÷ hub', '÷ nats', 'goal']
  const lines = rows.map(({ load, figure, contestant, min, median, max, ratios, goal, met }, index) => {
    const before = rows[index - 1]
    const isNew = before?.load !== load
    return [
      isNew ? load : '',
      isNew || before.figure !== figure ? figure : '',
      contestant,
      digits(min),
      digits(median),
      digits(max),
      ratios.hub === undefined ? '' : digits(ratios.hub),
      ratios.nats === undefined ? '' : digits(ratios.nats),
      met === undefined ? '' : `${goalText(goal)}: ${met ? 'met' : 'missed'}`,
    ]
  })
  const widths = head.map((text, column) =>
    Math.max(text.length, ...lines.map((line) => line[column].length)),
  )
  const written = (line) => `| ${line.map((text, column) => text.padEnd(widths[column])).join(' | ')} |`
  return [written(head), written(widths.map((width) => '-'.repeat(width))), ...lines.map(written)].join('\n')
}

/** Writes a run with all its samples to a file. */
export function save(file, run) {
  mkdirSync(path.dirname(file), { recursive: true })
  writeFileSync(file, `${JSON.stringify(run, (_, value) => rounded(value), 2)}\n`)
}

/** Six digits are more than any figure here is worth. */
function rounded(value) {
  return typeof value === 'number' && !Number.isInteger(value) ? Number(value.toPrecision(6)) : value
}

// All files that are drawn from one run: its tables, and a folder of charts.
import { summarise } from './conclusions.mjs'
import { evaluate } from './evaluation.mjs'
import { rows as goalRows } from './goals.mjs'
import { charts } from './plots.mjs'
import { document } from './report.mjs'

/**
 * What the run in `NAME.json` looks like: `files` by their path beside it, `NAME.md` and `NAME/CHART.svg`, with the rows
 * and the lines of the summary they were made from.
 */
export function draw(run, name) {
  const rows = evaluate(run)
  const lines = summarise(run, rows)
  const drawn = charts(rows, { ...goalRows.wire, ...goalRows.node })
  const files = new Map(drawn.map((chart) => [`${name}/${chart.name}.svg`, chart.draw()]))
  const links = drawn.map(({ part, group, title, name: chart }) => {
    return { part, group, title, file: `${name}/${chart}.svg` }
  })
  files.set(`${name}.md`, document(run, rows, lines, links, `${name}.json`))
  return { rows, lines, files }
}

// How every row of the goals ended in a run: a line for each goal, a line for what has none, and the reason for what was
// not measured. The figures come from evaluation.mjs, the rows from goals.mjs.
import { evaluate, listOf, reasonForOurs, rowOf } from './evaluation.mjs'
import { rows as goalRows } from './goals.mjs'

/** Why a row of the goals has no figure in this run. */
function reasonForRow(part, number) {
  if (part === undefined) return 'not part of this run'
  const asked = part.cases.filter((load) => rowOf(load) === number)
  // Where nothing could be asked for at all, the failure is why.
  if (part.cases.length === 0 && part.failure !== undefined) return part.failure.split('\n', 1)[0]
  if (asked.length === 0) return 'not part of this run'
  return reasonForOurs(part, asked[0])
}

/** The goals of loads of which nothing of ours was measured, though others of their row were. */
function lostGoals(part, cases, here) {
  const lost = cases.filter(({ load }) => !here.some((row) => row.load === load))
  return lost.flatMap((one) => {
    const reason = reasonForOurs(part, one)
    return Object.values(one.figures).flatMap(({ title, goal }) =>
      listOf(goal).map((each) => ({
        row: { load: one.load, figure: title },
        goal: each,
        state: 'not measured',
        reason,
      })),
    )
  })
}

/** The lines of one row of the goals that was measured. */
function linesOf(part, number, here) {
  const cases = part.cases.filter((load) => rowOf(load) === number)
  const judged = here.flatMap((row) => row.goals.map((outcome) => ({ row, ...outcome })))
  // Without a goal in this run the first figure of each load stands for it.
  const firstKeys = new Map(cases.map(({ load, figures }) => [load, Object.keys(figures)[0]]))
  const firsts = here.filter((row) => row.key === firstKeys.get(row.load))
  const shown = judged.length > 0 ? judged : firsts.map((row) => ({ row, state: 'no goal' }))
  return [...shown, ...lostGoals(part, cases, here)]
}

/**
 * Every row of the goals: its goals and how they ended, or its figures where it has none, or why it was not measured.
 */
export function summarise(run, rows = evaluate(run)) {
  const lines = []
  for (const [kind, numbers] of Object.entries(goalRows)) {
    const part = run.parts.find((one) => one.part === kind)
    for (const [number, about] of Object.entries(numbers)) {
      const here = rows.filter((row) => row.part === kind && rowOf(row) === number && row.ours)
      const found =
        here.length > 0
          ? linesOf(part, number, here)
          : [{ state: 'not measured', reason: reasonForRow(part, number) }]
      lines.push(...found.map((line) => ({ number, about, ...line })))
    }
  }
  return lines
}

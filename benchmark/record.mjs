// A run as plain data: everything the tables and charts are drawn from, so that they can be drawn again from its file.
// What is made of it is in evaluation.mjs.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'

/** Changes when an older file can no longer be drawn. */
const FORMAT = 2

/**
 * One part's result, as `measureWire` and `measureNode` give it, without its functions and maps. A load nobody was
 * measured under stays, so that its goals are missed.
 */
function plainPart({ part, about, settings, cases, samples, loads, missing, failure }) {
  return {
    part,
    about,
    settings,
    loads,
    missing: missing instanceof Map ? Object.fromEntries(missing) : missing,
    failure: failure === undefined ? undefined : (failure.message ?? String(failure)),
    cases: cases.map(({ load, id, contestants, figures, references, ours, floors, growth }) => {
      const measured = samples.get(load) ?? new Map()
      const names = new Set([...(contestants ?? []), ...measured.keys()])
      const related = [...names].map((name) => [name, references?.(name) ?? {}])
      return {
        load,
        id,
        figures: plainFigures(figures),
        growth,
        ours,
        floors,
        contestants: [...names],
        references: Object.fromEntries(related.filter(([, of]) => Object.keys(of).length > 0)),
        samples: Object.fromEntries(measured),
      }
    }),
  }
}

/** What is shown of figures; how they were made of measurements is not. */
function plainFigures(figures) {
  return Object.fromEntries(
    Object.entries(figures).map(([key, { title, goal, better }]) => [key, { title, goal, better }]),
  )
}

/** A run of one or both parts. */
export function record({ date, command, conditions, results }) {
  return { format: FORMAT, date, command, conditions, parts: results.map(plainPart) }
}

/** Six digits are more than any figure here is worth. */
function rounded(_key, value) {
  return typeof value === 'number' && !Number.isInteger(value) ? Number(value.toPrecision(6)) : value
}

/** Short lists and objects of numbers on one line each: a run has thousands of them. */
export function asText(run) {
  const text = JSON.stringify(run, rounded, 1)
  return `${text.replace(/[[{][^[\]{}]*[\]}]/g, (inner) => inner.replace(/\n\s*/g, ' '))}\n`
}

/** Writes a run with all its samples to a file. */
export function save(file, run) {
  mkdirSync(path.dirname(file), { recursive: true })
  writeFileSync(file, asText(run))
}

/** Reads a run that `save` wrote. */
export function load(file) {
  let run
  try {
    run = JSON.parse(readFileSync(file, 'utf8'))
  } catch (error) {
    throw new Error(`${file} holds no run: ${error.message}`)
  }
  if (run?.format !== FORMAT)
    throw new Error(`${file} was written by another version of this benchmark: measure anew`)
  return run
}

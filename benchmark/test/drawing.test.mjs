import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { draw } from '../drawing.mjs'
import { load, record } from '../record.mjs'
import { quiet, results } from './fixture.mjs'

test('every chart that is drawn is in the tables, and every one in the tables is drawn', () => {
  const run = record({ date: '', command: '', conditions: quiet, results: results() })
  const { files } = draw(run, 'run')
  const linked = [...files.get('run.md').matchAll(/!\[[^\]]*\]\(([^)]+)\)/g)].map(([, file]) => file)
  assert.deepEqual(linked.toSorted(), [...files.keys()].filter((file) => file !== 'run.md').toSorted())
  assert.equal(linked.length, 6)
})

test('what is published is what its samples give: npm run benchmark -- --publish', () => {
  const folder = fileURLToPath(new URL('../results', import.meta.url))
  const { files } = draw(load(path.join(folder, 'published.json')), 'published')
  const kept = readdirSync(path.join(folder, 'published')).map((name) => `published/${name}`)
  assert.deepEqual([...kept, 'published.md'].toSorted(), [...files.keys()].toSorted())
  for (const [name, text] of files) assert.equal(readFileSync(path.join(folder, name), 'utf8'), text, name)
})

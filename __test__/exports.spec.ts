// The public list is exactly this, the same for `require` and `import`, and the package resolves by its own name.
import { existsSync } from 'node:fs'
import path from 'node:path'
import test from 'ava'

const root = path.join(__dirname, '..')
const names = ['AaaMap', 'Broker', 'BusError', 'Client', 'Message', 'RpcError', 'connect']

/** The package as each of the two conditions of package.json gives it. */
async function both() {
  const required: Record<string, unknown> = require('elbus-node')
  const imported: Record<string, unknown> = await import('elbus-node')
  return { required, imported }
}

test('require gives the public names and no others', async (t) => {
  const { required } = await both()
  t.deepEqual(Object.keys(required).sort(), names)
})

test('import gives the same names and no default', async (t) => {
  const { imported } = await both()
  t.deepEqual(Object.keys(imported).sort(), names)
})

test('every class exists once, whichever way the package is loaded', async (t) => {
  const { required, imported } = await both()
  for (const name of names) {
    t.is(typeof required[name], 'function', name)
    t.is(imported[name], required[name], name)
  }
})

test('errors are Errors', async (t) => {
  const { required } = await both()
  const { BusError, RpcError } = required as Record<'BusError' | 'RpcError', { prototype: unknown }>
  t.true(BusError.prototype instanceof Error)
  t.true(RpcError.prototype instanceof Error)
})

test('every file that package.json names for users is there', (t) => {
  const description = require('elbus-node/package.json') as { exports: unknown; main: string; types: string }
  const files = [description.main, description.types, ...leaves(description.exports)]
  t.true(files.length > 6)
  for (const file of files) t.true(existsSync(path.join(root, file)), file)
})

test('nothing beside the public list can be imported', (t) => {
  for (const inner of ['elbus-node/dist/index.js', 'elbus-node/npm/binding.js']) {
    t.throws(() => require(inner), { code: 'ERR_PACKAGE_PATH_NOT_EXPORTED' }, inner)
  }
})

function leaves(node: unknown): string[] {
  if (typeof node === 'string') return [node]
  return Object.values(node as object).flatMap(leaves)
}

// `node .ci/licences.mjs OUT`: the licence texts of all that is linked into the addon and the server, as
// OUT/elbus-node/THIRD-PARTY-LICENSES and OUT/elbusd/THIRD-PARTY-LICENSES, for all platforms together. Which crates are
// linked, cargo says; their texts are the files of their packages, whole. A crate without one, or without one of those
// it names, is the end.
//
// cargo-about was tried: where it does not find a text it says nothing and takes the licence's pattern, without the names
// of those who gave it, and for mimalloc's own text, four folders down, it has to read every source file.
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import process from 'node:process'
import { linked, metadata, PRODUCTS, TARGETS } from './cargo-tools.mjs'
import { fail, root } from './prerequisites.mjs'

/** Words that only the text of the licence has; a crate under any other has to be looked at first. */
const WORDS = {
  'Apache-2.0': /Apache License\s+Version 2\.0, January 2004/,
  ISC: /Permission to use, copy, modify, and(\/or)? distribute this software/,
  MIT: /Permission is hereby granted, free of charge, to any\s+person\s+obtaining\s+a\s+copy/,
  'Unicode-3.0': /UNICODE LICENSE V3/,
  Zlib: /This notice may not be removed or altered from any source\s+distribution/,
}
/** Crates published without the text of their repository, which is in .ci/licences. */
const KEPT = { 'napi-rs.txt': ['napi', 'napi-sys'] }
const FILE = /^(licen[cs]e|unlicen[cs]e|copying|copyright|notice)([-_.](?!rs$|toml$|json$|html$).*)?$/i
/** Of what lies in a package and in no program: a text too many does no harm, a walk through all sources takes time. */
const DEPTH = 4
const RULE = `\n${'='.repeat(80)}\n\n`

function textsIn(folder, depth = 0) {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const file = path.join(folder, entry.name)
    if (entry.isDirectory()) return depth < DEPTH ? textsIn(file, depth + 1) : []
    return FILE.test(entry.name) && statSync(file).size > 0 ? [readFileSync(file, 'utf8')] : []
  })
}

function textsOf(crate) {
  const kept = Object.keys(KEPT).find((file) => KEPT[file].includes(crate.name))
  const texts = textsIn(path.dirname(crate.manifest_path))
  if (texts.length > 0 || kept === undefined) return texts
  return [readFileSync(path.join(root, '.ci', 'licences', kept), 'utf8')]
}

/** Which licences a crate asks for: one of each list. `MIT/Apache-2.0` is how old packages say OR. */
function clauses(expression) {
  return expression.split(' AND ').map((clause) => clause.replace(/[()]/g, '').split(/ OR |\s*\/\s*/))
}

function missing(crate, texts) {
  const has = (id) => WORDS[id] !== undefined && texts.some((text) => WORDS[id].test(text))
  return clauses(crate.license ?? 'no licence')
    .filter((ids) => !ids.some(has))
    .map((ids) => `${crate.name} ${crate.version}: ${ids.join(' or ')}`)
}

function write(product, packages, out) {
  const byText = new Map()
  const faults = []
  const names = linked(product, TARGETS)
  for (const crate of packages.filter((one) => names.has(`${one.name} ${one.version}`))) {
    // Of this workspace: under LICENSE.
    if (crate.source === null) continue
    const texts = textsOf(crate)
    faults.push(...missing(crate, texts))
    for (const text of texts) {
      // Line ends and indents are the only difference of many.
      const key = text.replace(/\s+/g, ' ').trim()
      const entry = byText.get(key) ?? { text, crates: [] }
      byText.set(key, entry)
      const title = `${crate.name} ${crate.version} (${crate.license})`
      if (!entry.crates.includes(title)) entry.crates.push(title)
    }
  }
  if (faults.length > 0) fail(`${product.name}: no licence text in the packages of\n${faults.join('\n')}`)

  const parts = [
    `What is linked into ${product.name} beside its own code, which is under Apache-2.0: crates, and the texts that came\n` +
      'with them. The standard library of Rust is used under Apache-2.0.\n',
  ]
  for (const { text, crates } of byText.values()) parts.push(`${crates.join('\n')}\n\n${text.trim()}\n`)
  if (product.name === 'elbusd') {
    const musl = readFileSync(path.join(root, '.ci', 'licences', 'musl.txt'), 'utf8')
    parts.push(`musl, in static builds\n\n${musl.trim()}\n`)
  }
  const all = parts.join(RULE)
  const folder = path.join(out, product.name)
  mkdirSync(folder, { recursive: true })
  writeFileSync(path.join(folder, 'THIRD-PARTY-LICENSES'), all)
  const crates = new Set([...byText.values()].flatMap((entry) => entry.crates))
  console.log(
    `${product.name}: ${crates.size} crates, ${byText.size} texts, ${Math.ceil(all.length / 1024)} KiB`,
  )
}

const [out, ...more] = process.argv.slice(2)
if (out === undefined || more.length > 0) fail('usage: node .ci/licences.mjs OUT')
const { packages } = metadata()
for (const [file, names] of Object.entries(KEPT)) {
  if (!existsSync(path.join(root, '.ci', 'licences', file))) fail(`.ci/licences/${file} is missing`)
  for (const name of names) {
    const crate = packages.find((one) => one.name === name)
    if (crate === undefined || textsIn(path.dirname(crate.manifest_path)).length > 0) {
      fail(`${name} is gone or has a text of its own: take it out of KEPT`)
    }
  }
}
for (const product of PRODUCTS) write(product, packages, path.resolve(out))

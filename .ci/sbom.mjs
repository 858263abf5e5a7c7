// `node .ci/sbom.mjs [OUT]`: what the addon and the server are made of, as CycloneDX 1.5, one file for each of the two
// and each platform: OUT/NAME-TARGET.cdx.json, in target/sbom unless told otherwise. Same commit, same bytes.
//
// cargo-cyclonedx describes a workspace: features that other crates or tests switch on count for it, and it writes beside
// every Cargo.toml. So it works on a copy, and of what it says the crates stay that cargo builds for this product.
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import process from 'node:process'
import { answer, cargoTool, compiled, linked, PRODUCTS, TARGETS } from './cargo-tools.mjs'
import { fail, root, target as targetFolder } from './prerequisites.mjs'

const CARGO_CYCLONEDX = '0.5.9'

const nameOf = ({ name, version }) => `${name} ${version}`

function describe(tool, work, { name, manifest, features }, target) {
  const args = ['cyclonedx', '-qq', '--format', 'json', '--spec-version', '1.5', '--override-filename', 'bom']
  const what = ['--manifest-path', path.join(work, manifest), '--target', target]
  if (features.length > 0) what.push('--features', features.join(','))
  const time = answer('git', ['log', '-1', '--format=%ct']).trim()
  answer(tool, [...args, ...what], { SOURCE_DATE_EPOCH: time })
  const file = path.join(work, path.dirname(manifest), 'bom.json')
  // Where this machine keeps its files is nobody's business.
  const bom = JSON.parse(readFileSync(file, 'utf8').replaceAll(`file://${work}/`, 'file:///'))
  rmSync(file)
  if (bom.metadata.component.name !== name) fail(`${manifest} is not that of ${name}`)
  return bom
}

function trim(bom, product, target) {
  const built = compiled(product, [target])
  const components = bom.components.filter((component) => built.has(nameOf(component)))
  const kept = new Set([bom.metadata.component, ...components].map((component) => component['bom-ref']))
  const dependencies = bom.dependencies
    .filter(({ ref }) => kept.has(ref))
    .map(({ ref, dependsOn }) => ({ ref, dependsOn: dependsOn?.filter((on) => kept.has(on)) }))
  return { ...bom, components, dependencies }
}

/** Crates that are in the program and not in its description, or said to be left out of it. */
function missing(bom, product, target) {
  const required = bom.components.filter((component) => component.scope !== 'excluded')
  const there = new Set([bom.metadata.component, ...required].map(nameOf))
  return [...linked(product, [target])].filter((crate) => !there.has(crate))
}

const [out = path.join(targetFolder, 'sbom'), ...more] = process.argv.slice(2)
if (more.length > 0) fail('usage: node .ci/sbom.mjs [OUT]')
const tool = cargoTool('cargo-cyclonedx', CARGO_CYCLONEDX)
const work = mkdtempSync(path.join(tmpdir(), 'elbus-sbom-'))
process.on('exit', () => rmSync(work, { recursive: true, force: true }))
for (const name of ['Cargo.toml', 'Cargo.lock', 'crates']) {
  cpSync(path.join(root, name), path.join(work, name), { recursive: true, dereference: true })
}
mkdirSync(out, { recursive: true })
for (const product of PRODUCTS) {
  for (const target of TARGETS) {
    const bom = trim(describe(tool, work, product, target), product, target)
    const lost = missing(bom, product, target)
    if (lost.length > 0) fail(`${product.name} for ${target}: not described: ${lost.join(', ')}`)
    const file = `${product.name}-${target}.cdx.json`
    writeFileSync(path.join(out, file), `${JSON.stringify(bom, null, 2)}\n`)
    const required = bom.components.filter((component) => component.scope !== 'excluded')
    console.log(
      `${file}: ${required.length} crates, ${bom.components.length - required.length} to build them`,
    )
  }
}

// What a built file is: for which processor and C library, what it asks for and what it gives. Read with binutils.
import { readFileSync, statSync } from 'node:fs'
import path from 'node:path'
import { must } from './environment.mjs'

/** An addon takes no more than this on disk. */
export const MAX_ADDON = 3 << 20

const MACHINES = { x64: 'X86-64', arm64: 'AArch64', arm: 'ARM' }
/** What belongs to a C library and to nothing else. */
const LIBC = {
  glibc: /^(lib(c|m|pthread|dl|rt)\.so\.\d|ld-linux[-a-z0-9_]*\.so\.\d)$/,
  musl: /^libc\.so$/,
}

/** Compares versions of glibc. */
export function isNewer(version, than) {
  const [a, b] = [version, than].map((text) => text.split('.').map(Number))
  return a[0] > b[0] || (a[0] === b[0] && a[1] > b[1])
}

/** `{ size, floor, problems }`: bytes, the oldest glibc it runs with (undefined for musl), and what is wrong. */
export async function inspectAddon(file, { cpu, glibc }) {
  const read = (...what) => must('readelf', ['--wide', ...what, file])
  const [header, dynamic, symbols] = await Promise.all([
    read('--file-header'),
    read('--dynamic'),
    read('--dyn-syms'),
  ])
  const { size } = statSync(file)
  const problems = []
  const demand = (good, problem) => good || problems.push(problem)

  const machine = header.match(/Machine:\s+(.+)/)?.[1]
  demand(machine?.includes(MACHINES[cpu]), `it is for ${machine}`)
  const needed = [...dynamic.matchAll(/\(NEEDED\).*\[(.+)\]/g)].map(([, name]) => name)
  demand(needed.length > 0, 'it names no C library')
  for (const name of needed) demand(LIBC[glibc ? 'glibc' : 'musl'].test(name), `it needs ${name}`)
  // The place for its variables is chosen when it is loaded: a program that runs has next to none left for others.
  demand(
    !/\bSTATIC_TLS\b/.test(dynamic),
    'its thread-local variables are those of a program, not of a library',
  )
  demand(!/\((RPATH|RUNPATH|TEXTREL)\)/.test(dynamic), 'it has a search path or text that is relocated')

  const rows = [...symbols.matchAll(/^\s*\d+: \S+\s+\d+ \S+\s+(GLOBAL|WEAK)\s+\S+\s+(\S+)\s+(\S+)/gm)]
  demand(rows.length > 10, 'its symbols cannot be read')
  const exported = rows.filter(([, , section]) => section !== 'UND').map(([, , , name]) => name)
  demand(exported.join() === 'napi_register_module_v1', `it exports ${exported.join(', ')}`)
  const asked = rows.filter(([, , section]) => section === 'UND').map(([, , , name]) => name)
  const foreign = asked.filter((name) => /^_Z|v8|^node_|^uv_/.test(name))
  demand(foreign.length === 0, `it asks for ${foreign.join(', ')}, which is not Node-API`)

  demand(holdsMimalloc(file), 'its allocator is not mimalloc')

  const versions = asked.flatMap((name) => name.match(/@GLIBC_([\d.]+)/)?.[1] ?? [])
  const floor =
    glibc && versions.reduce((newest, version) => (isNewer(version, newest) ? version : newest), '2.0')
  if (glibc)
    demand(versions.length > 0 && !isNewer(floor, glibc), `it needs glibc ${floor}, promised is ${glibc}`)
  else demand(versions.length === 0, 'it asks for symbols of glibc')
  demand(size <= MAX_ADDON, `it has ${size} bytes, promised are at most ${MAX_ADDON}`)
  return { size, floor, problems: problems.map((problem) => `${path.basename(file)}: ${problem}`) }
}

/** The allocator names itself in its messages; where it is not linked in, nothing does. */
function holdsMimalloc(file) {
  return readFileSync(file).includes('mimalloc: ')
}

/** The same for a server, which has to be static. */
export async function inspectServer(file, { cpu }) {
  const [header, dynamic, program] = await Promise.all(
    ['--file-header', '--dynamic', '--program-headers'].map((what) =>
      must('readelf', ['--wide', what, file]),
    ),
  )
  const problems = []
  const machine = header.match(/Machine:\s+(.+)/)?.[1]
  if (!machine?.includes(MACHINES[cpu])) problems.push(`it is for ${machine}`)
  if (!holdsMimalloc(file)) problems.push('its allocator is not mimalloc')
  if (/\(NEEDED\)/.test(dynamic)) problems.push('it needs a library')
  if (/INTERP/.test(program)) problems.push('it needs a loader')
  return { size: statSync(file).size, problems: problems.map((problem) => `elbusd for ${cpu}: ${problem}`) }
}

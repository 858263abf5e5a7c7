// What is written for users is true: the quick start runs, every public name is described, every link leads somewhere.

import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import test from 'ava'
import { root, Script } from './support/script'
import { socketPath, tempFolder } from './support/temp'

const PAGES = [
  'README.md',
  'CHANGELOG.md',
  'docs/api.md',
  'docs/electron.md',
  'docs/hardening.md',
  'docs/migration.md',
  'docs/security.md',
  'examples/README.md',
]

function read(file: string): string {
  return readFileSync(join(root, file), 'utf8')
}

/** Blocks of code in one of these languages. */
function blocks(page: string, languages: readonly string[]): string[] {
  return [...page.matchAll(/^```(\w*)\n([\s\S]*?)^```$/gm)]
    .filter(([, language]) => languages.includes(language as string))
    .map(([, , code]) => code as string)
}

/** A folder in which the package can be imported by its name, as in a project that has installed it. */
function project(t: Parameters<typeof tempFolder>[0]): string {
  const folder = tempFolder(t)
  mkdirSync(join(folder, 'node_modules'))
  symlinkSync(root, join(folder, 'node_modules', 'elbus-node'))
  return folder
}

/** What a program says it prints: the comments behind `console.log(…)`. */
function announced(code: string): string[] {
  return [...code.matchAll(/console\.log\(.*\) \/\/ (.*)$/gm)].map(([, line]) => line as string)
}

// ---- README.md

test('the quick start runs and prints what it says', async (t) => {
  const [code = ''] = blocks(read('README.md'), ['js'])
  const expected = announced(code)
  t.is(expected.length, 2)
  const socket = socketPath(t)
  t.regex(code, /\/tmp\/bus\.sock/)
  const file = join(project(t), 'quick-start.mjs')
  writeFileSync(file, code.replaceAll('/tmp/bus.sock', socket))
  const { status, lines, errors } = await Script.start(t, file).end()
  t.deepEqual({ status, errors, lines }, { status: 0, errors: '', lines: expected })
  t.false(existsSync(socket))
})

test('the first page keeps its order', (t) => {
  const page = read('README.md')
  const headings = [...page.matchAll(/^## (.*)$/gm)].map(([, heading]) => heading)
  t.deepEqual(headings, [
    'Install',
    'Quick start',
    'What runs where',
    'Measured',
    'What it is not',
    'In Rust',
    'Further',
  ])
  for (const command of ['npm start', 'npm test']) t.true(page.includes(`\n${command} `), command)
})

test('the commands that the pages name are those of package.json', (t) => {
  const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> }
  const named = PAGES.flatMap((page) =>
    [...read(page).matchAll(/npm run ([\w:]+)/g)].map(([, name]) => name as string),
  )
  t.true(named.length > 0)
  for (const name of [...named, 'start', 'test']) t.true(name in scripts, name)
})

// ---- every page

test('links lead to files and headings that exist', (t) => {
  let links = 0
  for (const page of PAGES) {
    // What looks like a link in code is none.
    const text = read(page).replace(/^```[\s\S]*?^```$/gm, '')
    for (const [, link] of text.matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^https?:/.test(link as string)) continue
      links += 1
      const [file = '', anchor] = (link as string).split('#')
      const target = file === '' ? page : join(dirname(page), file)
      t.true(existsSync(join(root, target)), `${page} links to ${link}`)
      if (anchor !== undefined) t.true(anchors(read(target)).has(anchor), `${page} links to ${link}`)
    }
  }
  t.true(links > 30)
})

/** The anchors of a page's headings, as the usual sites make them. */
function anchors(page: string): Set<string> {
  const headings = [...page.matchAll(/^#+ (.*)$/gm)].map(([, heading]) => heading as string)
  return new Set(
    headings.map((heading) =>
      heading
        .toLowerCase()
        .replace(/[^\w\- ]/g, '')
        .replaceAll(' ', '-'),
    ),
  )
}

test('code on the pages can be parsed', (t) => {
  const folder = tempFolder(t)
  let files = 0
  for (const page of PAGES) {
    for (const code of blocks(read(page), ['js'])) {
      files += 1
      const file = join(folder, `${files}.mjs`)
      writeFileSync(file, code)
      const { status, stderr } = spawnSync(process.execPath, ['--check', file], { encoding: 'utf8' })
      t.is(status, 0, `${page}:\n${code}\n${stderr}`)
    }
  }
  t.true(files > 4)
})

// ---- docs/api.md against the declarations

/** Members of a class or interface, or values of a type of texts, as its declaration has them. */
interface Declared {
  readonly name: string
  readonly members: readonly string[]
}

/** The public list, with what belongs to each name. */
function declarations(): Declared[] {
  const folder = join(root, 'dist')
  const names = [
    ...readFileSync(join(folder, 'index.d.ts'), 'utf8').matchAll(/^export (?:type )?\{([^}]*)\}/gm),
  ]
    .flatMap(([, list]) => (list as string).split(','))
    .map((name) => name.replace(/^\s*type /, '').trim())
    .filter((name) => name !== '')
  const all = readdirSync(folder)
    .filter((file) => file.endsWith('.d.ts'))
    .map((file) => readFileSync(join(folder, file), 'utf8'))
    .join('\n')
  return names.map((name) => ({ name, members: members(name, all) }))
}

function members(name: string, declared: string): string[] {
  const body = new RegExp(
    `^export (?:declare (?:abstract )?class|interface) ${name}\\b[^{]*\\{\\n([\\s\\S]*?)^\\}`,
    'm',
  ).exec(declared)?.[1]
  if (body === undefined) return []
  const found = new Set<string>()
  // A member begins four spaces in.
  for (const [, line = ''] of body.matchAll(/^ {4}(\S.*)$/gm)) {
    if (/^(?:private|#|constructor|\/?\*)/.test(line)) continue
    const member =
      /^(?:static |readonly |get |override |async )*(?:(\[Symbol\.\w+\])|'?([\w$]+)'?)\??(?=[(:<])/.exec(line)
    const text = member?.[1] ?? member?.[2]
    if (text !== undefined) found.add(text)
  }
  return [...found]
}

/** Sections whose heading names something in code: the name → everything in code there, subsections included. */
function sections(page: string): Map<string, string> {
  const found = new Map<string, string>()
  const headings = [...page.matchAll(/^(#+) (.*)$/gm)]
  for (const [index, heading] of headings.entries()) {
    const [, marks = '', title = ''] = heading
    const next = headings.slice(index + 1).find(([, other = '']) => other.length <= marks.length)
    const text = page.slice(heading.index, next?.index)
    for (const [, name = ''] of title.matchAll(/`(\w+)`/g))
      found.set(name, (found.get(name) ?? '') + code(text))
  }
  return found
}

/** What a text has in code spans. */
function code(text: string): string {
  return [...text.replace(/^```[\s\S]*?^```$/gm, '').matchAll(/`([^`\n]+)`/g)]
    .map(([, span]) => span)
    .join('\n')
}

function mentions(section: string, member: string): boolean {
  if (member.startsWith('[')) return section.includes(member)
  return new RegExp(`(?<![\\w$])${member}(?![\\w$])`).test(section)
}

test('docs/api.md has a section for every public name', (t) => {
  const described = sections(read('docs/api.md'))
  const names = declarations().map(({ name }) => name)
  t.true(names.length > 30)
  for (const name of names) t.true(described.has(name), name)
})

test('docs/api.md describes every public member and option where its class or type is described', (t) => {
  const described = sections(read('docs/api.md'))
  const counted: Record<string, number> = {}
  for (const { name, members } of declarations()) {
    counted[name] = members.length
    for (const member of members) t.true(mentions(described.get(name) ?? '', member), `${name}.${member}`)
  }
  // The declarations were read as they are meant: these have so many members at least.
  const least = {
    Broker: 9,
    Client: 20,
    Subscription: 7,
    Message: 8,
    AaaMap: 4,
    BrokerOptions: 12,
    ConnectOptions: 7,
  }
  for (const [name, count] of Object.entries(least))
    t.true((counted[name] ?? 0) >= count, `${name}: ${counted[name]}`)
})

test('docs/api.md describes every error code, and no other', (t) => {
  const declared = readFileSync(join(root, 'dist', 'errors.d.ts'), 'utf8')
  const union = /export type BusErrorCode =([\s\S]*?);\n/.exec(declared)?.[1] ?? ''
  const codes = new Set([...union.matchAll(/'(ERR_BUS_\w+)'/g)].map(([, text]) => text as string))
  t.true(codes.size > 15)
  const page = read('docs/api.md')
  const rows = [...page.matchAll(/^\| `(ERR_BUS_\w+)` \|/gm)].map(([, text]) => text as string)
  t.deepEqual([...rows].sort(), [...codes].sort())
  for (const file of PAGES) {
    for (const [text] of read(file).matchAll(/ERR_BUS_\w+/g)) t.true(codes.has(text), `${file}: ${text}`)
  }
})

// ---- docs/hardening.md

/** All files of these folders whose name ends so. */
function files(folders: readonly string[], ending: string): string[] {
  return folders.flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
      .filter((file) => file.endsWith(ending) && !/(^|[\\/])(node_modules|target)[\\/]/.test(file))
      .map((file) => join(folder, file)),
  )
}

test('docs/hardening.md lists the cases of the fault catalogue that have tests, and no others', (t) => {
  const listed = [...read('docs/hardening.md').matchAll(/^\| (C\d\d) \|/gm)].map(([, id]) => id as string)
  const rust = files(['crates', 'fuzz'], '.rs').flatMap((file) => [...read(file).matchAll(/fn (c\d\d)_/g)])
  const specs = files(['__test__'], '.spec.ts').flatMap((file) => [...read(file).matchAll(/['`](C\d\d): /g)])
  const tested = new Set([...rust, ...specs].map(([, id]) => (id as string).toUpperCase()))
  t.deepEqual(listed, [...tested].sort())
  t.is(listed.length, 51)
})

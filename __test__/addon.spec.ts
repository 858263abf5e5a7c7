// The addon as a shared library: what it asks of the program that loads it, and programs that are unlike a plain Node.
// Electron itself is in `electron.spec.ts`.

import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import test from 'ava'
import 'elbus-node'
import { BROAD } from './support/broad'
import { start } from './support/child'
import { THREAD_OPTIONS } from './support/node-20'
import { compile, dynamic, symbols, withoutCompiler, withoutReader } from './support/shared-library'
import { isShortRun, testIf } from './support/skip'
import { socketPath, tempFolder } from './support/temp'

const run = promisify(execFile)
const PROGRAM = 'addon-program'

/** The file that importing the package has loaded. */
const ADDON = Object.keys(require.cache).find((file) => file.endsWith('.node')) as string

// ---- what it is

testIf(withoutReader(), { serial: true })('it exports its registration only', (t) => {
  t.deepEqual(symbols(ADDON, 'defined'), ['napi_register_module_v1'])
})

testIf(withoutReader(), { serial: true })('it needs libc, and nothing of V8, libuv or Node by name', (t) => {
  const wanted = symbols(ADDON, 'undefined')
  t.true(wanted.includes('dlsym'))
  // C++ names, Node-API's and libuv's: the addon asks for the functions of Node-API when it is loaded.
  t.deepEqual(
    wanted.filter((name) => /^(_Z|napi_|node_|uv_|v8)/.test(name)),
    [],
  )
  const { needed } = dynamic(ADDON)
  t.true(needed.length > 0)
  t.deepEqual(
    needed.filter((name) => !/^(lib(c|m|dl|rt|pthread|gcc_s|c\.musl-\w+)|ld-(linux|musl).*)\.so/.test(name)),
    [],
  )
})

// ---- external buffers

testIf(withoutCompiler(), { serial: true })(
  'a host that refuses external buffers, as Electron does, is never asked for one',
  async (t) => {
    const folder = tempFolder(t)
    const shim = compile('refuse-external', join(folder, 'refuse-external.so'))
    const asking = compile('ask-external', join(folder, 'ask-external.node'))
    const more = { env: { ...process.env, LD_PRELOAD: shim } }
    const ask = ['--print', `require(${JSON.stringify(asking)})`]

    // The shim stands between an addon and Node.
    t.is((await run(process.execPath, ask)).stdout, '0\n')
    const refused = await run(process.execPath, ask, more)
    t.is(refused.stdout, '22\n')
    t.deepEqual(refused.stderr.trim().split('\n'), [
      `given: napi_create_external_arraybuffer to ${asking}`,
      'refused: napi_create_external_arraybuffer of 100 bytes',
    ])

    const program = join(__dirname, 'support', `${PROGRAM}.js`)
    const options = [...THREAD_OPTIONS, program, 'broad', socketPath(t)]
    const { stdout, stderr } = await run(process.execPath, options, more)
    t.like(JSON.parse(stdout), { pass: BROAD })
    // It stands between ours and Node too, in every thread, and is not asked.
    t.deepEqual(
      new Set(stderr.trim().split('\n')),
      new Set([
        `given: napi_create_external_arraybuffer to ${ADDON}`,
        `given: napi_create_external_buffer to ${ADDON}`,
      ]),
    )
  },
)

// ---- environments

test.serial('a secure heap of OpenSSL changes nothing', async (t) => {
  const { code, stdout, stderr } = await start(t, PROGRAM, ['broad', socketPath(t)], {
    node: [...THREAD_OPTIONS, '--secure-heap=65536', '--secure-heap-min=2'],
  }).ended
  t.is(code, 0, stderr)
  t.deepEqual(JSON.parse(stdout), { secureHeap: 65_536, pass: BROAD })
})

const THREADS = isShortRun ? 20 : 100

testIf(process.platform === 'linux' ? undefined : 'what a process has open is counted on Linux only', {
  serial: true,
})(
  `${THREADS} threads load it and end, in four ways, in a process whose main thread never does`,
  async (t) => {
    const { code, signal, stdout, stderr } = await start(
      t,
      PROGRAM,
      ['threads', socketPath(t), String(THREADS)],
      { node: THREAD_OPTIONS },
    ).ended
    t.deepEqual([code, signal], [0, null], stderr)
    const { ends, more, grownKib } = JSON.parse(stdout) as Record<string, unknown>
    const each = THREADS / 4
    t.deepEqual(ends, { 'closes 0': each, 'exits 3': each, 'terminated 1': each, 'throws 1': each })
    t.deepEqual(more, { threads: 0, files: 0 })
    // Well below what any of them holds while it runs.
    t.true((grownKib as number) < 16 << 10, `${grownKib} KiB`)
    t.log(`memory grew by ${grownKib} KiB over ${(THREADS / 5) * 4} threads`)
  },
)

test.serial(
  'the package is loaded into contexts of node:vm, with bytes of theirs and of Node’s',
  async (t) => {
    const rounds = isShortRun ? 3 : 20
    const { code, stdout, stderr } = await start(t, PROGRAM, ['contexts', socketPath(t), String(rounds)])
      .ended
    t.is(code, 0, stderr)
    // Three clients with two payloads and an error each, and one call to another context.
    t.deepEqual(JSON.parse(stdout), { right: rounds * 10 })
  },
)

// ---- thread-local memory, which the allocator has

testIf(withoutReader(), { serial: true })(
  'its thread-local memory is not of the kind that late libraries may not have',
  (t) => {
    const { isEarly, threadLocalBytes } = dynamic(ADDON)
    t.false(isEarly)
    t.true(threadLocalBytes > 0)
  },
)

for (const first of ['main', 'thread']) {
  testIf(withoutCompiler(), { serial: true })(
    `it is loaded after hundreds of libraries that left no early thread-local memory: first in ${first}`,
    async (t) => {
      const folder = tempFolder(t)
      // What cannot be loaded is as large as the addon, and of the other kind.
      const { threadLocalBytes } = dynamic(ADDON)
      compile('thread-local', join(folder, 'dynamic.so'), '-DBYTES=64', '-ftls-model=global-dynamic')
      compile('thread-local', join(folder, 'initial.so'), '-DBYTES=16', '-ftls-model=initial-exec')
      const size = `-DBYTES=${threadLocalBytes}`
      const control = compile('thread-local', join(folder, 'control.so'), size, '-ftls-model=initial-exec')
      t.like(dynamic(control), { isEarly: true, threadLocalBytes })
      const early = await start(t, PROGRAM, ['control', '', folder]).ended
      t.deepEqual(JSON.parse(early.stdout), { count: 1 })

      const { code, signal, stdout, stderr } = await start(
        t,
        PROGRAM,
        ['late', socketPath(t), folder, first],
        { node: THREAD_OPTIONS },
      ).ended
      t.deepEqual([code, signal], [0, null], stderr)
      const late = JSON.parse(stdout) as Record<string, unknown>
      t.is(late.dynamic, 250)
      t.regex(late.small as string, /static TLS/)
      t.regex(late.control as string, /control\.so\.0: .*static TLS/)
      // In the thread that loaded it, one that was there before all those libraries, and a new one.
      t.deepEqual(late.passes, [BROAD, BROAD, BROAD])
    },
  )
}

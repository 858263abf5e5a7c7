// Builds the addon of a target and, where it has one, the stand-alone server, with the compiler of toolchain.sh.
import { copyFileSync, mkdirSync } from 'node:fs'
import path from 'node:path'
import process from 'node:process'
import { artefacts, cross, must, toolchain } from './environment.mjs'

const target = path.join(cross, 'target')

/** The standard library is built along: there is none for this compiler and these targets. */
const STANDARD_LIBRARY = ['--locked', '-Zbuild-std=std,panic_unwind']

export const env = {
  PATH: [path.join(toolchain, 'rust', 'bin'), path.join(toolchain, 'zig', 'bin'), process.env.PATH].join(':'),
  RUSTC: path.join(toolchain, 'rust', 'bin', 'rustc'),
  CARGO_ZIGBUILD_ZIG_PATH: path.join(toolchain, 'zig', 'venv', 'bin', 'python-zig'),
  CARGO_TARGET_DIR: target,
  CARGO_INCREMENTAL: '0',
  // mimalloc tells threads apart by this pointer, which on ARM it would take from a place that glibc moves.
  CFLAGS_armv7_unknown_linux_gnueabihf: '-DMI_USE_BUILTIN_THREAD_POINTER=1',
  // `-Z` of a stable compiler; the features of the language stay as they are.
  RUSTC_BOOTSTRAP: '1',
  RUSTFLAGS: '',
}

/** The path of the addon. */
export async function buildAddon({ triple, glibc, folder }) {
  const options = ['--platform', '--release', '--strip', '--no-js', '--no-const-enum', '--cross-compile']
  const where = ['--manifest-path', 'crates/node/Cargo.toml', '--package-json-path', 'package.json']
  // The command line tool of napi makes folders in it, but not itself.
  mkdirSync(target, { recursive: true })
  const whole = glibc ? `${triple}.${glibc}` : triple
  const out = ['--output-dir', path.join(artefacts, folder), '--target', whole]
  await must(
    'npx',
    ['--no-install', 'napi', 'build', ...options, ...where, ...out, '--', ...STANDARD_LIBRARY],
    {
      env,
    },
  )
  return path.join(artefacts, folder, `elbus-node.${folder}.node`)
}

/**
 * The path of a static `elbusd`; with `systemAllocator` one that allocates as the C library does, to compare it with.
 */
export async function buildServer({ triple, folder }, { systemAllocator = false } = {}) {
  const manifest = ['--manifest-path', path.join('crates', 'elbus', 'Cargo.toml')]
  const what = [...manifest, '--features', 'server,rpc', '--bin', 'elbusd', '--target', triple]
  // zig brings what the compiler would otherwise look for in a standard library that was not built here.
  const linking = ['-C', 'link-self-contained=no', '-C', 'strip=symbols']
  const allocator = systemAllocator ? ['--cfg', 'elbus_system_allocator'] : []
  const args = ['rustc', '--release', ...STANDARD_LIBRARY, ...what, '--', ...linking, ...allocator]
  await must('cargo-zigbuild', args, { env })
  const file = path.join(artefacts, folder, systemAllocator ? 'elbusd-system-allocator' : 'elbusd')
  mkdirSync(path.dirname(file), { recursive: true })
  copyFileSync(path.join(target, triple, 'release', 'elbusd'), file)
  return file
}

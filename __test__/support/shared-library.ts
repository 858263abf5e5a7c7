// Shared libraries of a test: compiled from `__test__/native`, and read with binutils. Where a tool is missing, the reason.

import { execFileSync, spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { root } from './script'

const COMPILER = process.env.CC ?? 'cc'

function runs(command: string): boolean {
  return spawnSync(command, ['--version']).status === 0
}

/** The reason as it is, or a failure where `ELBUS_REQUIRE` holds `addon`. */
function checked(reason: string | undefined): string | undefined {
  if (reason !== undefined && process.env.ELBUS_REQUIRE?.includes('addon')) throw new Error(reason)
  return reason
}

function lack(commands: readonly string[]): string | undefined {
  if (process.platform !== 'linux') return 'shared libraries are looked at on Linux only'
  const absent = commands.find((command) => !runs(command))
  return absent === undefined ? undefined : `${absent} is not installed`
}

/** Why {@link symbols} and {@link dynamic} cannot be asked, for `testIf`. */
export function withoutReader(): string | undefined {
  return checked(lack(['nm', 'readelf']))
}

/** Why nothing can be compiled that relies on glibc's loader, for `testIf`. */
export function withoutCompiler(): string | undefined {
  const { header } = process.report.getReport() as { header: { glibcVersionRuntime?: string } }
  return checked(header.glibcVersionRuntime ? lack([COMPILER, 'readelf']) : 'the loader is not that of glibc')
}

/** Compiles `__test__/native/<source>.c` to a shared library. */
export function compile(source: string, output: string, ...options: string[]): string {
  const strict = ['-Wall', '-Wextra', '-Werror', '-O2', '-shared', '-fPIC']
  const file = join(root, '__test__', 'native', `${source}.c`)
  execFileSync(COMPILER, [...strict, ...options, '-o', output, file, '-ldl'])
  return output
}

/** Names in the dynamic symbol table, without their versions. */
export function symbols(file: string, kind: 'defined' | 'undefined'): string[] {
  const lines = execFileSync('nm', ['--dynamic', `--${kind}-only`, file], { encoding: 'utf8' })
  return lines
    .trim()
    .split('\n')
    .map((line) => line.trim().split(/\s+/).at(-1)?.split('@')[0] ?? '')
}

/** What the loader reads of it: libraries it needs, whether it takes early thread-local memory, and how much of any. */
export function dynamic(file: string): { needed: string[]; isEarly: boolean; threadLocalBytes: number } {
  const text = execFileSync('readelf', ['--wide', '--dynamic', '--segments', file], { encoding: 'utf8' })
  // Offset, two addresses, size in the file, size in memory.
  const segment = text.match(/^\s+TLS(?:\s+0x[0-9a-f]+){4}\s+(0x[0-9a-f]+)/m)
  return {
    needed: [...text.matchAll(/\(NEEDED\).*\[(.+)\]/g)].map(([, name]) => name as string),
    isEarly: /\(FLAGS\).*STATIC_TLS/.test(text),
    threadLocalBytes: Number(segment?.[1] ?? 0),
  }
}

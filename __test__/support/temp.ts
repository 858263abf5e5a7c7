// Fresh temporary folders and socket paths, gone when their test is over.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { ExecutionContext } from 'ava'

/** What owns a temporary folder: anything with ava's `teardown`. */
export type Owner = Pick<ExecutionContext, 'teardown'>

/** A new empty folder, removed when the test is over. */
export function tempFolder(t: Owner): string {
  // Short, because the path of a UNIX socket has some hundred bytes.
  const folder = mkdtempSync(join(tmpdir(), 'elbus-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

/** The path of a socket that does not exist yet, in a folder of its own. */
export function socketPath(t: Owner, name = 'bus.sock'): string {
  return join(tempFolder(t), name)
}

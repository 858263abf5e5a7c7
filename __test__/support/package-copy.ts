// A copy of the package without its addon, to be loaded by a process of its own.

import { execFile } from 'node:child_process'
import { cpSync, mkdirSync } from 'node:fs'
import path from 'node:path'
import { promisify } from 'node:util'
import { type Owner, tempFolder } from './temp'

/** What `require` ended with. */
export interface Loaded {
  name?: string
  code?: string
  message?: string
  cause?: string
  loaded?: true
}

/** Where it is, and how to load it after `prelude`, JavaScript that runs before. */
export interface PackageCopy {
  folder: string
  load(prelude?: string): Promise<Loaded>
}

/** The package as npm installs it, but for the addon: `npm/` holds the generated loader alone. */
export function packageCopy(t: Owner): PackageCopy {
  const folder = path.join(tempFolder(t), 'node_modules', 'elbus-node')
  const from = path.dirname(require.resolve('elbus-node/package.json'))
  for (const file of ['dist', 'package.json', 'npm/binding.js']) {
    cpSync(path.join(from, file), path.join(folder, file), { recursive: true })
  }
  const msgpack = path.join('node_modules', '@msgpack', 'msgpack')
  mkdirSync(path.join(folder, msgpack), { recursive: true })
  cpSync(path.join(from, msgpack), path.join(folder, msgpack), { recursive: true })
  const load = async (prelude = ''): Promise<Loaded> => {
    const program = `${prelude}; let said
      try { require('./dist/index.js'); said = { loaded: true } }
      catch (e) { said = { name: e.name, code: e.code, message: e.message, cause: e.cause?.message } }
      console.log(JSON.stringify(said))`
    const { stdout } = await promisify(execFile)(process.execPath, ['-e', program], { cwd: folder })
    return JSON.parse(stdout) as Loaded
  }
  return { folder, load }
}

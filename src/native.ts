// The only import of the addon. Says plainly why it could not be loaded.

import type * as binding from '#binding'
import { BusError } from './errors'
import { loadFailure, version, versionFailure } from './platform'

function load(): typeof binding {
  let found: typeof binding
  try {
    // Found by `imports` of package.json.
    found = require('#binding') as typeof binding
  } catch (error) {
    throw new BusError('ERR_BUS_INTERNAL', loadFailure(error), { cause: error })
  }
  // One that a package manager left behind, or that another version of this package shares.
  const other = found.addonVersion?.() ?? 'unknown'
  if (other !== version) throw new BusError('ERR_BUS_INTERNAL', versionFailure(other))
  return found
}

export const { NativeBoundary, NativeBroker, NativeAaaMap, topicMatches } = load()
export type NativeBroker = binding.NativeBroker
export type NativeAaaMap = binding.NativeAaaMap
export type NativeAaaEntry = binding.NativeAaaEntry

/** The raw functions of `crates/node/src/hot.rs`. */
export interface Crossings {
  /** Carries out the first `bytes` of the batch; 1 if there is something to collect. */
  submit(bytes: number, external: Uint8Array | undefined): number
  /** `submit` without a payload beside it, and `collect` if there is something; where the arena ends now. */
  exchange(bytes: number, arena: Uint8Array, from: number): number
  /** Fills an arena from byte `from` on; where it ends now. */
  collect(arena: Uint8Array, from: number): number
  /** Takes what a socket read; 0 if it could not. */
  receive(link: number, chunk: Uint8Array, bytes: number): number
  /** What a socket has to write. */
  take(link: number): Buffer | undefined
}

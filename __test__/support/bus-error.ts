// Checks of errors by what users may rely on: class, code, wire code, and a text that names the thing.

import type { ExecutionContext } from 'ava'
import { BusError, type BusErrorCode } from 'elbus-node'
import { soon } from './within'

/** What is expected of an error. */
export interface Expected {
  readonly code: BusErrorCode
  /** Checked where given; `undefined` means that there is none. */
  readonly wireCode?: number | undefined
  /** Pieces its text has. */
  readonly says?: readonly string[]
}

/** Checks an error and returns it. */
export function isBusError(t: ExecutionContext, error: unknown, expected: Expected): BusError {
  if (!(error instanceof BusError)) {
    t.fail(`expected ${expected.code}, got ${String(error)}`)
    throw error
  }
  t.is(error.code, expected.code, error.message)
  if ('wireCode' in expected) t.is(error.wireCode, expected.wireCode, error.message)
  for (const piece of expected.says ?? []) {
    t.true(error.message.includes(piece), `${JSON.stringify(error.message)} does not say ${piece}`)
  }
  // House rule for texts: lower case unless it begins with a name, and no full stop.
  t.false(error.message.endsWith('.'), error.message)
  return error
}

/** The error a call throws; a Promise does not count. */
export function throwsBus(t: ExecutionContext, run: () => unknown, expected: Expected): BusError {
  try {
    run()
  } catch (error) {
    return isBusError(t, error, expected)
  }
  t.fail(`expected ${expected.code} to be thrown`)
  throw new Error('nothing was thrown')
}

/** The error a call rejects with; throwing does not count, because a Promise was promised. */
export async function rejectsBus(
  t: ExecutionContext,
  run: () => PromiseLike<unknown>,
  expected: Expected,
): Promise<BusError> {
  let promise: PromiseLike<unknown>
  try {
    promise = run()
  } catch (error) {
    t.fail(`threw ${String(error)} instead of returning a Promise that rejects`)
    throw error
  }
  try {
    await soon(promise, `a rejection with ${expected.code}`)
  } catch (error) {
    return isBusError(t, error, expected)
  }
  t.fail(`expected a rejection with ${expected.code}`)
  throw new Error('nothing was rejected')
}

/** The reason a Promise rejects with, whatever it is. */
export async function reasonOf(promise: PromiseLike<unknown>): Promise<unknown> {
  try {
    await soon(promise, 'a rejection')
  } catch (error) {
    return error
  }
  throw new Error('nothing was rejected')
}

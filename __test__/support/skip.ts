// What a run leaves out, and the reason it gives: tests whose peer is absent, and length in a short run.
// A skipped test says so in its title, `… (skipped: reason)`, which is what `.ci/counters.mjs` reads.
import test, { type Implementation } from 'ava'

type Register = (title: string, implementation: Implementation<[]>) => void

/**
 * Registers a test that needs something a machine may lack. `reason` says what is missing; `undefined` runs the test.
 *
 * `serial` registers it as `test.serial`, for tests that measure time or take a fixed port.
 */
export function testIf(reason: string | undefined, { serial = false } = {}): Register {
  const register = serial ? test.serial : test
  if (reason === undefined) return (title, implementation) => register(title, implementation)
  return (title, implementation) => register.skip(`${title} (skipped: ${reason})`, implementation)
}

/**
 * Why tests that need a program or an interpreter named by an environment variable cannot run; `undefined` if they can.
 * `npm test` sets ELBUSD, BUSRTD, BUSRT_CLI, ELBUSD_PEER, ELBUS_CLI and ELBUS_PYTHON where it finds them.
 */
export function missing(...variables: string[]): string | undefined {
  const unset = variables.filter((variable) => !process.env[variable])
  return unset.length > 0 ? `${unset.join(', ')} ${unset.length > 1 ? 'are' : 'is'} not set` : undefined
}

/** Whether this is the repetition on another Node: the same tests, fewer rounds in loops. */
export const isShortRun = process.env.ELBUS_SHORT === '1'

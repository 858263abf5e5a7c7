// Warnings of the process: what is told where nobody listens for it.

import process from 'node:process'

/** Least time between two warnings, in milliseconds. */
const INTERVAL = 1_000

let warnedAt = Number.NEGATIVE_INFINITY

/**
 * Warns, at most once a second: peers can be the cause. Where stderr cannot be written any more the warning is lost;
 * without a listener that would be an uncaught exception and end the process.
 */
export function warn(error: unknown): void {
  const now = performance.now()
  if (now - warnedAt < INTERVAL) return
  warnedAt = now
  if (process.stderr.listenerCount('error') === 0) process.stderr.on('error', () => undefined)
  process.emitWarning(error instanceof Error ? error : new Error(String(error)))
}

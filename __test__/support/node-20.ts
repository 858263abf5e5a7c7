// Node 20 aborts now and then when a thread is terminated while V8 optimises code of it, whatever the thread does: its
// isolate is forgotten before the compiler's work for it has ended. Node 22 does not. Without that compiler thread it
// cannot happen, so tests that terminate threads do without it there.

import { setFlagsFromString } from 'node:v8'

const isConcerned = Number(process.versions.node.split('.')[0]) < 22
const FLAG = '--no-concurrent-recompilation'

/** Options of Node for a program that terminates threads. */
export const THREAD_OPTIONS: readonly string[] = isConcerned ? [FLAG] : []

/** The same for this process; to be called before it starts a thread. */
export function prepareForThreads(): void {
  if (isConcerned) setFlagsFromString(FLAG)
}

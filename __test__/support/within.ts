// Bounded waits: what hangs fails, and says what it waited for.

/** How long something that should happen at once may take on a busy machine, in milliseconds. */
const LONG = 15_000

/** The promise, or a failure that names `what` if it is not settled within `ms` milliseconds. */
export async function within<T>(promise: PromiseLike<T>, ms: number, what: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${ms} ms in vain: ${what}`)), ms)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}

/** As {@link within}, with a bound that is long for anything that works. */
export function soon<T>(promise: PromiseLike<T>, what: string): Promise<T> {
  return within(promise, LONG, what)
}

/** Waits until a condition holds, looking again after each turn of the event loop; for what has no event. */
export async function until(condition: () => boolean, what: string, ms = LONG): Promise<void> {
  const end = performance.now() + ms
  while (!condition()) {
    if (performance.now() > end) throw new Error(`waited ${ms} ms in vain: ${what}`)
    await new Promise((resolve) => setImmediate(resolve))
  }
}

// The checks of an installed package, counted: what npm brought, smoke.mjs as it is and with --secure-heap, threads.mjs,
// the tour.

const SECURE_HEAP = ['--secure-heap=65536', '--secure-heap-min=2']

/** Its counts are not to be taken for those of the whole. */
function shown(output) {
  return output.replace(/^/gm, '  ')
}

export class Trial {
  passed = 0
  failed = 0

  /** Counts one check. */
  check(good, what) {
    this[good ? 'passed' : 'failed'] += 1
    if (!good) console.log(`FAILED ${what}`)
  }

  /** Into an empty folder: ours, the one for the platform, and the one dependency. */
  async install(installation, { folder }, registry) {
    const packages = await installation.install(registry)
    const wanted = ['@msgpack/msgpack', 'elbus-node', `elbus-node-${folder}`]
    this.check(packages.join() === wanted.join(), `npm install brought ${packages.join(', ')} for ${folder}`)
  }

  /** All programs on the Node.js that is in use; `{ passed, failed }`. */
  async run(installation, title) {
    const before = { passed: this.passed, failed: this.failed }
    await this.#count(`${title}, smoke`, installation.run(['./smoke.mjs']))
    await this.#count(`${title}, --secure-heap`, installation.run(['./smoke.mjs'], { flags: SECURE_HEAP }))
    await this.#count(`${title}, threads`, installation.run(['./threads.mjs']))
    await this.#tour(`${title}, tour`, installation.run(['./tour.js', '--once']))
    return { passed: this.passed - before.passed, failed: this.failed - before.failed }
  }

  /** A program that ends with `N passed, N failed`. */
  async #count(title, result) {
    const { ok, status, output } = await result
    const [, passed = 0, failed = 0] = output.match(/^(\d+) passed, (\d+) failed$/m) ?? []
    this.passed += Number(passed)
    this.failed += Number(failed)
    // It may also have ended before it could say so, or not have ended.
    if (ok && Number(passed) > 0 && Number(failed) === 0) return
    if (Number(failed) === 0) this.failed += 1
    console.log(`FAILED ${title}, status ${status}:\n${shown(output)}`)
  }

  /** The tour says itself whether everything arrived. */
  async #tour(title, result) {
    const { ok, status, output } = await result
    this.check(
      ok && output.includes('the tour is over, the broker closed'),
      `${title}, status ${status}:\n${shown(output)}`,
    )
  }
}

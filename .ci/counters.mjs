// Reads what test programs print and counts: `cargo test -- --show-output` and ava.

/** Tests that ran, by outcome, and reason → how many tests were skipped for it. */
export class Tally {
  passed = 0
  failed = 0
  #skipped = new Map()
  #failures = []

  /** What is said at the end: the line where it happened may be far up, or cut off. */
  name(failure) {
    this.#failures.push(failure)
  }

  skip(reason, count = 1) {
    this.#skipped.set(reason, (this.#skipped.get(reason) ?? 0) + count)
  }

  lines() {
    const reasons = [...this.#skipped].map(([reason, count]) => `skipped: ${reason} (${count})`)
    const skipped = [...this.#skipped.values()].reduce((sum, count) => sum + count, 0)
    const failures = this.#failures.map((failure) => `failed: ${failure}`)
    return [...reasons, `${skipped} skipped`, ...failures, `${this.passed} passed, ${this.failed} failed`]
  }
}

/** What a line gives as its reason for skipping a test. */
export function skipReason(line) {
  return line.match(/^skipped: *(.+)$/)?.[1].trim()
}

/**
 * For `cargo test -- --show-output`: `take` hides what passing tests print, but for what those of the fault catalogue
 * measured, `show` names the counts of a file.
 */
export function cargoCounter(tally) {
  let hidden = false
  let test = ''
  let program = ''
  let skippedTests = new Set()
  const counts = new Map()
  const take = (line) => {
    const running = line.match(/^\s+(?:Running (?:unittests )?(\S+)|Doc-tests (\S+))/)
    if (running) program = running[1] ?? `documentation of ${running[2]}`
    const failure = line.match(/^test (.+) \.\.\. FAILED$/)
    if (failure) tally.name(`${failure[1]} (${program})`)
    if (line === 'successes:') hidden = true
    if (line === 'failures:') hidden = false
    const header = line.match(/^---- (.+) stdout ----$/)
    if (header) test = header[1]
    const reason = skipReason(line)
    if (reason !== undefined) {
      tally.skip(reason)
      skippedTests.add(test)
    }
    const result = line.match(/^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored/)
    if (!result) return !hidden || /^C\d\d: /.test(line)
    hidden = false
    const [good, bad, ignored] = result.slice(1).map(Number)
    if (ignored > 0) tally.skip(`ignored in ${program}`, ignored)
    // A test that says it was skipped has not passed.
    tally.passed += good - skippedTests.size
    tally.failed += bad
    const sum = counts.get(program) ?? [0, 0, 0]
    counts.set(program, [
      sum[0] + good - skippedTests.size,
      sum[1] + bad,
      sum[2] + skippedTests.size + ignored,
    ])
    skippedTests = new Set()
    return true
  }
  const show = (title, file) => {
    for (const [name, [good, bad, left]] of counts) {
      if (name.endsWith(file)) console.log(`${title}: ${good} passed, ${bad} failed, ${left} skipped`)
    }
  }
  return { take, show }
}

/** For a program that ends with `N passed, N failed` and says `FAILED` with what was wrong. */
export function totalCounter(tally) {
  return (line) => {
    const total = line.match(/^(\d+) passed, (\d+) failed$/)
    const reason = skipReason(line)
    if (reason !== undefined) tally.skip(reason)
    const failure = line.match(/^FAILED (.+)$/)
    if (failure) tally.name(failure[1])
    if (!total) return true
    tally.passed += Number(total[1])
    tally.failed += Number(total[2])
    return false
  }
}

/** For the test runner of Node and its reporter `spec`, which ends with counts. Shows what did not pass. */
export function nodeCounter(tally) {
  return (line) => {
    const [, outcome, count] = line.match(/^ℹ (pass|fail|cancelled|skipped) (\d+)$/) ?? []
    if (outcome === 'pass') tally.passed += Number(count)
    if (outcome === 'fail' || outcome === 'cancelled') tally.failed += Number(count)
    if (outcome === 'skipped' && count !== '0') tally.skip('no reason given by a test of Node', Number(count))
    const failure = line.match(/^\s*✖ (.+) \([\d.]+ms\)$/)
    if (failure) tally.name(failure[1])
    return !/^\s*[✔ℹ] /.test(line)
  }
}

/**
 * For ava's own reporter, whose failures show the source. A line per test or lost file, as the last lines name passed
 * tests only where none failed; reasons from titles `… (skipped: reason)` and tests that log `skipped: reason` and pass.
 */
export function avaCounter(tally) {
  return (line) => {
    const [, sign, text] = line.match(/^ {2}([✔√✘×-]) (.+)$/) ?? []
    if (sign === '✔' || sign === '√') tally.passed += 1
    // A failed test or hook, a file that crashed, did not end, or holds no test.
    if (sign === '✘' || sign === '×') {
      tally.failed += 1
      tally.name(text.replace(/^\[fail\]: /, ''))
    }
    const skip = sign === '-' && text.match(/^\[(skip|todo)\] (.+)$/)
    if (skip) {
      const reason = skip[2].match(/\(skipped: (.+)\)$/)?.[1]
      tally.skip(
        skip[1] === 'todo' ? `not written yet: ${skip[2]}` : (reason ?? `no reason given by ${skip[2]}`),
      )
    }
    const logged = skipReason(line.match(/^ {4}\S (skipped: .+)$/)?.[1] ?? '')
    if (logged !== undefined) {
      tally.skip(logged)
      tally.passed -= 1
    }
    return true
  }
}

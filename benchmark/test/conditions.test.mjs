import assert from 'node:assert/strict'
import { test } from 'node:test'
import { describe, judge, othersBetween, ticks, watch } from '../conditions.mjs'

test('busy and slow machines', () => {
  const fine = { cores: 2, load: 0.4, others: 0.05, pace: 3 }
  for (const [facts, wanted] of [
    [fine, undefined],
    // What took part raised the load average itself, so who used the cores is asked first.
    [{ ...fine, load: 9 }, undefined],
    [{ ...fine, load: 2.15, others: 0.38 }, 'load 2.1 on 2 cores, 38 % taken by others'],
    [{ ...fine, others: undefined }, undefined],
    [{ ...fine, load: 0.6, others: undefined }, 'load 0.6 on 2 cores'],
    [{ ...fine, pace: 9 }, '3.0 times as slow as the machine of the goals'],
    [{ ...fine, cores: 1 }, '1 core'],
    [
      { ...fine, others: 0.5, pace: 6 },
      'load 0.4 on 2 cores, 50 % taken by others; 2.0 times as slow as the machine of the goals',
    ],
  ]) {
    assert.equal(judge(facts).reason, wanted, JSON.stringify(facts))
  }
  assert.match(describe(judge(fine)), /^quiet: 2 cores, load average 0\.40 before/)
  assert.match(describe(judge({ ...fine, others: 0.5, pace: 9 })), /^busy and slow: /)
})

test('CPU of others is what neither we nor idleness had', () => {
  const stat = (user, idle, irq) => `cpu  ${user} 0 10 ${idle} 5 ${irq} 7 3 0 0\ncpu0 1 2 3`
  const self = (own) => `4711 (a ) b) S 1 2 3 4 5 6 7 8 9 10 ${own} 1 2 3 4 5 6`
  const before = ticks(stat(100, 1_000, 0), self(20))
  assert.deepEqual(before, { all: 1_125, used: 113, own: 26 })
  const after = ticks(stat(200, 1_090, 10), self(60))
  // 200 ticks in all: 100 used, 40 of them ours, 10 of interrupts.
  assert.equal(othersBetween(before, after), 60 / 200)
  assert.equal(othersBetween(before, before), undefined)
  assert.equal(othersBetween(undefined, after), undefined)
})

test('a look at this machine', () => {
  const { cores, load, pace, others } = watch()()
  assert.ok(cores >= 1 && load >= 0 && pace > 0)
  assert.ok(others === undefined || (others >= 0 && others <= 1))
})

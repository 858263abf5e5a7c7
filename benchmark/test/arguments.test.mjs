import assert from 'node:assert/strict'
import { test } from 'node:test'
import { commandOf, knownText, parse, UsageError } from '../arguments.mjs'

const known = {
  wire: {
    workloads: ['message', 'idle'],
    rows: { S1: ['message'], S2: ['message'], S9: ['idle'] },
    peers: ['busrtd', 'nats'],
  },
  node: {
    workloads: ['one-way', 'idle'],
    rows: { N1: ['one-way'] },
    peers: ['embedded', 'hub', 'nats'],
    ours: ['embedded'],
  },
}

test('what is measured', () => {
  for (const [line, measure] of [
    ['', { wire: [], node: [] }],
    ['--wire', { wire: [] }],
    ['--node', { node: [] }],
    ['--wire --node', { wire: [], node: [] }],
    ['message', { wire: ['message'] }],
    ['n1 S9', { node: ['one-way'], wire: ['idle'] }],
    ['idle', { wire: ['idle'], node: ['idle'] }],
    ['--node idle', { node: ['idle'] }],
    ['s1 S2', { wire: ['message'] }],
  ]) {
    const found = Object.entries(parse(line.split(' ').filter(Boolean), known).measure)
    assert.deepEqual(Object.fromEntries(found.map(([part, { names }]) => [part, names])), measure, line)
  }
})

test('options', () => {
  const { measure, ...defaults } = parse([], known)
  assert.deepEqual(Object.keys(measure), ['wire', 'node'])
  const none = { duration: undefined, payload: undefined, json: undefined }
  assert.deepEqual(defaults, { ...none, rounds: 5, build: true })
  const line = '--peers hub,nats --rounds 9 --duration 0.5 --payload 16 --json x.json --no-build'
  const { measure: _, ...given } = parse(line.split(' '), known)
  assert.deepEqual(given, { rounds: 9, duration: 0.5, payload: 16, json: 'x.json', build: false })
  assert.deepEqual(parse(['--help', 'x'], known), { help: true })
  assert.deepEqual(parse(['-h'], known), { help: true })
  assert.deepEqual(parse(['--publish'], known), { publish: true, file: undefined })
  assert.deepEqual(parse(['--publish', 'x.json'], known), { publish: true, file: 'x.json' })
})

test('peers are beside ours, or beside those of ours that are named', () => {
  for (const [line, wire, node] of [
    ['', undefined, undefined],
    ['--peers none', [], ['embedded']],
    ['--peers nats', ['nats'], ['embedded', 'nats']],
    ['--peers hub,embedded', [], ['embedded', 'hub']],
    ['--peers busrtd', ['busrtd'], ['embedded']],
  ]) {
    const { measure } = parse(line.split(' ').filter(Boolean), known)
    assert.deepEqual([measure.wire.peers, measure.node.peers], [wire, node], line)
  }
})

test('one line for what is refused, with what there is', () => {
  for (const [line, message] of [
    ['rounds', 'rounds is no workload; there are message idle (--wire), one-way idle (--node)'],
    ['--node message', 'message is no workload; there are one-way idle (--node)'],
    ['N9', 'N9 is no workload; there are message idle (--wire), one-way idle (--node)'],
    ['--peers redis', 'redis is no peer; there are busrtd nats embedded hub'],
    ['one-way --peers busrtd', 'busrtd is no peer; there are embedded hub nats'],
    ['--peers ,', '--peers names none of busrtd nats embedded hub, and not `none`'],
    ['--rounds 0', '--rounds is a number of at least 1, not 0'],
    ['--rounds 1.5', '--rounds is a whole number, not 1.5'],
    ['--rounds x', '--rounds is a number of at least 1, not x'],
    ['--duration 0', '--duration is a number of at least 0.1, not 0'],
    ['--json results', '--json is a file that ends in .json, not results'],
    ['--publish a b', '--publish takes one file'],
  ]) {
    assert.throws(() => parse(line.split(' '), known), new UsageError(message), line)
  }
  assert.throws(() => parse(['--fast'], known), /^Error: Unknown option '--fast'[^\n]*$/)
})

test('what there is', () => {
  assert.equal(
    knownText(known),
    `workloads of --wire: message idle; or S1 S2 S9
peers of --wire: busrtd nats
workloads of --node: one-way idle; or N1
peers of --node: embedded hub nats`,
  )
})

test('a command without where its results went', () => {
  for (const [line, wanted] of [
    ['', 'npm run benchmark'],
    ['--json a.json', 'npm run benchmark'],
    ['n1 --json a.json --rounds 3', 'npm run benchmark -- n1 --rounds 3'],
    ['n1 --json=a.json', 'npm run benchmark -- n1'],
  ]) {
    assert.equal(commandOf(line.split(' ').filter(Boolean)), wanted)
  }
})

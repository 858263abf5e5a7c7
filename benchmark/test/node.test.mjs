// The loads from Node and their peers: that they fit together, and that what a peer is made of does what it says.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import net from 'node:net'
import { test } from 'node:test'
import { Stage } from '../actor.mjs'
import { readLines, writeLine } from '../lines.mjs'
import { measureNode, peerNames, workloadNames, workloads } from '../node.mjs'
import { overLinks } from '../peers/links.mjs'
import { overTopics } from '../peers/messages.mjs'
import { peers, preparePeers } from '../peers/peers.mjs'
import { betweenProcesses } from '../workloads/between-processes.mjs'

const INSIDE = ['in process', 'our client', 'EventEmitter', 'MessageChannel']
const loads = Object.values(workloads).flat()

test('the order names all workloads', () => {
  assert.deepEqual([...workloadNames].sort(), Object.keys(workloads).sort())
})

test('contestants are peers over a transport they have, or run in one process', () => {
  for (const { load, contestants } of loads) {
    for (const contestant of contestants.filter((name) => !INSIDE.includes(name))) {
      const [name, transport] = contestant.split(' ')
      assert.ok(peerNames.includes(name), `${load}: ${contestant}`)
      const { isDirect, transports } = peers[name]
      assert.ok(isDirect ? transport === undefined : transports.includes(transport), `${load}: ${contestant}`)
    }
  }
})

test('each load between processes names every peer, or says why not', () => {
  for (const { load, contestants, leftOut = {} } of Object.values(betweenProcesses).flat()) {
    const named = new Set(contestants.map((contestant) => contestant.split(' ')[0]))
    const without = peerNames.filter((name) => !named.has(name))
    assert.deepEqual(without.sort(), Object.keys(leftOut).sort(), load)
  }
})

test('references are contestants of the same load, and goals compare with references', () => {
  for (const { load, contestants, references = () => ({}), figures } of loads) {
    const all = contestants.map((contestant) => references(contestant))
    for (const of of all)
      for (const name of Object.values(of)) assert.ok(contestants.includes(name), `${load}: ${name}`)
    const names = new Set(all.flatMap((of) => Object.keys(of)))
    for (const { goal } of Object.values(figures)) {
      for (const { of = [] } of [goal ?? []].flat())
        for (const name of [of].flat()) assert.ok(names.has(name), `${load}: ${name}`)
    }
  }
})

test('nobody is put in relation to itself or over another transport', () => {
  for (const load of workloads.processes) {
    for (const contestant of load.contestants) {
      const [, transport] = contestant.split(' ')
      for (const other of Object.values(load.references(contestant))) {
        const [, theirs] = other.split(' ')
        assert.notEqual(other, contestant)
        if (transport !== undefined && theirs !== undefined) assert.equal(theirs, transport)
      }
    }
  }
})

test('what is missing is named, with what to do about it', () => {
  const { PATH } = process.env
  process.env.PATH = ''
  try {
    const { missing, servers } = preparePeers(['hub', 'redis', 'elbusd'], { elbusd: undefined })
    assert.deepEqual(Object.keys(missing).sort(), ['elbusd', 'redis'])
    assert.match(missing.redis, /redis-server is missing: .*apt-get install redis-server.*REDIS_SERVER/)
    assert.deepEqual(servers, {})
  } finally {
    process.env.PATH = PATH
  }
})

test('the lockfiles of the peers hold all that is depended on, and name no registry', () => {
  for (const name of new Set(Object.values(peers).flatMap(({ packages = [] }) => packages))) {
    const file = new URL(`../peers/${name}/package-lock.json`, import.meta.url)
    const locked = Object.entries(JSON.parse(readFileSync(file, 'utf8')).packages)
    const there = new Set(locked.map(([where]) => where.slice(where.lastIndexOf('node_modules/') + 13)))
    for (const [where, { resolved, dependencies, optionalDependencies }] of locked) {
      assert.equal(resolved, undefined, `${name}: ${where}`)
      for (const needed of Object.keys({ ...dependencies, ...optionalDependencies })) {
        assert.ok(there.has(needed), `${name}: ${where} needs ${needed}`)
      }
    }
  }
})

/** A bus of topics in this process. */
function bus() {
  const topics = new Map()
  return {
    async subscribe(topic, callback) {
      topics.set(topic, callback)
    },
    publish(topic, payload) {
      topics.get(topic)?.(Buffer.from(payload))
      return true
    },
  }
}

test('calls and messages over topics', async () => {
  const shared = bus()
  const caller = overTopics('caller', shared)
  const callee = overTopics('callee', shared)
  await Promise.all([caller.open(), callee.open()])
  await callee.serve()
  const results = await Promise.all([
    caller.call('callee', Buffer.from('a')),
    caller.call('callee', Buffer.from('b')),
  ])
  assert.deepEqual(results.map(String), ['a', 'b'])

  const taken = []
  await caller.listen((...read) => taken.push(read))
  callee.send('caller', Buffer.from('hello'))
  assert.deepEqual(taken, [[undefined, 0, 5, 104, Buffer.from('hello')]])
})

test('publications, calls and messages over links', async () => {
  const ends = [[], []]
  const link = (at) => ({
    send: (message) => queueMicrotask(() => ends[1 - at].forEach((taken) => void taken(message))),
    listen: (taken) => ends[at].push(taken),
  })
  const one = overLinks([link(0)])
  const other = overLinks([link(1)])
  await other.serve()
  assert.equal(String(await one.call('other', Buffer.from('a'))), 'a')
  const published = await new Promise((resolve) => {
    other.subscribe('topic', (...read) => resolve(read))
    one.publish('nothing', Buffer.from('x'))
    one.publish('topic', Buffer.from('hello'))
  })
  assert.deepEqual(published, [5, 0, 5, 104, Buffer.from('hello')])
  const sent = await new Promise((resolve) => {
    one.listen((...read) => resolve(read))
    other.send('one', Buffer.from('!'))
  })
  assert.deepEqual(sent, [undefined, 0, 1, 33, Buffer.from('!')])
})

test('objects over a socket, in whatever pieces they come', async () => {
  const server = net.createServer()
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  const accepted = new Promise((resolve) => server.once('connection', resolve))
  const client = net.connect(server.address().port, '127.0.0.1')
  const socket = await accepted
  const objects = []
  const all = new Promise((resolve) => {
    readLines(socket, (object) => {
      objects.push(object)
      if (objects.length === 3) resolve()
    })
  })
  writeLine(client, { name: 'ä\n' })
  client.write('{"a"')
  await new Promise((resolve) => setTimeout(resolve, 20))
  client.write(':1}\n{"b":2}\n')
  await all
  assert.deepEqual(objects, [{ name: 'ä\n' }, { a: 1 }, { b: 2 }])
  client.destroy()
  server.close()
})

test('a program that ends before its time ends what waits for another', { timeout: 20_000 }, async () => {
  const stage = new Stage()
  try {
    const idle = stage.start('far-side.mjs', { module: 'hub.mjs', listen: [{ path: stage.socketPath() }] })
    await idle.next('ready')
    const forEver = idle.next('never')
    // There is no such folder, so nobody can listen in it.
    stage.start('far-side.mjs', { module: 'hub.mjs', listen: [{ path: stage.filePath('no/such/folder') }] })
    await assert.rejects(forEver, /far-side\.mjs ended/)
  } finally {
    await stage.end()
  }
})

test('a short run', { timeout: 120_000 }, async () => {
  const names = ['message', 'remote-call', 'delivery']
  const wanted = ['hub', 'process.send', 'MessagePort']
  const { samples, failure, missing, cases } = await measureNode({
    names,
    rounds: 1,
    peers: wanted,
    duration: 0.2,
  })
  assert.equal(failure, undefined)
  assert.deepEqual(missing, {})
  for (const { load, contestants, figures } of cases) {
    assert.deepEqual([...samples.get(load).keys()], contestants, load)
    const [first] = Object.keys(figures)
    for (const [contestant, [sample]] of samples.get(load)) {
      assert.ok(sample[first] > 0, `${load}, ${contestant}: ${first}`)
    }
  }
})

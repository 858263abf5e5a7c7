// The processes of a measurement: started, spoken to, ended. `programs/stage.mjs` is the other end.
import { fork, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import net from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import process from 'node:process'
import { fileURLToPath } from 'node:url'
import { readLines, writeLine } from './lines.mjs'

/** How long a program may take for anything it is waited for, in milliseconds. */
const PATIENCE = 60_000

/** What has not ended yet: nothing of it outlives this process. */
const running = new Set()
process.once('exit', () => {
  for (const child of running) child.kill('SIGKILL')
})
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(1))

/** The processes of one measurement, with a folder for their sockets. */
export class Stage {
  #processes = []
  #folder = mkdtempSync(path.join(tmpdir(), 'elbus-bench-'))
  #sockets = 0
  #controls = []
  #fail
  /** Never resolves; rejects once something of this measurement has ended before its time. */
  #failed = new Promise((_, reject) => {
    this.#fail = reject
  })

  constructor() {
    this.#failed.catch(() => undefined)
  }

  /** A path where nobody listens yet. */
  socketPath() {
    this.#sockets += 1
    return path.join(this.#folder, `${this.#sockets}.sock`)
  }

  /** Where a file of this name may be written. */
  filePath(name) {
    return path.join(this.#folder, name)
  }

  /** Runs a program of `programs/` with these settings. */
  start(program, settings) {
    const file = fileURLToPath(new URL(`programs/${program}`, import.meta.url))
    const child = fork(file, [JSON.stringify(settings)], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
    const actor = new Actor(program, ofChild(child), this.#failed, this.#fail)
    this.#add(child)
    return actor
  }

  /**
   * A program that another one starts, as its child or worker: its actor, and the `child` that the other is to be told
   * in its settings.
   */
  async expect(program, settings) {
    const control = this.socketPath()
    const { channel, end } = await ofSocket(control)
    this.#controls.push(end)
    return {
      actor: new Actor(program, channel, this.#failed, this.#fail),
      child: { program, settings: { ...settings, control } },
    }
  }

  /** Starts another program and resolves with its process id once somebody listens at `address`. */
  async spawn(command, args, address) {
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] })
    this.#add(child)
    let said = ''
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => {
        said = (said + text).slice(-4_096)
      })
    }
    const ended = new Promise((_, reject) => {
      child.once('error', reject)
      child.once('exit', (code, signal) => reject(new Error(`${command} ended (${signal ?? code}): ${said}`)))
    })
    await within(Promise.race([reach(address), ended]), `${command} to start`)
    ended.catch(this.#fail)
    return child.pid
  }

  #add(child) {
    // One that could not be started never ends either.
    if (child.pid === undefined) return
    this.#processes.push(child)
    running.add(child)
    child.once('exit', () => running.delete(child))
  }

  /** Ends all that still run. */
  async end() {
    const left = this.#processes.filter((child) => running.has(child))
    await Promise.all(
      left.map((child) => {
        const gone = new Promise((resolve) => child.once('exit', resolve))
        child.kill('SIGKILL')
        return gone
      }),
    )
    for (const end of this.#controls) end()
    rmSync(this.#folder, { recursive: true, force: true })
  }
}

/** The channel to a child process. */
function ofChild(child) {
  const ended = new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('exit', (code, signal) => (code === 0 ? resolve() : reject(new Error(String(signal ?? code)))))
  })
  return {
    pid: child.pid,
    send: (message) => child.send(message),
    listen: (taken) => child.on('message', taken),
    ended,
  }
}

/** The channel to whoever connects to this path first. */
async function ofSocket(path) {
  let taken
  let finish
  let socket
  const waiting = []
  const ended = new Promise((resolve) => {
    finish = resolve
  })
  const server = net.createServer((accepted) => {
    socket = accepted
    server.close()
    readLines(socket, (message) => taken(message))
    socket.on('error', finish).on('close', finish)
    for (const message of waiting) writeLine(socket, message)
  })
  await new Promise((resolve, reject) => server.once('error', reject).listen(path, resolve))
  const channel = {
    send: (message) => (socket === undefined ? waiting.push(message) : writeLine(socket, message)),
    listen: (callback) => {
      taken = callback
    },
    ended,
  }
  const end = () => {
    socket?.destroy()
    if (server.listening) server.close()
  }
  return { channel, end }
}

class Actor {
  #channel
  #program
  #failed
  #told = new Map()
  #awaited = new Map()
  #ended
  #leaving = false

  constructor(program, channel, failed, fail) {
    this.#failed = failed
    this.#program = program
    this.#channel = channel
    channel.listen(({ name, value }) => {
      const awaited = this.#awaited.get(name)
      if (awaited === undefined) this.#told.set(name, value)
      else {
        this.#awaited.delete(name)
        awaited(value)
      }
    })
    this.#ended = channel.ended.then(
      () => {
        if (!this.#leaving) throw new Error(`${program} ended before its time`)
      },
      (error) => {
        throw new Error(`${program} ended (${error.message})`)
      },
    )
    this.#ended.catch(fail)
  }

  /** Its process, if the measurement started it. */
  get pid() {
    return this.#channel.pid
  }

  /** Resolves with what the program tells under this name. */
  next(name) {
    if (this.#told.has(name)) {
      const value = this.#told.get(name)
      this.#told.delete(name)
      return Promise.resolve(value)
    }
    const told = new Promise((resolve) => this.#awaited.set(name, resolve))
    return within(Promise.race([told, this.#failed]), `"${name}" of ${this.#program}`)
  }

  order(name, value) {
    this.#channel.send({ name, value })
  }

  /** Lets the program end by itself, and sees that it does. */
  async leave() {
    this.#leaving = true
    this.order('leave')
    await within(this.#ended, `the end of ${this.#program}`)
  }
}

async function within(promise, what) {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${PATIENCE} ms for ${what}`)), PATIENCE)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}

/** A TCP port that was free a moment ago. */
export function freePort() {
  return new Promise((resolve, reject) => {
    const server = net.createServer()
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address()
      server.close(() => resolve(port))
    })
  })
}

/** Resolves once somebody listens at the address. */
async function reach(address) {
  const deadline = performance.now() + PATIENCE
  while (performance.now() < deadline) {
    const isThere = await new Promise((resolve) => {
      const socket = net.connect(address, () => {
        socket.destroy()
        resolve(true)
      })
      socket.on('error', () => resolve(false))
    })
    if (isThere) return
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

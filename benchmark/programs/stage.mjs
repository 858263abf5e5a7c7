// A program's side of the conversation with `actor.mjs`: its settings, what it tells, what it is told.
import net from 'node:net'
import process from 'node:process'
import { readLines, writeLine } from '../lines.mjs'
import { cpuSeconds } from '../machine.mjs'

export const settings = JSON.parse(process.argv[2])

const orders = new Map()
let isLeaving = false
const parent = settings.control === undefined ? ofParent() : await ofSocket(settings.control)

function taken({ name, value }) {
  slot(name).resolve(value)
}

function gone() {
  // Whoever started this is gone: nobody wants the figures.
  if (!isLeaving) process.exit(1)
}

/** The channel of a program that the measurement started. */
function ofParent() {
  process.on('message', taken)
  process.on('disconnect', gone)
  return { send: (message) => process.send(message), end: () => process.disconnect() }
}

/** That of one started by another, whose own channel carries what is measured. */
async function ofSocket(path) {
  const socket = net.connect(path)
  await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject))
  readLines(socket, taken)
  socket.on('error', gone).on('close', gone)
  return { send: (message) => writeLine(socket, message), end: () => socket.end() }
}

function slot(name) {
  let found = orders.get(name)
  if (found === undefined) {
    found = {}
    found.promise = new Promise((resolve) => {
      found.resolve = resolve
    })
    orders.set(name, found)
  }
  return found
}

/** Resolves once the order of this name was given. */
export function order(name) {
  return slot(name).promise
}

/** Tells what is awaited with `actor.next(name)`. */
export function tell(name, value) {
  parent.send({ name, value })
}

/** Ends the program and the run. */
export function fail(reason) {
  process.stderr.write(`${process.argv[1]}: ${reason}\n`)
  process.exit(1)
}

/** The last thing a program does once it is told to: nothing of it may keep the process alive then. */
export async function leave(close) {
  await order('leave')
  await close?.()
  isLeaving = true
  parent.end()
}

/** Ends the run if the count stands still for long: something was lost, and nothing else would tell. */
export function mustGoOn(count, expected) {
  let last = -1
  setInterval(() => {
    if (count() === last && last !== expected()) fail(`nothing has come for 5 s: ${last} of ${expected()}`)
    last = count()
  }, 5_000).unref()
}

/** One turn of the event loop. */
export function turn() {
  return new Promise((resolve) => setImmediate(resolve))
}

/** 256 payloads that begin with their number, so that a receiver sees what is missing. */
export function payloads(bytes) {
  return Array.from({ length: 256 }, (_, index) => {
    const payload = new Uint8Array(bytes).fill(0x2e)
    payload[0] = index
    return payload
  })
}

/** Seconds of CPU that are to be used in each second, and how many times as long may be waited for them. */
const SHARE = 0.75
const PATIENCE = 4
/** How often that is looked at, in milliseconds. */
const LOOK = 20

function ownCpu() {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1e6
}

/**
 * What is returned says whether so many seconds are over. On a machine that others keep busy a program may hardly have
 * run by then: code that is not yet compiled would be measured, and a handful of messages. So they last until what they
 * are meant for has had its share of a CPU, or until it is no use waiting. `cpu` gives seconds, or undefined.
 */
export function lasting(seconds, cpu = ownCpu) {
  const begin = performance.now()
  const before = cpu()
  return () => {
    const elapsed = (performance.now() - begin) / 1e3
    if (elapsed < seconds) return false
    return elapsed >= seconds * PATIENCE || before === undefined || !(cpu() - before < seconds * SHARE)
  }
}

/** Measures a window: from the end of the warm-up, how many of something came, and what CPU which process used. */
export class Meter {
  #warmUp = settings.warmUp
  #duration = settings.duration
  #watch = settings.watch ?? {}
  #count
  #begun = false
  #isMeasuring = false

  /** `count` says how many came so far. */
  constructor(count) {
    this.#count = count
  }

  /** Watches these processes too. */
  watch(processes) {
    this.#watch = processes
  }

  /** True from the end of the warm-up. */
  get isMeasuring() {
    return this.#isMeasuring
  }

  /** Call it when the first has come. */
  begin() {
    if (this.#begun) return
    this.#begun = true
    this.#after(this.#warmUp, () => {
      this.#isMeasuring = true
      const from = this.#look()
      this.#after(this.#duration, () => {
        const to = this.#look()
        const messages = to.count - from.count
        const cpu = {}
        for (const [name, seconds] of Object.entries(to.cpu)) {
          cpu[name] = seconds === undefined ? undefined : seconds - from.cpu[name]
        }
        tell('measured', { messages, seconds: (to.at - from.at) / 1e3, cpu })
      })
    })
  }

  #after(seconds, then) {
    const isOver = lasting(seconds, () => this.#used())
    const look = () => (isOver() ? then() : setTimeout(look, LOOK))
    setTimeout(look, seconds * 1e3)
  }

  /** Seconds of CPU of all processes together. */
  #used() {
    return Object.values(this.#look().cpu).reduce((sum, seconds) => sum + seconds, 0)
  }

  #look() {
    const cpu = {}
    const self = settings.name === undefined ? {} : { [settings.name]: [process.pid] }
    for (const [name, pids] of Object.entries({ ...this.#watch, ...self })) {
      const all = pids.map(cpuSeconds)
      cpu[name] = all.includes(undefined) ? undefined : all.reduce((sum, seconds) => sum + seconds, 0)
    }
    return { count: this.#count(), at: performance.now(), cpu }
  }
}

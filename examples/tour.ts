// A tour: one broker, and clients of every kind that talk to each other through it.
//
//   npm start                  builds it, looks for Python, runs it
//   npm start -- --once        ends by itself
//
// The broker and the client tour.app live in this thread; tour.worker is a worker thread, tour.process another Node
// process, tour.python the published Python client, where ELBUS_PYTHON names an interpreter that has it. Every line
// says what arrived where; anything that does not arrive ends the tour with a message and status 1. After the tour the
// broker serves until SIGINT or SIGTERM.
//
// ELBUS_BIND is where it listens, a socket path or HOST:PORT; unless it is set, a socket in a new folder.

import { deepStrictEqual } from 'node:assert'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { AaaMap, Broker, BusError, type Client, connect, type Message, type Subscription } from 'elbus-node'
import { Participant, within } from './tour-participant'

const APP = 'tour.app'
const WORKER = 'tour.worker'
const PROCESS = 'tour.process'
const PYTHON = 'tour.python'
const GUEST = 'tour.guest'

/** Who is subscribed to what: `+` is any one level, `#` all further ones. */
const MASKS = {
  [APP]: 'tour/+/today',
  [WORKER]: 'tour/+/today',
  [PROCESS]: 'tour/#',
  [PYTHON]: 'tour/news/#',
}
/** `[1, 2]` as MessagePack in hexadecimal digits, and how the Python client shows `3`. */
const PACKED = { params: '920102', result: '0x03' }

function tell(what: string, text: string): void {
  console.log(`${what.padEnd(12)} ${text}`)
}

function list(names: readonly string[]): string {
  return names.length < 2 ? names.join('') : `${names.slice(0, -1).join(', ')} and ${names.at(-1)}`
}

class Tour {
  readonly #broker: Broker
  readonly #app: Client
  readonly #messages: Subscription
  readonly #news: Subscription
  readonly #present: Participant[] = []

  constructor(broker: Broker, app: Client) {
    this.#broker = broker
    this.#app = app
    this.#messages = app.messages()
    this.#news = app.subscribe(MASKS[APP])
    app.serve({ add: ([a, b]: [number, number]) => a + b })
  }

  /** Everything there is to see. `address` is where others connect, `guarded` where the access map applies. */
  async visit(address: string, guarded: string, rights: AaaMap): Promise<void> {
    await this.#news.ready
    await this.#arrive(address)
    await this.#sendMessages()
    await this.#broadcast()
    await this.#publish()
    await this.#call()
    await this.#deny(guarded, rights)
    await this.#showTables()
  }

  async #arrive(address: string): Promise<void> {
    const worker = Participant.thread(this.#broker.address, WORKER, MASKS[WORKER])
    const process = Participant.process(address, PROCESS, MASKS[PROCESS])
    this.#present.push(worker, process)
    for (const each of this.#present) {
      await each.expect(`connected as ${each.name}`)
      tell('connected', `${each.name} in ${each.kind}`)
    }
    const python = this.#python(address)
    if (python === undefined) return
    this.#present.push(python)
    await python.expect(`connected as ${PYTHON}`)
    tell('connected', `${PYTHON}, the published Python client`)
    await python.expect(`subscribed to ${MASKS[PYTHON]}`)
    await python.expect('published tour/python/today: news in Python')
    await this.#arrived(PYTHON, 'tour/python/today', 'news in Python', [APP, WORKER, PROCESS])
    await python.expect(`result of add from ${APP}: ${PACKED.result}`)
    tell('call', `${PYTHON} -> ${APP}, method add of [1, 2]: answered 3`)
  }

  #python(address: string): Participant | undefined {
    const { ELBUS_PYTHON: interpreter, ELBUS_NO_PYTHON: reason } = process.env
    if (!interpreter) {
      // Whoever looked for one knows better why.
      console.log(
        `skipped: Python, because ${reason || 'ELBUS_PYTHON names no interpreter that has the client'}`,
      )
      return undefined
    }
    const options = ['--subscribe', MASKS[PYTHON], '--topic', 'tour/python/today', '--text', 'news in Python']
    options.push('--method', 'add', '--params', PACKED.params, '--stay', '60')
    return Participant.python(interpreter, plain(address), PYTHON, APP, options)
  }

  async #sendMessages(): Promise<void> {
    const text = 'hello from the app'
    for (const other of this.#present) {
      if (other.name === PYTHON) {
        // A message too, in the form that RPC clients take: the Python package refuses any other.
        this.#app.notify(PYTHON, text)
        await other.expect(`notification from ${APP}: ${text}`)
        tell('notification', `${APP} -> ${PYTHON}: "${text}" arrived`)
        continue
      }
      await this.#app.send(other.name, text, { ack: true })
      await other.expect(`message from ${APP}: ${text}`)
      tell('message', `${APP} -> ${other.name}: "${text}" arrived`)

      const answer = `hello from ${other.name}`
      other.order('send', APP, answer)
      await next(this.#messages, { kind: 'message', sender: other.name, topic: undefined, text: answer })
      tell('message', `${other.name} -> ${APP}: "${answer}" arrived`)
    }
  }

  async #broadcast(): Promise<void> {
    const text = 'everybody listen'
    await this.#app.broadcast('tour.*', text, { ack: true })
    await next(this.#messages, { kind: 'broadcast', sender: APP, topic: undefined, text })
    for (const other of this.#present) await other.expect(`broadcast from ${APP}: ${text}`)
    tell(
      'broadcast',
      `${APP} -> tour.*: "${text}" arrived at ${list([APP, ...this.#present.map(({ name }) => name)])}`,
    )
  }

  async #publish(): Promise<void> {
    await this.#app.publish('tour/news/yesterday', 'old news', { ack: true })
    await this.#arrived(APP, 'tour/news/yesterday', 'old news', [PROCESS, PYTHON])
    await this.#app.publish('tour/news/today', 'fresh news', { ack: true })
    await this.#arrived(APP, 'tour/news/today', 'fresh news', [APP, WORKER, PROCESS, PYTHON])
    for (const [index, name] of [WORKER, PROCESS].entries()) {
      this.#present[index]?.order('publish', 'tour/weather/today', `sunny at ${name}`)
      await this.#arrived(name, 'tour/weather/today', `sunny at ${name}`, [APP, WORKER, PROCESS])
    }
  }

  /** Waits for a publication everywhere it should come to, and tells of it. */
  async #arrived(sender: string, topic: string, text: string, receivers: readonly string[]): Promise<void> {
    const others = this.#present.filter(({ name }) => receivers.includes(name))
    const isHere = receivers.includes(APP)
    if (isHere) await next(this.#news, { kind: 'publish', sender, topic, text })
    for (const other of others) await other.expect(`publication from ${sender}, topic ${topic}: ${text}`)
    const names = [...(isHere ? [APP] : []), ...others.map(({ name }) => name)]
    tell('publication', `${sender} -> topic ${topic}: "${text}" arrived at ${list(names)}`)
  }

  async #call(): Promise<void> {
    for (const other of this.#present) {
      if (other.name !== PYTHON) {
        other.order('call', APP, 'add', [1, 2])
        await other.expect(`result of add from ${APP}: 3`)
        tell('call', `${other.name} -> ${APP}, method add of [1, 2]: answered 3`)
      }
      const result = await this.#app.call(other.name, 'hello', 7)
      deepStrictEqual(result, 7)
      await other.expect(`call of hello from ${APP}: ${other.name === PYTHON ? '0x07' : '7'}`)
      tell('call', `${APP} -> ${other.name}, method hello of 7: answered 7`)
    }
    const result = await this.#app.call('.broker', 'test')
    deepStrictEqual(result, { ok: true })
    tell('call', `${APP} -> .broker, method test: answered ${JSON.stringify(result)}`)
  }

  /** What an access map forbids, and what an edit of it allows. */
  async #deny(guarded: string, rights: AaaMap): Promise<void> {
    const topic = 'tour/news/today'
    let guest = await connect(guarded, { name: GUEST })
    deepStrictEqual(await failure(guest.publish(topic, 'a rumour', { ack: true })), 'ERR_BUS_ACCESS')
    tell('denied', `${GUEST} -> topic ${topic}: ERR_BUS_ACCESS, the access map allows tour/guest/# only`)
    deepStrictEqual(await failure(connect(guarded, { name: 'tour.stranger' })), 'ERR_BUS_ACCESS')
    tell('denied', 'login of tour.stranger: ERR_BUS_ACCESS, the access map does not name it')

    rights.update(GUEST, { publish: ['tour/#'] })
    this.#broker.forceDisconnect(GUEST)
    await within(guest.closed, `the end of ${GUEST}`)
    guest = await connect(guarded, { name: GUEST })
    tell('edited', `the access map allows ${GUEST} tour/#, and it has logged in anew`)
    await guest.publish(topic, 'a fact', { ack: true })
    await this.#arrived(GUEST, topic, 'a fact', [APP, WORKER, PROCESS, PYTHON])
    await guest.close()
  }

  /** What `.broker` says about its clients and itself. */
  async #showTables(): Promise<void> {
    interface Row {
      name: string
      kind: string
      r_frames: number
      w_frames: number
      queue: number
      instances: number
    }
    const { clients } = await this.#app.call<{ clients: Row[] }>('.broker', 'client.list')
    for (const name of ['.broker', APP, ...this.#present.map((other) => other.name)]) {
      if (!clients.some((row) => row.name === name)) throw new Error(`${name} is not in the client list`)
    }
    const row = (left: string, kind: string, ...numbers: unknown[]): void =>
      console.log(
        left.padEnd(14) + kind.padEnd(11) + numbers.map((number) => String(number).padStart(11)).join(''),
      )
    console.log()
    row('client.list', 'kind', 'sent', 'got', 'queue', 'instances')
    for (const each of clients)
      row(each.name, each.kind, each.r_frames, each.w_frames, each.queue, each.instances)
    const stats = await this.#app.call<Record<string, number>>('.broker', 'stats')
    console.log()
    row('stats', '', 'frames', 'bytes')
    row('from clients', '', stats.r_frames, stats.r_bytes)
    row('to clients', '', stats.w_frames, stats.w_bytes)
    row('uptime', '', `${stats.uptime} s`)
    console.log()
  }

  /** Shows what others send to the app. */
  async showMessages(): Promise<void> {
    for await (const message of this.#messages)
      tell(message.kind, `from ${message.sender}: ${message.text()}`)
  }

  /** Ends everybody in good order, and this thread's client before the broker, so that its iterators just end. */
  async leave(): Promise<void> {
    for (const other of this.#present) await other.leave()
    await this.#app.close()
  }

  async kill(): Promise<void> {
    for (const other of this.#present) other.kill()
    await this.#app.close()
  }
}

type Delivery = Pick<Message, 'kind' | 'sender' | 'topic'> & { readonly text: string }

/** The next message has to be this one. */
async function next(from: Subscription, wanted: Delivery): Promise<void> {
  const { value } = await within(from[Symbol.asyncIterator]().next(), `${wanted.kind} "${wanted.text}"`)
  if (value === undefined) throw new Error('the connection has ended')
  const { kind, sender, topic } = value
  deepStrictEqual({ kind, sender, topic, text: value.text() }, { ...wanted })
}

/** The code of the error a promise rejects with. */
async function failure(promise: Promise<unknown>): Promise<string> {
  try {
    await promise
    return 'no error'
  } catch (error) {
    return error instanceof BusError ? error.code : String(error)
  }
}

/** The address as other clients write it. */
function plain(address: string): string {
  return address.replace(/^unix:|^tcp:\/\//, '')
}

function sayHowToConnect(address: string): void {
  console.log('The broker goes on until Ctrl-C. Any elbus or BUS/RT client can connect, for example:\n')
  console.log("    Node.js    import { connect } from 'elbus-node'")
  console.log(
    `               const c = await connect('${address}', { name: 'me' }); c.send('${APP}', 'hello')`,
  )
  console.log('    Python     from busrt.client import Client, Frame')
  console.log(
    `               c = Client('${plain(address)}', 'me'); c.connect(); c.send('${APP}', Frame('hello'))`,
  )
  console.log(`    Rust       elbus::connect("${address}", elbus::Options::new("me")).await\n`)
}

async function main(once: boolean): Promise<void> {
  const stopped = new Promise<true>((resolve) => {
    // Not once: npm hands Ctrl-C on, and so it may come twice.
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => resolve(true))
  })
  const folder = mkdtempSync(join(tmpdir(), 'elbus-tour-'))
  const broker = await Broker.start()
  const tour = new Tour(broker, await broker.client(APP))
  try {
    const address = await broker.listen(process.env.ELBUS_BIND || join(folder, 'bus.sock'))
    const rights = new AaaMap({ [GUEST]: { publish: ['tour/guest/#'] } })
    const guarded = await broker.listen({ url: join(folder, 'guests.sock'), aaa: rights })
    tell('broker', `in process ${process.pid}, listens on ${address}`)
    tell('connected', `${APP} in the broker's thread`)

    const visit = tour.visit(address, guarded, rights)
    visit.catch(() => undefined)
    const isStopped = await Promise.race([visit, stopped])
    if (isStopped === true) await tour.kill()
    else {
      if (!once) {
        sayHowToConnect(address)
        void tour.showMessages()
        await stopped
        tell('stopping', 'everybody leaves')
      }
      await tour.leave()
    }
  } catch (error) {
    await tour.kill()
    throw error
  } finally {
    await broker.close()
    rmSync(folder, { recursive: true, force: true })
  }
  console.log('the tour is over, the broker closed')
}

const given = process.argv.slice(2)
if (given.some((argument) => argument !== '--once')) {
  console.error('usage: tour.js [--once]')
  process.exitCode = 1
} else {
  main(given.length > 0).catch((error: unknown) => {
    console.log(`FAILED: ${error instanceof Error ? error.message : String(error)}`)
    process.exitCode = 1
  })
}

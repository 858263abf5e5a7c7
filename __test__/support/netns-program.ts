// Run by network.spec.ts on a host of its own: an embedded broker, or clients of one. Times are `Date.now()`, which is
// the same for all hosts of one machine.
//
//   broker ADDRESS ENTRIES     entries of an access map as JSON, or `null` for none; tells who comes and goes, until its
//                              input ends
//   login ADDRESS NAME...      tries each name
//   stay ADDRESS NAME MS       publishes every MS milliseconds, or never with 0; tells how the connection ends
//   late ADDRESS NAME          logs in when told to by a line of input

import { once } from 'node:events'
import { setTimeout } from 'node:timers/promises'
import { AaaMap, Broker, BusError, connect } from 'elbus-node'

/** Longer than a client waits with its first ping, in milliseconds. */
const FIRST_PING = 1_500

function codeOf(error: unknown): string {
  return error instanceof BusError ? error.code : String(error)
}

async function broker(address: string, entries = 'null'): Promise<void> {
  const listed = JSON.parse(entries)
  const bus = await Broker.start({
    listen: [listed ? { url: address, aaa: new AaaMap(listed) } : { url: address }],
  })
  bus.on('client', ({ type, client }) => console.log(`${type} ${client} ${Date.now()}`))
  bus.on('denied', ({ client, operation }) => console.log(`denied ${operation} ${client}`))
  console.log('listening')
  process.stdin.resume()
  await once(process.stdin, 'end')
  await bus.close()
}

async function login(address: string, ...names: string[]): Promise<void> {
  for (const name of names) {
    try {
      const client = await connect(address, { name })
      console.log(`${name} admitted`)
      await client.close()
    } catch (error) {
      console.log(`${name} ${codeOf(error)}`)
    }
  }
}

async function stay(address: string, name: string, every: string): Promise<void> {
  const client = await connect(address, { name })
  let sent = 0
  const timer = Number(every) > 0 ? setInterval(publish, Number(every)) : undefined
  function publish(): void {
    if (!client.connected) return
    sent += 1
    client.publish('from/far', Buffer.alloc(1_000))
  }
  // Until its first ping has gone out, which nothing else tells: from then on silence is the end of it.
  await setTimeout(FIRST_PING)
  console.log('connected')
  const reason = await client.closed
  clearInterval(timer)
  console.log(`closed ${codeOf(reason)} ${Date.now()} ${sent}`)
}

async function late(address: string, name: string): Promise<void> {
  console.log('ready')
  await once(process.stdin, 'data')
  process.stdin.pause()
  const start = Date.now()
  const outcome = await connect(address, { name }).then(() => 'admitted', codeOf)
  console.log(`late ${outcome} ${Date.now() - start}`)
}

const ROLES: Record<string, (address: string, ...rest: never[]) => Promise<void>> = {
  broker,
  login,
  stay,
  late,
}

const [role = '', ...rest] = process.argv.slice(2)
void (ROLES[role] as (...args: string[]) => Promise<void>)(...rest)

// A broker whose access map is edited while it runs, by lines on its standard input.
//
//   node dist-examples/broker-aaa-live.js [ADDRESS]        a socket path or HOST:PORT
//
// allow NAME [ENTRY]     lets NAME in; ENTRY is JSON such as {"publish":["news/#"],"subscribe":false}
// change NAME ENTRY      changes some fields of its entry; null takes a field out
// forbid NAME            takes NAME out of the map
// kick NAME              ends its connection: with its next login the edits hold
// show                   prints the map
//
// It ends with its input, or at Ctrl-C.

import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { AaaMap, Broker } from 'elbus-node'

async function main([address = join(tmpdir(), 'elbus-aaa-live.sock')]: readonly string[]): Promise<void> {
  // Empty: nobody can log in yet.
  const rights = new AaaMap()
  const broker = await Broker.start({ aaa: rights })
  const lines = createInterface({ input: process.stdin })
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => lines.close())
  console.log(`listening on ${await broker.listen(address)}`)

  const obey = (line: string): string => {
    const [, verb, name = '', json = '{}'] = /^\s*(\S+)(?:\s+(\S+))?(?:\s+(.+))?$/.exec(line) ?? []
    // A field that is undefined is taken out; JSON has null for it.
    const entry = Object.fromEntries(
      Object.entries(JSON.parse(json)).map(([key, value]) => [key, value ?? undefined]),
    )
    switch (verb) {
      case 'allow':
        rights.set(name, entry)
        return `${name} may log in`
      case 'change':
        rights.update(name, entry)
        return `${name} may ${JSON.stringify(rights.get(name))}`
      case 'forbid':
        return rights.delete(name) ? `${name} may not log in again` : `${name} is not in the map`
      case 'kick':
        return broker.forceDisconnect(name) ? `${name} was disconnected` : `${name} is not connected`
      case 'show':
        return JSON.stringify(Object.fromEntries(rights))
      default:
        return 'allow NAME [ENTRY] | change NAME ENTRY | forbid NAME | kick NAME | show'
    }
  }
  for await (const line of lines) {
    try {
      console.log(obey(line))
    } catch (error) {
      // A mask or a network that is not valid: the map is as it was.
      console.log(`refused: ${error instanceof Error ? error.message : String(error)}`)
    }
  }
  await broker.close()
}

void main(process.argv.slice(2))

// Calls methods of rpc-handler.js: results, errors, a deadline, a notification.
//
//   node dist-examples/rpc-caller.js ADDRESS

import { BusError, connect, RpcError } from 'elbus-node'

const TARGET = 'example.rpc'

async function main([address = '/tmp/bus.sock']: readonly string[]): Promise<void> {
  const client = await connect(address, { name: 'example.caller' })
  client.notify(TARGET, 'here I come')

  console.log('add:', await client.call(TARGET, 'add', { value: 10 }))
  console.log('get:', await client.call<{ total: number }>(TARGET, 'get'))
  // Nobody waits for the result of this one, only for the broker to have delivered it.
  await client.call(TARGET, 'add', { value: 1 }, { reply: false })

  const calls: [string, () => Promise<unknown>][] = [
    ['wrong params', () => client.call(TARGET, 'add', { value: 'ten' })],
    ['no such method', () => client.call(TARGET, 'subtract', { value: 1 })],
    ['no such client', () => client.call('example.nobody', 'add', { value: 1 })],
    ['no answer in time', () => client.call(TARGET, 'slow', undefined, { timeout: 200 })],
    ['given up', () => client.call(TARGET, 'slow', undefined, { signal: AbortSignal.timeout(200) })],
  ]
  for (const [what, call] of calls) {
    try {
      console.log(`${what}:`, await call())
    } catch (error) {
      if (error instanceof RpcError) console.log(`${what}: RPC error ${error.rpcCode}, ${error.message}`)
      else if (error instanceof BusError) console.log(`${what}: ${error.code}`)
      else console.log(`${what}: ${(error as Error).name}`)
    }
  }
  await client.close()
}

void main(process.argv.slice(2))

// Sends one of each: a message, a broadcast, publications.
//
//   node dist-examples/sender.js ADDRESS [TEXT]        to be seen with listener.js running

import { BusError, connect } from 'elbus-node'

async function main([address = '/tmp/bus.sock', text = 'hello']: readonly string[]): Promise<void> {
  const client = await connect(address, { name: 'example.sender' })
  try {
    // Acknowledged: the Promise says whether the receiver got it into its queue.
    await client.send('example.listener', text, { ack: true })
    console.log('message: delivered')
  } catch (error) {
    if (!(error instanceof BusError) || error.code !== 'ERR_BUS_NOT_REGISTERED') throw error
    console.log('message: nobody is called example.listener')
  }
  // Without acknowledgement a verb returns at once; false would mean: wait for `drained()` before sending more.
  client.broadcast('example.*', text)
  for (let number = 1; number <= 3; number += 1) {
    if (!client.publish(`example/numbers/${number}`, `${text} ${number}`)) await client.drained()
  }
  // Everything sent before has reached the broker.
  await client.flush()
  console.log('broadcast and publications: sent')
  await client.close()
}

void main(process.argv.slice(2))

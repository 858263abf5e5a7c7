// A broker on TCP whose clients may only do what an access map allows.
//
//   node dist-examples/broker-aaa.js [HOST:PORT] [SECONDS]        127.0.0.1:7777 and 5 unless given; until Ctrl-C
//
// test     from this machine only; may do everything
// test2    from anywhere; may publish to news/# and send messages to test; no subscriptions, no broadcasts;
//          disconnected every SECONDS, and may come again
// others   cannot log in

import { AaaMap, Broker } from 'elbus-node'

const rights = new AaaMap({
  // What a rule does not name is allowed.
  test: { hosts: ['127.0.0.0/8', '::1'] },
  test2: { publish: ['news/#'], p2p: ['test'], subscribe: false, broadcast: false },
})

async function main([address = '127.0.0.1:7777', seconds = '5']: readonly string[]): Promise<void> {
  const broker = await Broker.start()
  const bound = await broker.listen({ url: address, aaa: rights })
  console.log(`listening on ${bound}`)
  const timer = setInterval(() => {
    if (broker.forceDisconnect('test2')) console.log('test2 was disconnected; it may come again')
  }, Number(seconds) * 1_000)
  const stop = (): void => {
    clearInterval(timer)
    void broker.close()
  }
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, stop)
}

void main(process.argv.slice(2))

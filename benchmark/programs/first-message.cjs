// A fresh process: from `require` to the first message, in the process, as a user of CommonJS writes it.
const begin = performance.now()
const { Broker } = require('elbus-node')

async function main() {
  const loaded = performance.now()
  const broker = await Broker.start()
  const publisher = await broker.client('publisher')
  const subscriber = await broker.client('subscriber')
  const message = await new Promise((resolve) => {
    subscriber.subscribe('first', { callback: resolve }).ready.then(() => publisher.publish('first', 'hello'))
  })
  const now = performance.now()
  if (message.text() !== 'hello') process.exit(1)
  process.send({ name: 'measured', value: { loaded: loaded - begin, total: now - begin, sinceStart: now } })
  await publisher.close()
  await subscriber.close()
  await broker.close()
  process.disconnect()
}

main()

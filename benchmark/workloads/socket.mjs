// Loads of one client of ours behind a socket, with a far side that does as little as possible.

const TOPIC = 'bench/one'
const ALONE = ['our client']

const figures = {
  rate: { title: 'messages, M/s', goal: { atLeast: 6 } },
  client: { title: 'CPU of the client, s per million' },
  cpu: { title: 'CPU of all, s per million' },
}

function values({ messages, seconds, cpu }, client) {
  const perMillion = (used) => (used / messages) * 1e6
  const all = Object.values(cpu).reduce((sum, used) => sum + used, 0)
  return { rate: messages / seconds / 1e6, client: perMillion(cpu[client]), cpu: perMillion(all) }
}

/** A client of ours receives; `source` writes to it, itself or through a broker, and says what it sent. */
async function receive(stage, { address, source, watch, credit }, { payload, warmUp, duration }) {
  const subscriber = stage.start('subscriber.mjs', {
    name: 'subscriber',
    peer: 'elbus',
    address,
    topic: TOPIC,
    payload,
    receivers: 1,
    credit,
    warmUp,
    duration,
    watch,
  })
  await subscriber.next('ready')
  source.order('go')
  const measured = await subscriber.next('measured')
  source.order('stop')
  subscriber.order('total', await source.next('sent'))
  await subscriber.next('received')
  await subscriber.leave()
  return values(measured, 'subscriber')
}

const throughBroker = {
  load: 'N3 receiving, through elbusd',
  id: 'N3',
  contestants: ALONE,
  figures,
  needs: ['elbusd'],
  async run(stage, _contestant, options) {
    const path = stage.socketPath()
    const broker = await stage.spawn(options.elbusd, ['-B', path, '-w', '2'], { path })
    const window = 16_384
    const source = stage.start('raw-publisher.mjs', { path, topic: TOPIC, payload: options.payload, window })
    await source.next('ready')
    const watch = { broker: [broker], source: [source.pid] }
    return await receive(stage, { address: `unix:${path}`, source, watch, credit: 2_048 }, options)
  },
}

const decoding = {
  load: 'N3 receiving, prepared frames',
  id: 'N3',
  contestants: ALONE,
  figures,
  async run(stage, _contestant, options) {
    const path = stage.socketPath()
    const source = stage.start('raw-broker.mjs', { path, topic: TOPIC, payload: options.payload })
    await source.next('ready')
    const watch = { source: [source.pid] }
    return await receive(stage, { address: `unix:${path}`, source, watch }, options)
  },
}

const sending = {
  load: 'N3 sending, to a sink that counts',
  id: 'N3',
  contestants: ALONE,
  figures,
  async run(stage, _contestant, { payload, warmUp, duration }) {
    const path = stage.socketPath()
    const sink = stage.start('raw-broker.mjs', {
      name: 'sink',
      path,
      topic: TOPIC,
      payload,
      warmUp,
      duration,
    })
    await sink.next('ready')
    const publisher = stage.start('publisher.mjs', {
      peer: 'elbus',
      address: `unix:${path}`,
      topic: TOPIC,
      payload,
      receivers: 0,
      burst: 1_024,
    })
    await publisher.next('ready')
    // The sink was there first, so it is told now whom to watch.
    sink.order('watch', { publisher: [publisher.pid] })
    publisher.order('go')
    const measured = await sink.next('measured')
    sink.order('count')
    publisher.order('stop')
    const sent = await publisher.next('sent')
    await publisher.leave()
    const received = await sink.next('received')
    if (received !== sent) throw new Error(`the sink counted ${received} of ${sent} messages`)
    return values(measured, 'publisher')
  },
}

/** `socket`. */
export const socket = { socket: [throughBroker, decoding, sending] }

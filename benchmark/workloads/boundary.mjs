// What crossing from JavaScript into Rust and back costs, piece by piece.

const load = {
  load: 'boundary, what one record of a burst of 128 costs on its way',
  id: 'boundary',
  contestants: ['in process'],
  figures: {
    call: { title: 'one raw call with nothing to do, ns' },
    bound: { title: 'one call through napi-rs with two strings, ns' },
    write: { title: 'record written into the batch by JavaScript, ns' },
    submit: { title: 'record carried out by Rust, ns' },
    collect: { title: 'record collected by Rust, ns' },
    read: { title: 'record read by JavaScript, ns' },
  },
  async run(stage, _contestant, { payload, warmUp, duration }) {
    const actor = stage.start('boundary.mjs', { topic: 'bench/one', payload, warmUp, duration })
    const measured = await actor.next('measured')
    await actor.leave()
    return measured
  },
}

/** `boundary`. */
export const boundary = { boundary: [load] }

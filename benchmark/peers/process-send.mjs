// `process.send` between a process and its children, as a peer of a measurement. Structured clone, as the default, JSON,
// makes objects of numbers of bytes.
import { fork } from 'node:child_process'
import process from 'node:process'
import { overLinks } from './links.mjs'

/** The children that the settings name, or whoever started this process. */
export async function open(_address, _name, { children }) {
  if (children === undefined) {
    const parent = {
      send: (message) => process.send(message),
      listen: (taken) => process.on('message', taken),
    }
    // Whoever started it may have ended the channel already.
    return overLinks([parent], () => process.connected && process.disconnect())
  }
  const forked = children.map(({ program, settings }) =>
    fork(new URL(`../programs/${program}`, import.meta.url), [JSON.stringify(settings)], {
      serialization: 'advanced',
    }),
  )
  const links = forked.map((child) => ({
    send: (message) => child.send(message),
    listen: (taken) => child.on('message', taken),
  }))
  return overLinks(links, () => {
    for (const child of forked) if (child.connected) child.disconnect()
  })
}

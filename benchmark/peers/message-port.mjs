// MessagePorts between a thread and its workers, as a peer of a measurement. What is sent is copied, not transferred:
// the sender keeps it.
import { parentPort, Worker } from 'node:worker_threads'
import { overLinks } from './links.mjs'

/** The workers that the settings name, or whoever started this thread. */
export async function open(_address, _name, { children }) {
  if (children === undefined) {
    const parent = {
      send: (message) => parentPort.postMessage(message),
      listen: (taken) => parentPort.on('message', taken),
    }
    return overLinks([parent], () => parentPort.close())
  }
  const links = children.map(({ program, settings }) => {
    const argv = [JSON.stringify(settings)]
    const worker = new Worker(new URL(`../programs/${program}`, import.meta.url), { argv })
    return {
      send: (message) => worker.postMessage(message),
      listen: (taken) => worker.on('message', taken),
    }
  })
  // Workers end by themselves once they are told to leave.
  return overLinks(links, () => undefined)
}

// Calls this client makes: their numbers, their replies, and telling the callee that nobody waits any more.

import { FAILURES_ONLY, Flag, Kind } from './batch'
import { BusError, RpcError, wireError } from './errors'
import type { Link, Name } from './link'
import { decode } from './msgpack'
import type { CallOptions } from './options'
import { checkSize, rpcBytes } from './payload'
import { type Entry, entry, Waiting } from './waiting'

// Asking whether a callee knows the cancel frame is a reply with number 0, which every other library drops.
const CANCEL_QUERY = 'elbus.cancel?'
const CANCEL_KNOWN = 'elbus.cancel!'
/** Callees remembered, and calls remembered for each until it has answered; the oldest give way. */
const PEERS = 64
const IDS = 64

interface CancelPeer {
  known: boolean
  ids: number[]
}

/** The calls of one client. */
export class Caller {
  readonly #link: () => Link
  readonly #calls = new Waiting<unknown>((call) => this.#gaveUp(call))
  readonly #cancelPeers = new Map<string, CancelPeer>()

  constructor(link: () => Link) {
    this.#link = link
  }

  /** Calls a method; resolves with its result. */
  call(target: string, method: string, params: unknown, options: CallOptions | undefined): Promise<unknown> {
    return new Promise((resolve, reject) => {
      // Encoded first: what cannot be sent takes no number.
      const payload = rpcBytes(params)
      const link = this.#link()
      checkSize(link.limitBytes, 'call to', target, method, 5, payload)
      const call = entry('call to', target, options?.raw === true, resolve, reject)
      const id = this.#calls.add(call, options)
      const flags = options?.realtime === true ? Flag.ACK | Flag.REALTIME : Flag.ACK
      try {
        link.submit(Kind.REQUEST, flags, target, method, id, (FAILURES_ONLY | id) >>> 0, payload)
      } catch (error) {
        this.#calls.take(id)
        throw error
      }
    })
  }

  /** The broker refused to deliver a call. */
  refused(id: number, code: number): void {
    const call = this.#calls.take(id)
    if (call === undefined) return
    if (code === 0x71) this.#cancelPeers.delete(call.target)
    call.reject(wireError(code, `call to ${call.target}`))
  }

  reply(sender: Name, id: number, result: Uint8Array): void {
    if (id === 0) {
      this.#aboutCancelling(sender.text, result)
      return
    }
    const call = this.#answered(sender, id)
    if (call === undefined) return
    if (call.raw) {
      call.resolve(result)
      return
    }
    let value: unknown
    try {
      value = result.length === 0 ? undefined : decode(result)
    } catch (error) {
      call.reject(
        new BusError('ERR_BUS_PAYLOAD', `result of the ${call.what} ${call.target} is no MessagePack`, {
          cause: error,
        }),
      )
      return
    }
    call.resolve(value)
  }

  error(sender: Name, id: number, code: number, data: Uint8Array): void {
    this.#answered(sender, id)?.reject(new RpcError(code, errorData(data)))
  }

  /** Answers are believed only from whom was called: anybody can send a reply with a number that fits. */
  #answered(sender: Name, id: number): Entry<unknown> | undefined {
    const call = this.#calls.get(id)
    if (call === undefined || call.target !== sender.text) return undefined
    this.#calls.remove(call)
    return call
  }

  /** A call timed out or was aborted: tells the callee, if it is one that understands. */
  #gaveUp(call: Entry<unknown>): void {
    if (!this.#link().isOpen) return
    const peer = this.#cancelPeers.get(call.target)
    if (peer?.known) {
      this.#tell(Kind.CANCEL, call.target, call.id, undefined)
    } else if (peer !== undefined) {
      if (peer.ids.length >= IDS) peer.ids.shift()
      peer.ids.push(call.id)
    } else {
      if (this.#cancelPeers.size >= PEERS)
        this.#cancelPeers.delete(this.#cancelPeers.keys().next().value as string)
      this.#cancelPeers.set(call.target, { known: false, ids: [call.id] })
      this.#tell(Kind.REPLY, call.target, 0, CANCEL_QUERY)
    }
  }

  #aboutCancelling(sender: string, result: Uint8Array): void {
    if (result.length !== CANCEL_QUERY.length) return
    const text = Buffer.from(result).toString('latin1')
    if (text === CANCEL_QUERY) this.#tell(Kind.REPLY, sender, 0, CANCEL_KNOWN)
    if (text !== CANCEL_KNOWN) return
    const peer = this.#cancelPeers.get(sender)
    if (peer === undefined) return
    peer.known = true
    for (const id of peer.ids.splice(0)) this.#tell(Kind.CANCEL, sender, id, undefined)
  }

  #tell(kind: number, target: string, id: number, payload: string | undefined): void {
    try {
      this.#link().submit(kind, 0, target, '', id, 0, payload)
    } catch {
      // Whoever is not told goes on until it is done, as with any other library.
    }
  }

  /** The connection has ended: nothing is answered any more. */
  fail(error: BusError): void {
    this.#calls.fail(error)
    this.#cancelPeers.clear()
  }
}

const utf8 = new TextDecoder('utf-8', { fatal: true })

/** What came with an error: text, a MessagePack value, or bytes, whichever it is first. */
function errorData(data: Uint8Array): unknown {
  if (data.length === 0) return undefined
  try {
    return utf8.decode(data)
  } catch {
    try {
      return decode(data)
    } catch {
      return data
    }
  }
}

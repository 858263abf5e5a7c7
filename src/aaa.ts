// The access map: who may connect and do what. Every edit reaches Rust at once.

import { checkName } from './batch'
import { BusError, native } from './errors'
import { type NativeAaaEntry, NativeAaaMap } from './native'
import { checkFields, defined } from './options'

/** True: anything. False: nothing. A list: what one of its masks matches. */
export type Rule = boolean | readonly string[]

/** What one client may do. What is absent is allowed. */
export interface AaaEntry {
  /** Addresses and networks (`10.0.0.0/8`, `::1`) a network client may connect from. UNIX sockets are not concerned. */
  readonly hosts?: readonly string[] | undefined
  /** Clients it may send messages to: masks of names, `?` for one part, `*` for all that follow. */
  readonly p2p?: Rule | undefined
  /** Topics it may publish to: masks, `+` for one level, `#` for one or more at the end. */
  readonly publish?: Rule | undefined
  /** Topics it may subscribe to: all that a subscription can match has to be allowed. */
  readonly subscribe?: Rule | undefined
  /** Clients it may reach by broadcasts: all that a broadcast's mask can match has to be allowed. */
  readonly broadcast?: Rule | undefined
  /** Topics it may exclude. */
  readonly exclude?: Rule | undefined
  /** User and group its process must have, as the kernel says; with it no network client may connect. */
  readonly peer?: { readonly uid?: number | undefined; readonly gid?: number | undefined } | undefined
}

const FIELDS = ['hosts', 'p2p', 'publish', 'subscribe', 'broadcast', 'exclude', 'peer']

const PEER_FIELDS = ['uid', 'gid']

function frozenList(field: string, value: unknown): readonly string[] {
  if (!Array.isArray(value) || value.some((item) => typeof item !== 'string')) {
    throw new BusError('ERR_BUS_ARGUMENT', `${field} is a list of strings`)
  }
  return Object.freeze([...(value as string[])])
}

function rule(field: string, value: unknown): Rule {
  return typeof value === 'boolean' ? value : frozenList(field, value)
}

function id(field: string, value: unknown): number | undefined {
  if (value === undefined) return undefined
  if (!Number.isInteger(value) || (value as number) < 0 || (value as number) > 0xffff_ffff) {
    throw new BusError('ERR_BUS_ARGUMENT', `peer.${field} is an integer from 0 to 4294967295`)
  }
  return value as number
}

/** A frozen copy, checked but for the masks and networks, which Rust checks. */
function frozen(name: string, given: AaaEntry): AaaEntry {
  const entry: Record<string, unknown> = {}
  checkFields(`the entry of ${name}`, given, FIELDS)
  for (const [field, value] of Object.entries(given)) {
    if (value === undefined) continue
    if (field === 'hosts') entry[field] = frozenList(field, value)
    else if (field === 'peer') {
      const peer = value as { uid?: unknown; gid?: unknown }
      checkFields(`peer in the entry of ${name}`, peer, PEER_FIELDS)
      entry[field] = Object.freeze({ uid: id('uid', peer.uid), gid: id('gid', peer.gid) })
    } else entry[field] = rule(field, value)
  }
  return Object.freeze(entry) as AaaEntry
}

/** The masks of a rule: none to be set if anything is allowed. */
function masks(given: Rule | undefined): string[] | undefined {
  if (given === undefined || given === true) return undefined
  return given === false ? [] : [...given]
}

/**
 * Permissions by client name, for `aaa` of a broker or a listener. With a map only the names in it may connect, by the
 * primary part of their name; secondaries have the rights of their primary.
 *
 * It may be edited at any time. What a client may do is copied when it connects: an edit holds for later logins.
 * `broker.forceDisconnect()` makes a connected client log in again, {@link AaaMap.apply} gives it the new rights as it
 * is. Entries are frozen copies of what was given: change one with {@link AaaMap.set} or {@link AaaMap.update}.
 */
export class AaaMap extends Map<string, AaaEntry> {
  /** An entry that allows to log in and to receive messages, and nothing else: `{ ...AaaMap.NOTHING, publish: ['a/#'] }`. */
  static readonly NOTHING: AaaEntry = Object.freeze({
    p2p: false,
    publish: false,
    subscribe: false,
    broadcast: false,
    exclude: false,
  })

  readonly #native = new NativeAaaMap()

  /** A map with these entries; an empty one lets nobody connect. */
  constructor(entries?: Iterable<readonly [string, AaaEntry]> | Readonly<Record<string, AaaEntry>>) {
    super()
    if (entries === undefined) return
    const list = Symbol.iterator in entries ? entries : Object.entries(entries)
    for (const [name, entry] of list as Iterable<readonly [string, AaaEntry]>) this.set(name, entry)
  }

  /**
   * Sets what a client may do. Throws `ERR_BUS_ARGUMENT` and changes nothing if a mask or a network is not valid, and
   * `ERR_BUS_NAME` for a name no client can have, such as a mask.
   */
  override set(name: string, given: AaaEntry): this {
    checkName(name)
    const entry = frozen(name, given)
    native(() => this.#native.set(name, nativeEntry(entry)))
    return super.set(name, entry)
  }

  /**
   * Changes some fields of an entry. A field that is undefined is taken out, which allows what it named. Throws
   * `ERR_BUS_ARGUMENT` if there is no entry: a name that is misspelt would let one more client in.
   */
  update(name: string, patch: Partial<AaaEntry>): this {
    const entry = this.get(name)
    if (entry === undefined) {
      throw new BusError('ERR_BUS_ARGUMENT', `the access map has no entry for ${JSON.stringify(name)}`)
    }
    return this.set(name, { ...entry, ...patch })
  }

  /** Removes a client: it cannot connect again. True if it was there. */
  override delete(name: string): boolean {
    this.#native.delete(name)
    return super.delete(name)
  }

  /** Removes all clients. */
  override clear(): void {
    this.#native.clear()
    super.clear()
  }

  /**
   * Gives clients that are connected under this map, at any broker of the process, the rights it holds now, and returns
   * how many connections that were. Without this call a client keeps what was copied when it connected. `name` is a
   * primary name, whose secondaries follow it; without one it is all clients.
   *
   * A client that could not connect any more, because its name is gone or `hosts` or `peer` do not admit it, is
   * disconnected. Subscriptions and exclusions that are not allowed any more are taken out. What a client does after
   * this has returned is held to the new rights; what is queued for it stays queued. Clients are not told: a
   * subscription that was taken out stays silent, also when the right is given back.
   */
  apply(name?: string): number {
    if (name !== undefined) checkName(name)
    return this.#native.apply(name)
  }

  /** The map in Rust. @internal */
  static nativeOf(map: AaaMap): NativeAaaMap {
    return map.#native
  }
}

/** The entry as Rust takes it. */
function nativeEntry(entry: AaaEntry): NativeAaaEntry {
  const fields: { [Field in keyof Required<NativeAaaEntry>]: NativeAaaEntry[Field] | undefined } = {
    hosts: entry.hosts === undefined ? undefined : [...entry.hosts],
    p2p: masks(entry.p2p),
    publish: masks(entry.publish),
    subscribe: masks(entry.subscribe),
    broadcast: masks(entry.broadcast),
    exclude: masks(entry.exclude),
    uid: entry.peer?.uid,
    gid: entry.peer?.gid,
  }
  return defined(fields)
}

// A broker inside this process.

import { EventEmitter } from 'node:events'
import { AaaMap } from './aaa'
import { checkName } from './batch'
import { boundary } from './boundary'
import { Client } from './client'
import { BusError, native } from './errors'
import { closing, LocalLink } from './local-link'
import { NativeBroker } from './native'
import {
  type BrokerOptions,
  type ClientOptions,
  checkFields,
  defined,
  integer,
  type Listen,
  type ListenOptions,
  LONGEST,
  within,
} from './options'
import { warn } from './warn'

/** One registered client. */
export interface ClientInfo {
  /** Primary name. */
  name: string
  /** How it is connected. */
  kind: 'internal' | 'local_ipc' | 'tcp'
  /** Address of a network client. */
  source: string | undefined
  /** The listener it came through, as configured; where any port was asked for, the one that was taken. */
  port: string | undefined
  /** What it sent. */
  received: Traffic
  /** What was queued for it. */
  sent: Traffic
  /** Frames in its queue now. */
  queue: number
  /** Connections under its name, 1 and its secondaries. */
  instances: number
}

/** Frames and bytes so far. Bytes are those of names and payloads, without headers. */
export interface Traffic {
  /** Frames. */
  frames: number
  /** Bytes. */
  bytes: number
}

/** What a broker has done so far. */
export interface BrokerStats {
  /** Milliseconds since its start. */
  uptime: number
  /** What clients sent. */
  received: Traffic
  /** What was queued for clients. */
  sent: Traffic
  /** Frames that full queues refused. */
  refused: number
  /** Operations that were denied. */
  denied: number
  /** Bytes that queues and half-read frames hold now. */
  queuedBytes: number
}

/** Name and version of a broker. */
export interface BrokerInfo {
  /** Who made it. */
  author: string
  /** Its version. */
  version: string
}

/** A client registered or left, secondaries and clients in the process included. */
export interface ClientEvent {
  /** Which of the two. */
  type: 'reg' | 'unreg'
  /** Its full name. */
  client: string
}

/** Operations were denied, by the access map or by a rule of the broker. At most one event a second for each client and operation. */
export interface DeniedEvent {
  /** Who asked, by full name; the name it gave, for a login. */
  client: string
  /** What it asked. */
  operation: 'connect' | 'message' | 'publish' | 'subscribe' | 'broadcast' | 'exclude'
  /** Name, topic or mask of the last of them, cut to 256 bytes; for a login, where it came from. */
  target: string
  /** How many denials this stands for. */
  count: number
}

/** Frames for a client were refused because its queue is full. Once at the beginning and once at the end of a stall. */
export interface SlowEvent {
  /** Whose queue. */
  client: string
  /** Frames refused in this stall so far. */
  refused: number
}

/** A connection ended by what its peer did, or a listener cannot accept. At most 32 a second. */
export interface FaultEvent {
  /** Address of the peer, or `local`. */
  source: string
  /** Its name, if it had logged in. */
  client: string | undefined
  /** What it did. */
  reason: string
  /** Faults left out before this one. */
  omitted: number
}

/** Events of a {@link Broker}. None of them needs a listener. */
export interface BrokerEvents {
  /** A client registered or left. */
  client: [event: ClientEvent]
  /** Operations were denied. */
  denied: [event: DeniedEvent]
  /** A client does not read fast enough. */
  slow: [event: SlowEvent]
  /** A peer misbehaved. */
  fault: [event: FaultEvent]
  /** The broker has closed. */
  close: []
}

const WATCHED = ['client', 'denied', 'slow', 'fault'] as const

/** Brokers that are open: a listener keeps the process alive, so its broker may not be collected. */
const open = new Set<Broker>()

/**
 * A message broker in this process. It routes on threads of its own and on the threads of its clients; JavaScript is
 * never on the way of a message between others.
 *
 * A process may have several. A broker that listens keeps its process alive until it is closed.
 */
export class Broker extends EventEmitter<BrokerEvents> implements AsyncDisposable {
  readonly #native: NativeBroker
  readonly #aaa: AaaMap | undefined
  #listening = 0
  #closing: Promise<void> | undefined

  /** Starts a broker, and listens at the addresses of `listen`. Rejects as {@link Broker.listen} does. */
  static async start(options: BrokerOptions = {}): Promise<Broker> {
    const broker = new Broker(options)
    try {
      const { listen = [] } = options
      const addresses = Array.isArray(listen) ? (listen as readonly Listen[]) : [listen as Listen]
      for (const address of addresses) await broker.listen(address)
    } catch (error) {
      await broker.close({ drain: 0 })
      throw error
    }
    return broker
  }

  private constructor(options: BrokerOptions) {
    super()
    checkFields('the options of a broker', options, BROKER_FIELDS)
    checkMap(options.aaa)
    this.#aaa = options.aaa
    const { queue = {} } = options
    checkFields('queue', queue, ['frames', 'bytes'])
    const given = {
      workers: integer('workers', options.workers, 1, 64),
      queueFrames: integer('queue.frames', queue.frames, 1, 0xffff_ffff),
      queueBytes: integer('queue.bytes', queue.bytes, 1, 2 ** 40),
      totalBytes: integer('totalBytes', options.totalBytes, 1, 2 ** 50),
      subscriptions: integer('subscriptions', options.subscriptions, 0, 0xffff_ffff),
      pause: within('pause', options.pause, 0, 1_000),
      busyPoll: within('busyPoll', options.busyPoll, 0, 10),
      stallTimeout: within('stallTimeout', options.stallTimeout, 1, LONGEST),
      connections: integer('connections', options.connections, 1, 0xffff_ffff),
      connectionsPerPeer: integer('connectionsPerPeer', options.connectionsPerPeer, 1, 0xffff_ffff),
      logins: integer('logins', options.logins, 1, 0xffff_ffff),
    }
    const switches = { forceRegister: options.forceRegister === true, coreRpc: options.coreRpc !== false }
    this.#native = native(() => NativeBroker.start(boundary.native, { ...defined(given), ...switches }))
    boundary.listen(this.#native.number, (json) => this.#event(json))
    const watch = (added?: string | symbol): void => {
      // As `events.rs` numbers them: what nobody listens for does not cross the boundary.
      const wanted = WATCHED.map((name, bit) =>
        name === added || this.listenerCount(name) > 0 ? 1 << bit : 0,
      )
      this.#native.watch(wanted.reduce((sum, bit) => sum | bit, 0))
    }
    const meta = this as EventEmitter
    meta.on('newListener', watch)
    meta.on('removeListener', () => watch())
    open.add(this)
  }

  /** `inproc:<number>`, by which `connect` in any thread of this process joins it. */
  get address(): string {
    return `inproc:${this.#native.number}`
  }

  /**
   * Listens at one more address and resolves with it as bound, `unix:/path` or `tcp://ip:port`. Rejects with
   * `ERR_BUS_ADDRESS` if the address is none, is in use, or is a file that is not a socket.
   */
  async listen(listen: Listen): Promise<string> {
    const options: ListenOptions = typeof listen === 'string' ? { url: listen } : listen
    if (typeof options?.url !== 'string')
      throw new BusError('ERR_BUS_ARGUMENT', 'a listener has a url, a string')
    checkFields(`the listener at ${options.url}`, options, LISTEN_FIELDS)
    if (options.aaa !== null) checkMap(options.aaa)
    const aaa = options.aaa === undefined ? this.#aaa : options.aaa
    const given = {
      timeout: within('timeout', options.timeout, 1, LONGEST),
      frameBytes: integer('payloadLimit', options.payloadLimit, 64, 0xffff_ffff),
      mode: integer('mode', options.mode, 0, 0o777),
    }
    const address = await boundary.request((ticket) =>
      native(() =>
        this.#native.listen(options.url, defined(given), aaa ? AaaMap.nativeOf(aaa) : undefined, ticket),
      ),
    )
    if (this.#closing !== undefined) throw new BusError('ERR_BUS_CLOSED', 'broker is closed')
    this.#listening += 1
    if (this.#listening === 1) boundary.hold()
    return address
  }

  /** Registers a client in this process. Access maps do not apply to it. Rejects with `ERR_BUS_BUSY` if the name is taken. */
  async client(name: string, options: ClientOptions = {}): Promise<Client> {
    checkName(name)
    if (this.#closing !== undefined) throw new BusError('ERR_BUS_CLOSED', 'broker is closed')
    const rpc = options.rpc !== false
    return Client.open(rpc, (deliveries) => new LocalLink(this.#native.number, name, rpc, deliveries))
  }

  /** Registered primaries in the order of their names; those whose name contains or matches `filter`, if given. */
  clients(filter?: string | RegExp): ClientInfo[] {
    const wanted = (name: string): boolean =>
      filter === undefined || (typeof filter === 'string' ? name.includes(filter) : name.search(filter) >= 0)
    return native(() => this.#native.clients())
      .filter(({ name }) => wanted(name))
      .map((info) => ({
        name: info.name,
        kind: info.kind as ClientInfo['kind'],
        source: info.source,
        port: info.port,
        received: { frames: info.receivedFrames, bytes: info.receivedBytes },
        sent: { frames: info.sentFrames, bytes: info.sentBytes },
        queue: info.queue,
        instances: info.instances,
      }))
  }

  /** What it has done so far. Throws `ERR_BUS_CLOSED` once it is closed, as do the following. */
  stats(): BrokerStats {
    const stats = native(() => this.#native.stats())
    return {
      uptime: stats.uptime,
      received: { frames: stats.receivedFrames, bytes: stats.receivedBytes },
      sent: { frames: stats.sentFrames, bytes: stats.sentBytes },
      refused: stats.refused,
      denied: stats.denied,
      queuedBytes: stats.queuedBytes,
    }
  }

  /** Name and version. */
  info(): BrokerInfo {
    return native(() => this.#native.info())
  }

  /**
   * Ends a client's connection, and with a primary those of its secondaries. False if there is no such client. Nothing
   * keeps it from connecting again; edit the access map first if it should not. Throws `ERR_BUS_NOT_SUPPORTED` for a
   * client in this process, which is closed by its owner.
   */
  forceDisconnect(name: string): boolean {
    checkName(name)
    try {
      native(() => this.#native.forceDisconnect(name))
      return true
    } catch (error) {
      if (error instanceof BusError && error.code === 'ERR_BUS_NOT_REGISTERED') return false
      throw error
    }
  }

  /**
   * Closes in good order: listens no more, announces the shutdown, lets clients read what is queued for them for at
   * most `drain` milliseconds (default 5,000), disconnects everybody. Clients this thread has at the broker end as if they
   * were closed. Closing again waits for the same end.
   */
  close(options: { drain?: number } = {}): Promise<void> {
    try {
      const drain = within('drain', options.drain, 0, LONGEST) ?? 5_000
      this.#closing ??= this.#close(drain)
      return this.#closing
    } catch (error) {
      return Promise.reject(error)
    }
  }

  async #close(drain: number): Promise<void> {
    // What was sent in this turn was sent before.
    boundary.submit()
    closing.add(this.#native.number)
    await boundary.request((ticket) => native(() => this.#native.close(drain, ticket)))
    closing.delete(this.#native.number)
    boundary.unlisten(this.#native.number)
    open.delete(this)
    if (this.#listening > 0) boundary.release()
    this.#listening = 0
    this.emit('close')
  }

  /** As {@link Broker.close}. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  #event(json: string): void {
    const [name, event] = JSON.parse(json) as ['client' | 'denied' | 'slow' | 'fault', never]
    try {
      this.emit(name, event)
    } catch (error) {
      warn(error)
    }
  }
}

const LISTEN_FIELDS = ['url', 'aaa', 'payloadLimit', 'timeout', 'mode'] satisfies (keyof ListenOptions)[]

const BROKER_FIELDS = [
  'listen',
  'aaa',
  'workers',
  'queue',
  'totalBytes',
  'subscriptions',
  'forceRegister',
  'coreRpc',
  'pause',
  'busyPoll',
  'stallTimeout',
  'connections',
  'connectionsPerPeer',
  'logins',
] satisfies (keyof BrokerOptions)[]

function checkMap(map: unknown): void {
  if (map !== undefined && !(map instanceof AaaMap))
    throw new BusError('ERR_BUS_ARGUMENT', 'aaa is an AaaMap')
}

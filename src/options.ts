// The options users give, with units, ranges and defaults, and the checks that name what is wrong.

import type { AaaMap } from './aaa'
import { BusError } from './errors'
import type { Message } from './message'
import type { WaitOptions } from './waiting'

/** Options of a message that nobody acknowledges. */
export interface SendOptions {
  /** Absent or false: the verb returns at once. */
  ack?: false | undefined
  /** Marks the message as realtime: it is not held back to go out with others. Default false. */
  realtime?: boolean | undefined
}

/** Options of a message that the broker acknowledges. */
export interface AckOptions extends WaitOptions {
  /** The verb returns a Promise that resolves once the broker has carried the operation out. */
  ack: true
  /** As in {@link SendOptions}. */
  realtime?: boolean | undefined
}

/** Further options of `send`. */
export interface RawOption {
  /** Sends a payload that begins with a byte of the RPC layer (0x00, 0x01, 0x11, 0x12, 0x13). Default false. */
  raw?: boolean | undefined
}

/** Further options of `publish`. */
export interface ForOption {
  /** Only subscribers of this primary name get it. Default: all. BUS/RT and this broker know it, elbus does not. */
  for?: string | undefined
}

/** What becomes of a message that finds a subscription's queue full. */
export type Overflow = 'drop-newest' | 'drop-oldest'

/** Options of `subscribe` and `messages`. */
export interface SubscribeOptions<T = unknown> {
  /** Is called for each message, at once, instead of queueing it for an iterator. What it throws raises `fault`. */
  callback?: ((message: Message<T>) => void) | undefined
  /** Topic masks whose publications this subscription leaves out, though its masks match them. */
  exclude?: string | readonly string[] | undefined
  /** Messages that may wait for the iterator, at least 1. Default 65,536. */
  highWaterMark?: number | undefined
  /** Payload bytes that may wait for the iterator, at least 1. Default 16 MiB. One message is always taken. */
  highWaterMarkBytes?: number | undefined
  /** What is dropped beyond that. Each is counted in `dropped`, and the first of a stall raises `slow`. */
  overflow?: Overflow | undefined
  /** Ends the subscription when it aborts. */
  signal?: AbortSignal | undefined
}

/** Options of `call`. */
export interface CallOptions extends WaitOptions {
  /** Marks request and reply as realtime. Default false. */
  realtime?: boolean | undefined
  /** Gives the result as a `Uint8Array` instead of reading it as MessagePack. Default false. */
  raw?: boolean | undefined
  /** False: the callee does not answer, and the Promise resolves when the broker has delivered. Default true. */
  reply?: boolean | undefined
}

/** Options of `serve`. */
export interface ServeOptions {
  /** Is called for each notification. What it throws raises `fault`. */
  onNotification?: ((data: Uint8Array, context: { sender: string; realtime: boolean }) => unknown) | undefined
  /** Handlers get params as a `Uint8Array` instead of reading them as MessagePack. Default false. */
  raw?: boolean | undefined
  /** What a handler throws is answered with its text; otherwise the caller sees "internal error". Default false. */
  exposeErrors?: boolean | undefined
  /** Calls that may be at work at once; one more is answered with "busy". Default 4,096. */
  concurrency?: number | undefined
}

/** Options of a client in the broker's process. */
export interface ClientOptions {
  /** False: everything is a message, nothing is read as RPC. Default true. */
  rpc?: boolean | undefined
}

/** Options of `connect`. */
export interface ConnectOptions extends ClientOptions {
  /** The name to register. */
  name: string
  /** How long connecting and logging in may take, in milliseconds. Default 5,000. */
  timeout?: number | undefined
  /** Gives up connecting when it aborts. */
  signal?: AbortSignal | undefined
  /** Time between two pings, in milliseconds. Default 1,000. */
  pingInterval?: number | undefined
  /** The broker is taken for dead when it says nothing for so long, in milliseconds. Default 12,000. */
  silenceLimit?: number | undefined
  /** Most bytes of a frame, either way. Default 64 MiB on UNIX sockets, 16 MiB on TCP. */
  frameBytes?: number | undefined
  /** Bytes that may wait for the socket before `ERR_BUS_OVERFLOW`. Default 16 MiB. */
  queueBytes?: number | undefined
}

/** Bounds of each client's queue at the broker. */
export interface QueueOptions {
  /**
   * Frames. Default 65,536. A client in the process hands over what it sends in a turn at once, up to some 10,000 small
   * messages: a queue shorter than that may be full before `send` returned false, and the event `refused` tells.
   */
  frames?: number | undefined
  /** Bytes. Default 16 MiB. An empty queue takes one frame of any size. */
  bytes?: number | undefined
}

/** Where and how a broker listens: an address alone, or with options. */
export type Listen = string | ListenOptions

/** A listener with its options. */
export interface ListenOptions {
  /** `unix:/path`, `tcp://host:port`, a path, or `host:port`; port 0 takes a free one. */
  url: string
  /** Who may connect here and do what; null: everybody, everything. Default: the broker's map, if it has one. */
  aaa?: AaaMap | null | undefined
  /** Largest frame body accepted, in bytes. Default 64 MiB for UNIX sockets, 16 MiB for TCP. */
  payloadLimit?: number | undefined
  /**
   * Milliseconds. A login may take so long; a ping goes out at half of it; a client that has pinged once and then says
   * nothing for 1.25 times as long is disconnected. Default 5,000.
   */
  timeout?: number | undefined
  /** Permission bits of a UNIX socket. Default 0o600: this user only. */
  mode?: number | undefined
}

/** Options of `Broker.start`. */
export interface BrokerOptions {
  /** One address to listen at from the start, or several. Default none. */
  listen?: Listen | readonly Listen[] | undefined
  /** The access map of listeners that have none of their own. Default none. */
  aaa?: AaaMap | undefined
  /** Threads of the broker, 1 to 64. Default: the smaller of 2 and the number of cores. */
  workers?: number | undefined
  /** Bounds of each client's queue. */
  queue?: QueueOptions | undefined
  /**
   * Bytes that all queues and half-read frames take together, each half of it. Default: the smaller of 256 MiB and a
   * quarter of the memory. Subscriptions may take as much beside it.
   */
  totalBytes?: number | undefined
  /** Subscriptions and exclusions of one client, of 1 KiB each on the average. Default 65,536. */
  subscriptions?: number | undefined
  /** A new client takes a name from its holder instead of being refused. Default false. */
  forceRegister?: boolean | undefined
  /**
   * Installs the client `.broker` with its methods and announcements. Default true. False leaves the name to a client of
   * this process: `broker.client('.broker')`.
   */
  coreRpc?: boolean | undefined
  /** Longest pause of a sender for one stall of a receiver, in milliseconds. Default 10. */
  pause?: number | undefined
  /**
   * How long a socket connection that has just sent something is looked at again and again before its thread rests, in
   * milliseconds, 0 to 10. Default 0: not at all. It takes the time of waking a thread off each answer and keeps `workers`
   * cores busy while somebody sends; with none to spare it makes everything slower.
   */
  busyPoll?: number | undefined
  /** A client that takes nothing for so long is disconnected, in milliseconds. Default 5,000. */
  stallTimeout?: number | undefined
  /** Connections at once. Default: the smaller of 1,024 and 80 % of the descriptor limit. */
  connections?: number | undefined
  /** Connections at once from one address or foreign user. Default 256. */
  connectionsPerPeer?: number | undefined
  /** Logins in progress at once. Default 64. */
  logins?: number | undefined
}

/** Longest time a timer takes, in milliseconds. */
export const LONGEST = 0x7fff_ffff

/** Throws for a field that is none: a misspelt option would be a bound or a right that is not in force. */
export function checkFields(what: string, given: object, known: readonly string[]): void {
  if (given === null || typeof given !== 'object') {
    throw new BusError('ERR_BUS_ARGUMENT', `an object is wanted for ${what}, not ${String(given)}`)
  }
  for (const field of Object.keys(given)) {
    if (known.includes(field)) continue
    throw new BusError('ERR_BUS_ARGUMENT', `${what} has no field ${JSON.stringify(field)}`)
  }
}

/** The fields that are set: Rust takes an absent one for its default. */
export function defined<T extends object>(fields: T): { [Field in keyof T]?: Exclude<T[Field], undefined> } {
  const set = Object.entries(fields).filter(([, value]) => value !== undefined)
  return Object.fromEntries(set) as { [Field in keyof T]?: Exclude<T[Field], undefined> }
}

/** The numbers of {@link ConnectOptions}, checked; `undefined` has its default. */
export function connectLimits(options: ConnectOptions): {
  timeout: number
  pingInterval: number
  silenceLimit: number
  frameBytes: number | undefined
  queueBytes: number
} {
  return {
    timeout: within('timeout', options.timeout, 1, LONGEST) ?? 5_000,
    pingInterval: within('pingInterval', options.pingInterval, 1, LONGEST) ?? 1_000,
    silenceLimit: within('silenceLimit', options.silenceLimit, 1, LONGEST) ?? 12_000,
    frameBytes: integer('frameBytes', options.frameBytes, 64, 0xffff_ffff),
    queueBytes: integer('queueBytes', options.queueBytes, 1, 2 ** 40) ?? 16 << 20,
  }
}

/** A number within its range, or undefined; throws and names it otherwise. */
export function within(
  name: string,
  value: number | undefined,
  least: number,
  most: number,
): number | undefined {
  if (value === undefined) return undefined
  if (typeof value !== 'number' || !(value >= least && value <= most)) {
    throw new BusError(
      'ERR_BUS_ARGUMENT',
      `${name} is a number from ${least} to ${most}, not ${String(value)}`,
    )
  }
  return value
}

/** An integer within its range, or undefined. */
export function integer(
  name: string,
  value: number | undefined,
  least: number,
  most: number,
): number | undefined {
  const number = within(name, value, least, most)
  if (number !== undefined && !Number.isInteger(number)) {
    throw new BusError('ERR_BUS_ARGUMENT', `${name} is an integer, not ${number}`)
  }
  return number
}

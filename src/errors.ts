// Every error of the package and the table of codes. Users test `code`; texts may change.

/** Stable codes of {@link BusError}, each with what it means. */
export type BusErrorCode =
  /** No client of that name is registered (wire code 0x71). */
  | 'ERR_BUS_NOT_REGISTERED'
  /** The broker refused the data of an operation: a reserved name, too many levels or subscriptions (0x72). */
  | 'ERR_BUS_DATA'
  /** Input or output failed (0x73). */
  | 'ERR_BUS_IO'
  /** The broker failed for a reason without a code of its own (0x74). */
  | 'ERR_BUS_OTHER'
  /** The other side does not support this: another protocol or version, or an operation it cannot do (0x75). */
  | 'ERR_BUS_NOT_SUPPORTED'
  /** The name is taken, or the callee has too many calls at work (0x76). */
  | 'ERR_BUS_BUSY'
  /** The receiver's queue is full; the message was not delivered (0x77). */
  | 'ERR_BUS_NOT_DELIVERED'
  /** No answer in time (0x78 where the broker says so). */
  | 'ERR_BUS_TIMEOUT'
  /** Denied by the access map or by a rule of the broker (0x79). */
  | 'ERR_BUS_ACCESS'
  /** The connection ended before the answer came (0xFF where the broker says so). */
  | 'ERR_BUS_DISCONNECTED'
  /** The client or the broker was closed by its owner. */
  | 'ERR_BUS_CLOSED'
  /** The queue is really full: nothing was sent. Wait for `drained()`. */
  | 'ERR_BUS_OVERFLOW'
  /** The payload cannot be sent: too large, not encodable, or it would be read as an RPC frame. */
  | 'ERR_BUS_PAYLOAD'
  /** A name, topic or mask cannot be sent: it holds a NUL, or is too long. */
  | 'ERR_BUS_NAME'
  /** The address is none, or cannot be listened at or connected to. */
  | 'ERR_BUS_ADDRESS'
  /** An argument is not what it has to be. */
  | 'ERR_BUS_ARGUMENT'
  /** The broker sent something else than the protocol. */
  | 'ERR_BUS_PROTOCOL'
  /** The callee answered a call with an error: see {@link RpcError}. */
  | 'ERR_BUS_RPC'
  /** A fault of this package. */
  | 'ERR_BUS_INTERNAL'

/** Options of {@link BusError}. */
export interface BusErrorOptions {
  /** The error behind this one. */
  cause?: unknown
  /** The number on the wire. */
  wireCode?: number | undefined
}

/** Anything that goes wrong on the bus. Test {@link BusError.code}, not the text. */
export class BusError extends Error {
  /** What went wrong, in a form that does not change. */
  readonly code: BusErrorCode
  /** The broker's code on the wire, where it gave one. */
  readonly wireCode: number | undefined

  /** Makes an error of this code. */
  constructor(code: BusErrorCode, message: string, options: BusErrorOptions = {}) {
    super(message, 'cause' in options ? { cause: options.cause } : undefined)
    this.name = 'BusError'
    this.code = code
    this.wireCode = options.wireCode
  }
}

const RPC_TEXTS = new Map([
  [-32700, 'params are not valid'],
  [-32600, 'not a valid request'],
  [-32601, 'method not found'],
  [-32602, 'invalid params'],
  [-32603, 'internal error'],
  [-32001, 'not found'],
])

/**
 * The failure of a call as its handler gave it. Throw one in a handler to answer with a code and data of your own.
 *
 * Codes are JSON-RPC's (-32700 to -32600), -32000 minus a bus code for bus errors, and anything from -32768 to
 * 32767 for your own.
 */
export class RpcError extends BusError {
  /** The code, a 16-bit integer. */
  readonly rpcCode: number
  /**
   * What came with it: text as a string, MessagePack as its value, other bytes as a `Uint8Array`; undefined if
   * nothing did.
   */
  readonly data: unknown

  /** Makes an error to be thrown in a handler; `data` is sent as text if a string, as bytes, or as MessagePack. */
  constructor(rpcCode: number, data?: unknown) {
    if (!Number.isInteger(rpcCode) || rpcCode < -32768 || rpcCode > 32767) {
      throw new BusError('ERR_BUS_ARGUMENT', `RPC code ${String(rpcCode)} is not an integer of 16 bits`)
    }
    const wire = -32000 - rpcCode
    const isBusCode = WIRE_CODES.has(wire)
    const text =
      typeof data === 'string' && data !== '' ? data : (RPC_TEXTS.get(rpcCode) ?? `RPC error ${rpcCode}`)
    super('ERR_BUS_RPC', text, { wireCode: isBusCode ? wire : undefined })
    this.name = 'RpcError'
    this.rpcCode = rpcCode
    this.data = data
  }
}

const WIRE_CODES = new Map<number, [BusErrorCode, string]>([
  [0x71, ['ERR_BUS_NOT_REGISTERED', 'is not registered']],
  [0x72, ['ERR_BUS_DATA', 'has data the broker refuses']],
  [0x73, ['ERR_BUS_IO', 'failed with an input or output error']],
  [0x74, ['ERR_BUS_OTHER', 'failed']],
  [0x75, ['ERR_BUS_NOT_SUPPORTED', 'is not supported']],
  [0x76, ['ERR_BUS_BUSY', 'is busy']],
  [0x77, ['ERR_BUS_NOT_DELIVERED', 'was not delivered: the receiver’s queue is full']],
  [0x78, ['ERR_BUS_TIMEOUT', 'timed out at the broker']],
  [0x79, ['ERR_BUS_ACCESS', 'is denied']],
  [0xff, ['ERR_BUS_DISCONNECTED', 'lost its receiver']],
])

// As `outcome.rs` numbers them.
const NATIVE_CODES = new Map<number, BusErrorCode>([
  [256, 'ERR_BUS_ADDRESS'],
  [257, 'ERR_BUS_CLOSED'],
  [258, 'ERR_BUS_NAME'],
  [259, 'ERR_BUS_ARGUMENT'],
  [260, 'ERR_BUS_INTERNAL'],
])

/** The error of a code the broker answered `what` with. */
export function wireError(wireCode: number, what: string): BusError {
  const [code, text] = WIRE_CODES.get(wireCode) ?? ['ERR_BUS_OTHER' as const, `failed with code ${wireCode}`]
  return new BusError(code, `${what} ${text}`, { wireCode })
}

/** The error of a code of the addon with its own text. */
export function nativeError(code: number, text: string): BusError {
  const own = NATIVE_CODES.get(code)
  if (own !== undefined) return new BusError(own, text)
  return new BusError(WIRE_CODES.get(code)?.[0] ?? 'ERR_BUS_OTHER', text, { wireCode: code })
}

/** Runs a call of the addon; what it throws comes out as a {@link BusError}. */
export function native<T>(call: () => T): T {
  try {
    return call()
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error)
    const cut = text.indexOf('\0')
    if (cut < 0) throw new BusError('ERR_BUS_ARGUMENT', text, { cause: error })
    throw nativeError(Number(text.slice(0, cut)), text.slice(cut + 1))
  }
}

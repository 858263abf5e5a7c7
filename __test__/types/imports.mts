// The same for `import` from an ES module: the types of both conditions are one.
import { AaaMap, Broker, BusError, Client, connect, Message, RpcError } from 'elbus-node'
import * as required from './imports.js'

export const names = { AaaMap, Broker, BusError, Client, connect, Message, RpcError }
export const dial: typeof connect = required.dial as typeof connect
export const fault: (error: RpcError) => BusError = required.fault

// @ts-expect-error there is no default
export { default } from 'elbus-node'

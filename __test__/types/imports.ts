// Every public name can be had with `require` semantics, each class as value and as type.
import { AaaMap, Broker, BusError, Client, connect, Message, RpcError } from 'elbus-node'

export const classes: readonly (abstract new (...values: never[]) => unknown)[] = [AaaMap, BusError, RpcError]
export const unconstructed = [Broker, Client, Message]
export const dial: (...values: never[]) => Promise<Client> = connect
export const fault = (error: RpcError): BusError & Error => error

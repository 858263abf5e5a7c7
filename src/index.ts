// Everything that is public.

export { type AaaEntry, AaaMap, type Rule } from './aaa'
export {
  Broker,
  type BrokerEvents,
  type BrokerInfo,
  type BrokerStats,
  type ClientEvent,
  type ClientInfo,
  type DeniedEvent,
  type FaultEvent,
  type SlowEvent,
  type Traffic,
} from './broker'
export { Client, type ClientEvents } from './client'
export { connect } from './connect'
export { BusError, type BusErrorCode, type BusErrorOptions, RpcError } from './errors'
export { Message, type MessageKind } from './message'
export type {
  AckOptions,
  BrokerOptions,
  CallOptions,
  ClientOptions,
  ConnectOptions,
  ForOption,
  Listen,
  ListenOptions,
  Overflow,
  QueueOptions,
  RawOption,
  SendOptions,
  ServeOptions,
  SubscribeOptions,
} from './options'
export type { Payload } from './payload'
export type { CallContext, Handler, RpcServer } from './rpc-server'
export type { Subscription } from './subscription'
export type { WaitOptions } from './waiting'

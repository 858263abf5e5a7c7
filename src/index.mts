// The public list for `import`: the classes of index.js, so that each exists once however the package is loaded.
// Names one by one: since Node 23 `export *` of a CommonJS module would add the name 'module.exports'.

export type * from './index.js'
export { AaaMap, Broker, BusError, Client, connect, Message, RpcError } from './index.js'

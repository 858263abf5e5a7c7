// Our broker, embedded in a process that does nothing else.
import { Broker } from 'elbus-node'
import { leave, settings, tell } from './stage.mjs'

const broker = await Broker.start()
const addresses = []
for (const address of settings.listen) addresses.push(await broker.listen(address))
tell('ready', addresses)
await leave(() => broker.close({ drain: 0 }))

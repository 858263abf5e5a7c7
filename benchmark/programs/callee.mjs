// Answers calls with what they bring.
import { open } from '../peers/open.mjs'
import { leave, settings, tell } from './stage.mjs'

const client = await open(settings.peer, settings.address, 'callee', settings)
await client.ready?.()
await client.serve()
tell('ready', process.pid)
await leave(() => client.close())

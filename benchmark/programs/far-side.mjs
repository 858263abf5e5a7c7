// A broker or hub of the peers in a process that does nothing else.
import { settings, tell } from './stage.mjs'

const { listen } = await import(`../peers/${settings.module}`)
await listen(...settings.listen)
tell('ready')

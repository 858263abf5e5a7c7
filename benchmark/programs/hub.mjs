// The hand-written hub in a process of its own.
import { listen } from '../peers/hub.mjs'
import { settings, tell } from './stage.mjs'

await listen(...settings.listen)
tell('ready')

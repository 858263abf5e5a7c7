// Run by electron-app.ts in a utility process, and as the preload script of a page: a client of the main process's broker.

import { connect } from 'elbus-node'

/** An argument; Electron puts others around those it is given. */
function argument(name: string): string {
  const prefix = `--elbus-${name}=`
  return (process.argv.find((one) => one.startsWith(prefix)) ?? prefix).slice(prefix.length)
}

async function main(): Promise<void> {
  const name = argument('name')
  const client = await connect(argument('socket'), { name })
  client.serve({ echo: (params: unknown) => params })
  let sum = 0
  for (const size of [100, 64 << 10, 1 << 20]) {
    const bytes = await client.call<Uint8Array>('main', 'bytes', size, { raw: true })
    if (bytes.every((byte) => byte === 7)) sum += bytes.length
  }
  await client.call('main', 'hello', { type: name, bytes: sum })
}

main().catch((error: unknown) => console.error(error))

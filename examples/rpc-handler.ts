// Answers calls and takes notifications.
//
//   node dist-examples/rpc-handler.js ADDRESS        until Ctrl-C; to be seen with rpc-caller.js

import { connect, RpcError } from 'elbus-node'

const INVALID_PARAMS = -32602

async function main([address = '/tmp/bus.sock']: readonly string[]): Promise<void> {
  const client = await connect(address, { name: 'example.rpc' })
  let total = 0
  client.serve(
    {
      get: () => ({ total }),
      add(params?: { value?: unknown }) {
        if (typeof params?.value !== 'number') throw new RpcError(INVALID_PARAMS, 'value is a number')
        total += params.value
        return { total }
      },
      // Long work watches for a caller that does not wait any more.
      async slow(_params: unknown, { sender, signal }) {
        await new Promise<void>((resolve) => {
          const timer = setTimeout(resolve, 60_000)
          signal.addEventListener('abort', () => {
            clearTimeout(timer)
            console.log(`${sender} gave up slow: ${signal.reason.code}`)
            resolve()
          })
        })
      },
    },
    {
      onNotification: (data, { sender }) => console.log(`notification from ${sender}: ${Buffer.from(data)}`),
    },
  )
  console.log(`${client.name} is serving`)
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => void client.close())
}

void main(process.argv.slice(2))

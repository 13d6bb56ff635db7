// One listener on several addresses: prints on which of them each connection came in, and greets it.
//
//   npx tsx examples/several-addresses.ts 10.0.0.1:9191 10.0.0.2:9191 '[fd00::1]:9292'
//
// All addresses are opened, or none: when one fails, the others are closed again. Needs CAP_NET_RAW (root has it). Stop it with Ctrl-C.
import { listeners } from 'faketcp'
import { aborted, formatAddress, run, UsageError } from './command-line.ts'

const USAGE = `usage: npx tsx examples/several-addresses.ts <address> [<address> ...]
  <address>   where to listen: 10.0.0.1:9191, [fd00::1]:9191`

async function main(addresses: string[], signal: AbortSignal): Promise<void> {
  if (addresses.length === 0) throw new UsageError('Expected at least one address to listen on')

  const server = await listeners(addresses, { signal })
  server.on('connection', (conn) => {
    // A connection knows the very address that its peer dialled, also when the listener's address is 0.0.0.0 or ::.
    const local = formatAddress(conn.localAddress, conn.localPort)
    const remote = formatAddress(conn.remoteAddress, conn.remotePort)
    console.log(`${local} <- ${remote} (${conn.family})`)
    conn.on('error', (error) => console.log(`${local} <- ${remote} failed: ${error.message}`))
    conn.on('data', (message) => conn.write(`${local} got ${message.length} bytes`))
    conn.write(`you are ${remote}, you dialled ${local}`)
  })
  for (const { address, port } of server.addresses()) console.log(`Listening on ${formatAddress(address, port)}`)

  await aborted(signal)
  await server.close({ connections: true })
}

await run(USAGE, main)

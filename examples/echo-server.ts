// Echo server: sends every message back as it came.
//
//   npx tsx examples/echo-server.ts 0.0.0.0:9191
//
// Needs CAP_NET_RAW (root has it). Stop it with Ctrl-C.
import { type FakeTcpConn, listen } from 'faketcp'
import { aborted, formatAddress, run, UsageError } from './command-line.ts'

const USAGE = `usage: npx tsx examples/echo-server.ts <address>
  <address>   where to listen: 0.0.0.0:9191, [::]:9191 (both families), or a port alone`

async function main(args: string[], signal: AbortSignal): Promise<void> {
  const [address] = args
  if (address === undefined || args.length > 1) throw new UsageError('Expected one address to listen on')

  const server = await listen(address, { signal })
  server.on('connection', echo)
  // A client that could not be served, because of `maxConnections` for example. Without this listener it would go unseen.
  server.on('drop', ({ remoteAddress, remotePort, reason }) =>
    console.log(`${formatAddress(remoteAddress, remotePort)} refused: ${reason}`),
  )
  for (const { address, port } of server.addresses()) console.log(`Listening on ${formatAddress(address, port)}`)

  await aborted(signal)
  // Closing a listener leaves its connections open, unless told otherwise. These are told goodbye (a FIN each).
  await server.close({ connections: true })
}

function echo(conn: FakeTcpConn): void {
  const peer = formatAddress(conn.remoteAddress, conn.remotePort)
  console.log(`${peer} connected`)
  // pipe() would be one way to echo. It waits when the client does not read; an echo of datagrams had better lose some than fall behind.
  conn.on('data', (message) => conn.write(message))
  // A connection ends with an error when the peer resets it, or falls silent for `idleTimeoutMs`.
  conn.on('error', (error) => console.log(`${peer} failed: ${error.message}`))
  conn.on('close', () => {
    const { messagesIn, messagesOut, droppedIn } = conn.stats
    console.log(`${peer} closed: ${messagesIn} messages in, ${messagesOut} out, ${droppedIn} dropped`)
  })
}

await run(USAGE, main)

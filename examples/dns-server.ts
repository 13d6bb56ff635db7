// An existing message protocol, unchanged, over fake TCP: a DNS server. Each message is one DNS packet as it would lie in a UDP datagram
// (RFC 1035, 4.2.1); the `dns-packet` codec makes and reads them. dns-client.ts asks.
//
//   npx tsx examples/dns-server.ts 0.0.0.0:5353
//
// Needs CAP_NET_RAW (root has it). Stop it with Ctrl-C.
import { type Answer, AUTHORITATIVE_ANSWER, decode, encode, type Packet, type Question, TRUNCATED_RESPONSE } from 'dns-packet'
import { listen } from 'faketcp'
import { aborted, formatAddress, run, UsageError } from './command-line.ts'

const USAGE = `usage: npx tsx examples/dns-server.ts <address>
  <address>   where to listen: 0.0.0.0:5353, [::]:5353 (both families), or a port alone`

/** The zone: all that this server knows. Names are in lower case, without the dot at the end. */
const ZONE: readonly Answer[] = [
  { name: 'example.test', type: 'A', ttl: 300, data: '192.0.2.1' },
  { name: 'example.test', type: 'A', ttl: 300, data: '192.0.2.2' },
  { name: 'example.test', type: 'AAAA', ttl: 300, data: '2001:db8::1' },
  { name: 'example.test', type: 'TXT', ttl: 60, data: 'carried by segments that look like TCP' },
  { name: 'mail.example.test', type: 'A', ttl: 300, data: '192.0.2.25' },
  { name: 'mail.example.test', type: 'AAAA', ttl: 300, data: '2001:db8::25' },
]

/** Response codes of RFC 1035, 4.1.1, as the low four bits of the flags. */
const [NOERROR, FORMERR, NXDOMAIN] = [0, 1, 3]

async function main(args: string[], signal: AbortSignal): Promise<void> {
  const [address] = args
  if (address === undefined || args.length > 1) throw new UsageError('Expected one address to listen on')

  const server = await listen(address, { signal })
  server.on('connection', (conn) => {
    const peer = formatAddress(conn.remoteAddress, conn.remotePort)
    conn.on('error', (error) => console.log(`${peer} failed: ${error.message}`))
    // One message in, one message out: nothing to put together, nothing to cut apart.
    conn.on('data', (message) => {
      const response = respond(message, conn.maxMessageSize)
      if (response !== undefined) conn.write(response)
    })
  })
  for (const { address, port } of server.addresses()) console.log(`Listening on ${formatAddress(address, port)}`)

  await aborted(signal)
  await server.close({ connections: true })
}

/** The response to a query; undefined for what is not a query. */
function respond(message: Buffer, maxSize: number): Buffer | undefined {
  let query: Packet
  try {
    query = decode(message)
  } catch {
    return undefined
  }
  if (query.type !== 'query') return undefined
  const questions = query.questions ?? []
  const [question] = questions
  const { code, answers } = questions.length === 1 ? lookUp(question) : { code: FORMERR, answers: [] }
  const response: Packet = { id: query.id, type: 'response', flags: AUTHORITATIVE_ANSWER | code, questions, answers }
  const encoded = encode(response)
  console.log(`${question?.type ?? '-'} ${question?.name ?? '-'}: ${code === NXDOMAIN ? 'NXDOMAIN' : `${answers.length} records`}`)
  if (encoded.length <= maxSize) return encoded
  // As over UDP: what does not fit one message is marked as cut.
  return encode({ ...response, flags: AUTHORITATIVE_ANSWER | TRUNCATED_RESPONSE | code, answers: [] })
}

function lookUp({ name, type }: Question): { code: number; answers: Answer[] } {
  const records = ZONE.filter((record) => record.name === name.toLowerCase())
  return { code: records.length === 0 ? NXDOMAIN : NOERROR, answers: records.filter((record) => record.type === type) }
}

await run(USAGE, main)

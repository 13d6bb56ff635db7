// Asks dns-server.ts: DNS queries as messages over one fake TCP connection, several at a time.
//
//   npx tsx examples/dns-client.ts 10.0.0.1:5353 example.test
//   npx tsx examples/dns-client.ts 10.0.0.1:5353 example.test AAAA
//
// Needs CAP_NET_RAW (root has it).
import { decode, encode, type Packet, RECURSION_DESIRED, type StringAnswer, type TxtAnswer } from 'dns-packet'
import { dial, type FakeTcpConn } from 'faketcp'
import { run, UsageError } from './command-line.ts'

const USAGE = `usage: npx tsx examples/dns-client.ts <address> <name> [A|AAAA|TXT]
  <address>   of dns-server.ts: 192.0.2.1:5353, [2001:db8::1]:5353
  <name>      example.test, for example
  A|AAAA|TXT  the type of record to ask for; all three, at the same time, unless told`

const TYPES = ['A', 'AAAA', 'TXT'] as const
type RecordType = (typeof TYPES)[number]

/** A message or its answer can be lost on the way, so a query is repeated, as over UDP. */
const TRY_MS = 1000
const TRIES = 3

async function main(args: string[], signal: AbortSignal): Promise<void> {
  const [address, name, type] = args
  if (address === undefined || name === undefined || args.length > 3) throw new UsageError('Expected an address and a name')
  const asked = type === undefined ? TYPES : TYPES.filter((one) => one === type.toUpperCase())
  if (asked.length === 0) throw new UsageError(`Expected the type A, AAAA or TXT; got '${type}'`)

  const conn = await dial(address, { signal })
  try {
    const resolver = new Resolver(conn)
    const responses = await Promise.all(asked.map((one) => resolver.query(name, one, signal)))
    for (const [i, response] of responses.entries()) print(name, asked[i], response)
  } finally {
    await conn.close()
  }
}

/** Puts queries on a connection and finds for each response the query that it belongs to, by its id. */
class Resolver {
  readonly #conn: FakeTcpConn
  readonly #pending = new Map<number, { resolve: (response: Packet) => void; reject: (error: Error) => void }>()
  #nextId = Math.floor(Math.random() * 0x10000)

  constructor(conn: FakeTcpConn) {
    this.#conn = conn
    conn.on('data', (message) => this.#receive(message))
    conn.on('error', (error) => this.#fail(error))
    conn.on('close', () => this.#fail(new Error('The server has closed the connection')))
  }

  async query(name: string, type: RecordType, signal: AbortSignal): Promise<Packet> {
    const id = this.#nextId
    this.#nextId = (id + 1) & 0xffff
    const message = encode({ id, type: 'query', flags: RECURSION_DESIRED, questions: [{ name, type }] })
    return new Promise<Packet>((resolve, reject) => {
      let tries = 0
      const send = (): void => {
        if (tries++ < TRIES) this.#conn.write(message)
        else this.#pending.get(id)?.reject(new Error(`No answer to ${type} ${name} after ${TRIES} tries`))
      }
      const timer = setInterval(send, TRY_MS)
      const onAbort = (): void => this.#pending.get(id)?.reject(signal.reason)
      const settle =
        <T>(by: (value: T) => void) =>
        (value: T): void => {
          clearInterval(timer)
          signal.removeEventListener('abort', onAbort)
          this.#pending.delete(id)
          by(value)
        }
      this.#pending.set(id, { resolve: settle(resolve), reject: settle(reject) })
      signal.addEventListener('abort', onAbort, { once: true })
      send()
    })
  }

  #receive(message: Buffer): void {
    let response: Packet
    try {
      response = decode(message)
    } catch {
      return // Not DNS: nobody waits for it.
    }
    // A second answer to a repeated query finds nobody waiting either.
    if (response.type === 'response' && response.id !== undefined) this.#pending.get(response.id)?.resolve(response)
  }

  #fail(error: Error): void {
    for (const { reject } of this.#pending.values()) reject(error)
  }
}

function print(name: string, type: RecordType, response: Packet): void {
  const code = (response.flags ?? 0) & 15
  const records = (response.answers ?? []) as (StringAnswer | TxtAnswer)[]
  if (code === 3) console.log(`${name} ${type}: NXDOMAIN (there is no such name)`)
  else if (code !== 0) console.log(`${name} ${type}: refused with code ${code}`)
  else if (records.length === 0) console.log(`${name} ${type}: no record of this type`)
  for (const { name, type, ttl, data } of records) console.log(`${name} ${ttl} ${type} ${type === 'TXT' ? quote(data) : data}`)
}

/** TXT data is a list of byte strings. */
function quote(data: TxtAnswer['data']): string {
  return [data]
    .flat()
    .map((one) => JSON.stringify(one.toString()))
    .join(' ')
}

await run(USAGE, main)

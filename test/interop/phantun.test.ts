// Clients that speak as Phantun does (see phantun.py) reach our listener: SYN with sequence number 0 and no MSS, data without PSH, no options.
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'
import type { Agent } from '../support/agent.ts'
import { capture } from '../support/capture.ts'
import { type Host, twoHosts } from '../support/hosts.ts'

const PROGRAM = fileURLToPath(new URL('phantun.py', import.meta.url))
const PORT = 9000
/** Phantun's own address, which no kernel has. */
const ADDRESS = '10.77.0.9'
/** 1 500 bytes of MTU less IP and TCP headers without options. */
const LONGEST = 1460

it('echoes messages of every size', async () => {
  await using hosts = await twoHosts()
  const { ask } = await connected(hosts.a, hosts.b)
  const sizes = Array.from({ length: 1000 }, (_, i) => 1 + ((i * 611) % LONGEST))
  expect(await ask('echo', 1, 2, 3, 4, LONGEST, ...sizes)).toBe('echoed 1005')
})

it('keeps the boundaries of messages that the kernel has merged', async () => {
  await using hosts = await twoHosts({ offloads: { tso: false, gro: true } })
  // veth merges only what comes from an end without TSO (veth_skb_is_eligible_for_gro). It keeps what has arrived for 5 ms, so that what a slow sender sends one by one is merged too.
  await hosts.b.output('sh', ['-c', `echo 5000000 > /sys/class/net/${hosts.b.iface}/gro_flush_timeout`])
  await using recording = await capture(hosts.b, { filter: `tcp dst port ${PORT}`, snapLength: 96 })
  const { ask } = await connected(hosts.a, hosts.b)
  expect(await ask('burst', 500, 500)).toBe('echoed 500')
  await recording.stop()
  const lengths = (await recording.segments({ display: 'tcp.len > 0' })).map(({ len }) => len)
  expect(lengths.reduce((sum, len) => sum + len)).toBe(500 * 500)
  expect(Math.max(...lengths)).toBeGreaterThan(500)
})

it('sends single segments with PSH and without options, and the kernel says nothing', async () => {
  await using hosts = await twoHosts({ offloads: false })
  await using recording = await capture(hosts.b, { filter: `tcp port ${PORT}` })
  const { ask } = await connected(hosts.a, hosts.b)
  expect(await ask('burst', 100, 500)).toBe('echoed 100')
  await recording.stop()
  const [syn, synAck, ack, ...segments] = await recording.segments()
  expect([syn, synAck, ack]).toMatchObject([
    { flags: 'S', seq: 0 },
    { flags: 'SA', ack: 1 },
    { flags: 'A', seq: 1 },
  ])
  const ours = segments.filter(({ srcport }) => srcport === PORT)
  expect(ours.filter(({ len }) => len > 0).map(({ flags, len }) => [flags, len])).toEqual(new Array(100).fill(['PA', 500]))
  expect(ours.filter(({ len, flags }) => len === 0 && flags !== 'A')).toEqual([])
  expect(ours.filter(({ options, tcpChecksum, malformed }) => options !== '' || tcpChecksum !== 'good' || malformed)).toEqual([])
})

it("ends with the client's reset", async () => {
  await using hosts = await twoHosts()
  const { ask, server } = await connected(hosts.a, hosts.b)
  expect(await ask('echo', 100)).toBe('echoed 1')
  expect(await ask('reset')).toBe('done')
  expect(await server.next('end')).toBe('ECONNRESET')
})

it('resets the client when the connection is destroyed', async () => {
  await using hosts = await twoHosts()
  const { ask, server } = await connected(hosts.a, hosts.b)
  expect(await ask('echo', 100)).toBe('echoed 1')
  await server.run((ctx) => {
    ctx.state.conn.destroy()
  })
  expect(await ask('await-reset')).toBe('reset')
})

/** An echo server at b, and a client beyond a that is connected to it. */
async function connected(a: Host, b: Host): Promise<{ ask: (...words: (string | number)[]) => Promise<string>; server: Agent }> {
  const server = await b.agent()
  await server.run(async (ctx, port) => {
    const listener = await ctx.faketcp.listen(`0.0.0.0:${port}`)
    listener.on('connection', (conn) => {
      ctx.state.conn = conn
      conn.on('data', (message: Buffer) => conn.write(message))
      conn.on('drop', (drop) => console.error('dropped', drop))
      conn.on('error', (error: NodeJS.ErrnoException) => ctx.emit('end', error.code))
    })
  }, PORT)
  // Nobody answers ARP for the client.
  await b.output('ip', ['neighbour', 'add', ADDRESS, 'lladdr', a.mac, 'dev', b.iface])
  const args = [PROGRAM, a.iface, a.mac, b.mac, ADDRESS, b.address4, '40000', String(PORT)]
  const client = a.spawn('python3', args, { stdio: ['pipe', 'pipe', 'inherit'] })
  const lines = createInterface({ input: client.stdout! })[Symbol.asyncIterator]()
  const answer = async () => (await lines.next()).value ?? (await failure(client))
  const ask = (...words: (string | number)[]) => {
    client.stdin!.write(`${words.join(' ')}\n`)
    return answer()
  }
  expect(await answer()).toBe('ready')
  expect(await ask('connect')).toBe('connected')
  return { ask, server }
}

async function failure(client: ChildProcess): Promise<never> {
  if (client.exitCode === null) await once(client, 'exit')
  throw new Error(`The client ended with ${client.exitCode}`)
}

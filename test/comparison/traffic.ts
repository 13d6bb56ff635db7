// The same conversation twice, over a TCP connection of two kernels (node:net) and over one of ours, each recorded between two hosts by tcpdump.
import type { Duplex } from 'node:stream'
import type { AgentContext } from '../support/agent.ts'
import { capture, fields } from '../support/capture.ts'
import { twoHosts } from '../support/hosts.ts'
import { COLUMNS, type Packet, readPacket, repairs } from './packets.ts'

export type Family = 4 | 6
export type Kind = 'kernel' | 'ours'

const PORT = 9191

/** What the dialler says: messages that are echoed one by one, then bursts, each of which is answered when all of it has come. */
export const CONVERSATION = { echoes: 20, echoBytes: 200, pauseMs: 20, bursts: 20, burst: 40, burstBytes: 1000 } as const
/** Segments that the scheduler makes overtake each other, or a queue drops, have two kernels do what they otherwise would not; on a busy host most recordings have some. */
const ATTEMPTS = 10

interface Job {
  readonly kind: Kind
  readonly host: string
  readonly port: number
  readonly talk: typeof CONVERSATION
}

/** Every packet of one connection over which nothing was lost or overtaken, as far as two kernels say so. */
export async function recordedConversation(family: Family, kind: Kind): Promise<Packet[]> {
  for (let attempt = 1; ; attempt++) {
    const packets = await recorded(family, kind)
    if (attempt === ATTEMPTS || kind === 'ours' || !packets.some(repairs)) return packets
  }
}

/** The hosts have no offloads, so each packet is one segment with its own checksum. */
async function recorded(family: Family, kind: Kind): Promise<Packet[]> {
  await using hosts = await twoHosts({ offloads: false })
  const [server, client] = [await hosts.b.agent(), await hosts.a.agent()]
  const job: Job = { kind, host: family === 4 ? hosts.b.address4 : hosts.b.address6, port: PORT, talk: CONVERSATION }
  await server.run(listen, job)
  await using recording = await capture(hosts.b, { filter: `tcp port ${PORT}` })
  await client.run(converse, job)
  await server.next('ended')
  await recording.stop()
  const rows = await fields(recording.file, COLUMNS, 'tcp')
  return rows.map((row) => readPacket(row, PORT))
}

/** Echoes as much as is to be echoed; of the rest it answers the end. Each 'data' is a message, or what a kernel has made of some. */
async function listen(ctx: AgentContext, { kind, host, port, talk }: Job): Promise<void> {
  const echoed = talk.echoes * talk.echoBytes
  const burst = talk.burst * talk.burstBytes
  const serve = (conn: Duplex) => {
    let heard = 0
    conn.on('data', (bytes: Buffer) => {
      heard += bytes.length
      if (heard <= echoed) conn.write(bytes)
      else if ((heard - echoed) % burst === 0) conn.write(Buffer.alloc(talk.echoBytes))
    })
    conn.on('close', () => ctx.emit('ended'))
  }
  if (kind === 'ours') {
    const listener = await ctx.faketcp.listen({ host, port })
    listener.on('connection', serve)
    ctx.state.listener = listener
    return
  }
  const net = await ctx.import<typeof import('node:net')>('node:net')
  const listener = net.createServer(serve)
  ctx.state.listener = listener
  await new Promise<void>((resolve) => listener.listen(port, host, resolve))
}

async function converse(ctx: AgentContext, { kind, host, port, talk }: Job): Promise<void> {
  const { setTimeout: delay } = await ctx.import<typeof import('node:timers/promises')>('node:timers/promises')
  const { once } = await ctx.import<typeof import('node:events')>('node:events')
  const dialKernel = async () => {
    const net = await ctx.import<typeof import('node:net')>('node:net')
    const socket = net.connect(port, host)
    await once(socket, 'connect')
    return socket
  }
  const conn: Duplex = kind === 'ours' ? await ctx.faketcp.dial({ host, port }) : await dialKernel()
  for (let i = 0; i < talk.echoes; i++) {
    const answer = once(conn, 'data')
    conn.write(Buffer.alloc(talk.echoBytes, i))
    await answer
    // For the clocks: a conversation of a millisecond says nothing about them.
    await delay(talk.pauseMs)
  }
  for (let i = 0; i < talk.bursts; i++) {
    const answer = once(conn, 'data')
    for (let j = 0; j < talk.burst; j++) conn.write(Buffer.alloc(talk.burstBytes, j))
    await answer
  }
  conn.end()
  conn.resume()
  await once(conn, 'close')
}

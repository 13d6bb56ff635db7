// What the flow looks like to others on the wire. tcpdump records on the server's end of a link without offloads, so that every segment is seen
// as it crossed, with its own checksum.
import { expect, it } from 'vitest'
import { type Capture, capture, fields, type Segment } from '../support/capture.ts'
import { type Host, twoHosts } from '../support/hosts.ts'
import { echo } from './echo-job.ts'
import { Peer } from './peer.ts'

const PORT = 9191
const MESSAGES = 3000

/** Serial arithmetic (RFC 1982): how far `a` is ahead of `b`. */
const ahead = (a: number, b: number) => (a - b) | 0

const fromClient = (segment: Segment) => segment.dstport === PORT

/** A hello has 19 to 255 bytes. */
const isHelloOrEmpty = ({ len }: Segment) => len <= 255

/** What the host's kernel has sent by TCP; raw and packet sockets do not count here. */
async function kernelSent(host: Host) {
  const text = await host.output('cat', ['/proc/net/snmp'])
  const [names, values] = text
    .split('\n')
    .filter((line) => line.startsWith('Tcp:'))
    .map((line) => line.split(' '))
  const of = (name: string) => Number(values[names.indexOf(name)])
  return { segments: of('OutSegs'), resets: of('OutRsts'), retransmitted: of('RetransSegs') }
}

/** An echo of a few thousand messages with both sides writing, and its close, recorded until the last carrier is gone. */
async function recordedEcho(family: 4 | 6, mode: 'packet' | 'raw') {
  const hosts = await twoHosts({ offloads: false })
  const [server, client] = [await Peer.on(hosts.b), await Peer.on(hosts.a)]
  const host = family === 4 ? hosts.b.address4 : hosts.b.address6
  await server.listen({ host, port: PORT, capture: mode, echo: true })
  const recording: Capture = await capture(hosts.b, { filter: `tcp port ${PORT}` })
  const { id } = await client.dial({ host, port: PORT, capture: mode })
  await server.next('connection')
  const result = await echo(client, { id, messages: MESSAGES, seed: 3 })
  expect(result).toMatchObject({ intact: MESSAGES, lost: 0 })
  // Both write, neither answers.
  await Promise.all([client.write(id, ...texts('from the client')), server.write(0, ...texts('from the server'))])
  const kernel = { client: await kernelSent(hosts.a), server: await kernelSent(hosts.b) }
  await client.close(id)
  expect(await server.next('closed')).toEqual({ id: 0, code: undefined })
  await expect.poll(() => client.flows(), { timeout: 10_000 }).toBe(0)
  await expect.poll(() => server.flows(), { timeout: 10_000 }).toBe(0)
  const counts = await recording.stop()
  const segments = await recording.segments()
  return {
    counts,
    segments,
    file: recording.file,
    kernel,
    [Symbol.asyncDispose]: async () => {
      await recording[Symbol.asyncDispose]()
      await hosts[Symbol.asyncDispose]()
    },
  }
}

async function scaleOf(file: string, frame: number): Promise<number> {
  const [row] = await fields(file, ['tcp.options.wscale.shift'], `frame.number == ${frame}`)
  return Number(row.get('tcp.options.wscale.shift'))
}

function texts(text: string): string[] {
  return Array.from({ length: 50 }, (_, i) => `${text} ${i} `.repeat(1 + (i % 20)))
}

/**
 * What tshark's analyser may find in a healthy flow, and why. Its model is a TCP that buffers and acknowledges in order.
 */
const EXPLAINED: ReadonlyMap<string, string> = new Map([
  ['window_update', 'a segment without payload that acknowledges nothing new advertises a window that has grown meanwhile'],
])

it.each([
  [4, 'packet'],
  [6, 'packet'],
  [4, 'raw'],
  [6, 'raw'],
] as const)(
  'shows one healthy TCP connection over IPv%s, captured by %s',
  async (family, mode) => {
    await using recorded = await recordedEcho(family, mode)
    const { counts, segments, kernel } = recorded
    expect(counts.droppedByKernel).toBe(0)
    expect(segments.length).toBeGreaterThan(2 * MESSAGES)

    // No bad checksum, no malformed option, no reset.
    expect(segments.filter(({ tcpChecksum }) => tcpChecksum !== 'good')).toEqual([])
    expect(segments.filter(({ ipChecksum }) => ipChecksum !== (family === 4 ? 'good' : 'absent'))).toEqual([])
    expect(segments.filter(({ malformed }) => malformed)).toEqual([])
    expect(segments.filter(({ flags }) => flags.includes('R'))).toEqual([])

    // The handshake is the kernel's: SYN, SYN-ACK, ACK, once each.
    const [syn, synAck, third] = segments
    expect(segments.filter(({ flags }) => flags.includes('S')).map(({ flags }) => flags)).toEqual(['S', 'SA'])
    expect([syn.flags, synAck.flags, third.flags]).toEqual(['S', 'SA', 'A'])
    expect(third).toMatchObject({ len: 0, seq: (syn.seq + 1) >>> 0, ack: (synAck.seq + 1) >>> 0 })

    // And nothing else is, by the kernels' own count.
    expect(kernel.client).toEqual({ segments: 2, resets: 0, retransmitted: 0 })
    expect(kernel.server).toEqual({ segments: 1, resets: 0, retransmitted: 0 })
    const ours = segments.slice(3)
    // The window goes on from the handshake's (a SYN-ACK's is not scaled) and grows with what arrives, by no more than twice that.
    for (const client of [true, false]) {
      const from = client ? third.window : synAck.window >> (await scaleOf(recorded.file, synAck.frame))
      const windows = [from, ...ours.filter((segment) => fromClient(segment) === client).map(({ window }) => window)]
      expect(windows[1]).toBeLessThan(from + 10)
      expect(windows.at(-1)).toBeGreaterThan(2 * from)
      expect(windows.filter((window, i) => i > 0 && window < windows[i - 1])).toEqual([])
    }

    // The close: FIN, ACK, FIN, ACK.
    expect(segments.slice(-4).map((segment) => [fromClient(segment), segment.flags])).toEqual([
      [true, 'FA'],
      [false, 'A'],
      [false, 'FA'],
      [true, 'A'],
    ])
    expect(segments.filter(({ flags }) => flags.includes('F'))).toHaveLength(2)

    for (const client of [true, false]) {
      const own = segments.filter((segment) => fromClient(segment) === client)
      // Timestamps run forward.
      expect(own.filter((segment, i) => i > 0 && ahead(segment.tsval!, own[i - 1].tsval!) < 0)).toEqual([])
      // Each segment starts where all before it ended. Only the dialler's hello, and the third ACK with it, come again until they are answered.
      let next = own[0].seq
      const first = (own[0].seq + 1) >>> 0
      const gaps = own.filter((segment) => {
        const end = (segment.seq + segment.len + (/[SF]/.test(segment.flags) ? 1 : 0)) >>> 0
        const continues = segment.seq === next || (client && segment.seq === first && isHelloOrEmpty(segment))
        if (ahead(end, next) > 0) next = end
        return !continues
      })
      expect(gaps.map(({ frame, flags, seq, len }) => ({ frame, flags, len, behindSyn: ahead(seq, own[0].seq) }))).toEqual([])
      const acking = own.filter(({ flags }) => flags.includes('A'))
      expect(acking.filter((segment, i) => i > 0 && ahead(segment.ack, acking[i - 1].ack) < 0)).toEqual([])
    }

    // Every segment echoes a timestamp that the other side has sent, and never an older one than before.
    const sentBy = { client: new Set<number>(), server: new Set<number>() }
    const echoed = { client: undefined as number | undefined, server: undefined as number | undefined }
    const wrongEchoes = segments.slice(1).filter((segment, i) => {
      const before = segments[i]
      ;(fromClient(before) ? sentBy.client : sentBy.server).add(before.tsval!)
      const [own, other] = fromClient(segment) ? (['client', 'server'] as const) : (['server', 'client'] as const)
      const last = echoed[own]
      echoed[own] = segment.tsecr
      return !sentBy[other].has(segment.tsecr!) || (last !== undefined && ahead(segment.tsecr!, last) < 0)
    })
    expect(wrongEchoes).toEqual([])

    // A hello that is repeated before its answer comes (a slow machine) is rightly called a retransmission.
    const hello = (segment: Segment) => fromClient(segment) && segment.seq === (syn.seq + 1) >>> 0
    const found = new Set(segments.filter((segment) => !hello(segment)).flatMap(({ analysis }) => analysis))
    expect([...found].filter((finding) => !EXPLAINED.has(finding))).toEqual([])
  },
  60_000,
)

it.each([4, 6] as const)('holds back after 64 KB until the first acknowledgement, and uses no number twice (IPv%s)', async (family) => {
  await using hosts = await twoHosts({ offloads: false })
  const [server, client] = [await Peer.on(hosts.b), await Peer.on(hosts.a)]
  const host = family === 4 ? hosts.b.address4 : hosts.b.address6
  await server.listen({ host, port: PORT })
  await using recording = await capture(hosts.b, { filter: `tcp port ${PORT}` })
  const busy = server.agent.run(() => {
    for (const end = performance.now() + 600; performance.now() < end; );
  })
  await client.agent.run(
    async (ctx, options) => {
      const conn = await ctx.faketcp.dial(options)
      for (let i = 0; i < 300; i++) conn.write(Buffer.alloc(500, 'x'))
      ctx.state.conns.push(conn)
    },
    { host, port: PORT },
  )
  await busy
  for (let i = 0; i < 300; i++) await server.next('message')
  expect((await client.stats(0)).setBacks).toBe(0)
  await recording.stop()

  const segments = await recording.segments()
  const answered = segments.findIndex((segment) => !fromClient(segment) && !segment.flags.includes('S'))
  const early = segments.slice(0, answered).filter((segment) => fromClient(segment) && segment.len === 500)
  expect(early.length).toBeGreaterThan(100)
  expect(early.length * 500).toBeLessThanOrEqual(65_536)
  const data = segments.filter(({ len }) => len === 500)
  expect(data.filter((segment, i) => i > 0 && ahead(segment.seq, data[i - 1].seq) !== 500)).toEqual([])
})

/** Flags of one side's segments that carry `size` bytes. */
const ofSize = (segments: readonly Segment[], size: number, client: boolean) =>
  segments.filter((segment) => segment.len === size && fromClient(segment) === client).map(({ flags }) => flags)

it.each(['packet', 'raw'] as const)('sets PSH on every message until the hello is answered (captured by %s)', async (mode) => {
  await using hosts = await twoHosts({ offloads: false })
  const [server, client] = [await Peer.on(hosts.b), await Peer.on(hosts.a)]
  await server.listen({ host: hosts.b.address4, port: PORT, capture: mode })
  await using recording = await capture(hosts.b, { filter: `tcp port ${PORT}` })
  // In the turn in which the dial resolves no answer can have come.
  await client.agent.run(
    async (ctx, options) => {
      const conn = await ctx.faketcp.dial(options)
      for (let i = 0; i < 10; i++) conn.write(Buffer.alloc(700, i))
      ctx.state.conns.push(conn)
    },
    { host: hosts.b.address4, port: PORT, capture: mode },
  )
  for (let i = 0; i < 10; i++) await server.next('message')
  await recording.stop()
  expect(ofSize(await recording.segments(), 700, true)).toEqual(Array(10).fill('PA'))
})

it.each([
  { mode: 'packet', trains: true },
  { mode: 'raw', trains: false },
] as const)(
  'then sets it on the last of a train only, where the peer splits trains (captured by $mode: $trains)',
  async ({ mode, trains }) => {
    await using hosts = await twoHosts({ offloads: false })
    const [server, client] = [await Peer.on(hosts.b), await Peer.on(hosts.a)]
    await server.listen({ host: hosts.b.address4, port: PORT, capture: mode })
    await using recording = await capture(hosts.b, { filter: `tcp port ${PORT}` })
    const { id } = await client.dial({ host: hosts.b.address4, port: PORT, capture: mode })
    await server.next('connection')
    // The answer precedes every message of the server.
    await expect.poll(async () => (await client.stats(id)).dialect).toBe('native')
    await Promise.all([client.write(id, ...train(800)), server.write(0, ...train(900))])
    for (let i = 0; i < 10; i++) await Promise.all([server.next('message'), client.next('message')])
    await recording.stop()
    const segments = await recording.segments()
    const expected = trains ? [...Array(9).fill('A'), 'PA'] : Array(10).fill('PA')
    expect(ofSize(segments, 800, true)).toEqual(expected)
    expect(ofSize(segments, 900, false)).toEqual(expected)
  },
)

function train(size: number): Uint8Array[] {
  return Array.from({ length: 10 }, (_, i) => Buffer.alloc(size, i))
}

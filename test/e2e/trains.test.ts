// Trains on the wire, judged by tcpdump on the receiver's end: where they may be sent, a burst of equal messages crosses in few packets that are
// longer than the MTU; where the peer has not said that it splits them, every message crosses alone and with PSH.
import { expect, it } from 'vitest'
import { decodeHello, nonceOf, SPLITS_TRAINS } from '../../lib/wire/hello.ts'
import { type Capture, capture, fields, type Segment } from '../support/capture.ts'
import { type Host, type Offloads, twoHosts } from '../support/hosts.ts'
import { Peer, type PeerDialOptions, type PeerListenOptions } from './peer.ts'

const PORT = 9191
const MTU = 1500
const MESSAGES = 200
const SIZE = 700
/** 64 messages, and 65 000 bytes. */
const TRAIN_SEGMENTS = 64

interface Recorded {
  readonly client: Peer
  readonly server: Peer
  readonly id: number
  readonly recording: Capture
}

interface Options {
  readonly server?: Partial<PeerListenOptions>
  readonly client?: Partial<PeerDialOptions>
}

/** Dials, and waits until the hello has been answered (where one is sent); all is recorded at the server's end. */
async function recorded(hosts: { a: Host; b: Host }, family: 4 | 6, options: Options = {}): Promise<Recorded> {
  const recording = await capture(hosts.b, { filter: `tcp port ${PORT}` })
  return { ...(await connected(hosts, family, options)), recording }
}

/** The same, but both windows have grown beyond a burst of trains; what follows is recorded. */
async function recordedLater(hosts: { a: Host; b: Host }, family: 4 | 6): Promise<Recorded> {
  const flow = await connected(hosts, family)
  await widen(flow.client, flow.id, flow.server, 0)
  await widen(flow.server, 0, flow.client, flow.id)
  return { ...flow, recording: await capture(hosts.b, { filter: `tcp port ${PORT}` }) }
}

async function connected(hosts: { a: Host; b: Host }, family: 4 | 6, { server: listening = {}, client: dialling = {} }: Options = {}) {
  const [server, client] = [await Peer.on(hosts.b), await Peer.on(hosts.a)]
  const host = family === 4 ? hosts.b.address4 : hosts.b.address6
  await server.listen({ host, port: PORT, ...listening })
  const { id } = await client.dial({ host, port: PORT, ...dialling })
  await server.next('connection')
  await expect.poll(async () => (await client.stats(id)).dialect).toBe(dialling.dialect ?? 'native')
  return { client, server, id }
}

/** A window grows by twice what arrives; the answer tells how far. */
async function widen(from: Peer, fromId: number, to: Peer, toId: number): Promise<void> {
  const messages = Array.from({ length: MESSAGES }, () => Buffer.alloc(1000, 'w'))
  await from.write(fromId, ...messages)
  for (let i = 0; i < messages.length; i++) await to.next('message')
  await to.write(toId, 'wide')
  await from.next('message')
}

/** Equal messages, each with its number, in one tick. */
async function burst({ client, server, id }: Recorded, { back = false, size = SIZE } = {}): Promise<void> {
  const messages = Array.from({ length: MESSAGES }, (_, i) => Buffer.from(String(i).padEnd(size)))
  const [from, fromId, to] = back ? [server, 0, client] : [client, id, server]
  await from.write(fromId, ...messages)
  for (let i = 0; i < MESSAGES; i++) expect((await to.next('message')).text).toBe(String(i).padEnd(size))
}

const isData = ({ len }: Segment) => len >= SIZE

/** No packet is longer than one message, and each has PSH. */
function expectAlone(segments: readonly Segment[], client: boolean, size = SIZE): void {
  const data = segments.filter((segment) => segment.len > 255 && (segment.dstport === PORT) === client)
  expect(data.map(({ len, flags }) => [len, flags])).toEqual(Array(MESSAGES).fill([size, 'PA']))
}

function expectWithoutGap(data: readonly Segment[]): void {
  const gaps = data.filter((segment, i) => i > 0 && segment.seq !== (data[i - 1].seq + data[i - 1].len) >>> 0)
  expect(gaps.map(({ frame }) => frame)).toEqual([])
}

it.each([
  [4, SIZE],
  [6, SIZE],
  [4, 1400],
  [6, 64],
] as const)(
  'a burst of equal messages crosses in packets longer than the MTU, one for each train (IPv%s, %s bytes)',
  async (family, size) => {
    await using hosts = await twoHosts()
    const flow = await recordedLater(hosts, family)
    await using recording = flow.recording
    await burst(flow, { size })
    await recording.stop()

    const data = await recording.segments({ display: `tcp.dstport == ${PORT} && tcp.len > 0` })
    expect(data.reduce((sum, { len }) => sum + len, 0)).toBe(MESSAGES * size)
    const most = Math.min(TRAIN_SEGMENTS, Math.floor(65_000 / size))
    const counts = data.map(({ len }) => len / size)
    const last = MESSAGES % most
    expect(counts).toEqual([...Array(Math.floor(MESSAGES / most)).fill(most), ...(last > 0 ? [last] : [])])
    // Whole trains: PSH stands for their last segment.
    expect(new Set(data.map(({ flags }) => flags))).toEqual(new Set(['PA']))
    expectWithoutGap(data)
    const [longest] = (await fields(recording.file, ['frame.len'], 'tcp')).map((row) => Number(row.get('frame.len'))).sort((a, b) => b - a)
    expect(longest).toBeGreaterThan(MTU)
  },
)

it('trains go from the listener to the dialler as well', async () => {
  await using hosts = await twoHosts()
  const flow = await recordedLater(hosts, 4)
  await using recording = flow.recording
  await burst(flow, { back: true })
  await recording.stop()
  const data = (await recording.segments({ display: `tcp.srcport == ${PORT}` })).filter(isData)
  expect(data.map(({ len }) => len / SIZE)).toEqual([64, 64, 64, 8])
})

it.each([
  [4, { tx: false, tso: false }],
  [6, { tx: false, tso: false }],
  [4, false],
  [6, false],
] as [4 | 6, Offloads][])(
  'where the device cuts trains, every segment fits the MTU and is right by itself (IPv%s, %j)',
  async (family, offloads) => {
    await using hosts = await twoHosts({ offloads })
    const flow = await recordedLater(hosts, family)
    await using recording = flow.recording
    await burst(flow)
    expect(await flow.client.stats(flow.id)).toMatchObject({ link: 'packet' })
    await recording.stop()

    const data = (await recording.segments()).filter((segment) => segment.dstport === PORT && isData(segment))
    expect(data.map(({ len }) => len)).toEqual(Array(MESSAGES).fill(SIZE))
    expectWithoutGap(data)
    // PSH on the last of each train, and nowhere else.
    const pushed = data.flatMap(({ flags }, i) => (flags === 'PA' ? [i + 1] : []))
    expect(pushed).toEqual([64, 128, 192, MESSAGES])
    expect(new Set(data.map(({ tcpChecksum }) => tcpChecksum))).toEqual(new Set(['good']))
    expect(new Set(data.map(({ ipChecksum }) => ipChecksum))).toEqual(new Set([family === 4 ? 'good' : 'absent']))
    expect(data.filter(({ malformed }) => malformed)).toEqual([])
    const frames = await fields(recording.file, ['frame.len', 'ip.flags.df', 'ip.flags.mf'], `tcp.dstport == ${PORT}`)
    expect(Math.max(...frames.map((row) => Number(row.get('frame.len'))))).toBeLessThanOrEqual(MTU + 14)
  },
)

it.each([4, 6] as const)(
  'a receiver that captures by raw socket says so in its hello, and no train is sent to it (IPv%s)',
  async (family) => {
    await using hosts = await twoHosts()
    const flow = await recorded(hosts, family, { server: { capture: 'raw' }, client: { link: 'packet' } })
    await using recording = flow.recording
    await burst(flow)
    await burst(flow, { back: true })
    expect(await flow.client.stats(flow.id)).toMatchObject({ link: 'packet', capture: 'packet' })
    expect(await flow.server.stats(0)).toMatchObject({ link: 'raw', capture: 'raw', linkReason: 'captured by raw socket' })
    await recording.stop()

    const segments = await recording.segments({ payload: true })
    const [asked, answered] = [helloOf(segments, true), helloOf(segments, false)]
    const question = decodeHello('dialler', asked)
    const answer = decodeHello('listener', answered, nonceOf(asked))
    expect([question?.capabilities, answer?.capabilities].map((bits) => bits! & SPLITS_TRAINS)).toEqual([SPLITS_TRAINS, 0])
    expectAlone(segments, true)
  },
)

it('a peer without a hello gets no train, whichever end it is', async () => {
  await using hosts = await twoHosts()
  const flow = await recorded(hosts, 4, { client: { dialect: 'tcpraw', link: 'packet' } })
  await using recording = flow.recording
  await burst(flow)
  await burst(flow, { back: true })
  expect(await flow.client.stats(flow.id)).toMatchObject({ link: 'packet', dialect: 'tcpraw' })
  expect(await flow.server.stats(0)).toMatchObject({ link: 'packet', dialect: 'tcpraw' })
  await recording.stop()
  const segments = await recording.segments()
  expectAlone(segments, true)
  expectAlone(segments, false)
})

it('before the hello has been answered every message goes alone, also by sendTrain', async () => {
  await using hosts = await twoHosts()
  const [server, client] = [await Peer.on(hosts.b), await Peer.on(hosts.a)]
  await server.listen({ host: hosts.b.address4, port: PORT })
  await using recording = await capture(hosts.b, { filter: `tcp port ${PORT}` })
  // In the turn in which the dial resolves no answer can have come.
  await client.agent.run(
    async (ctx, { size, ...options }) => {
      const conn = await ctx.faketcp.dial(options)
      for (let i = 0; i < 10; i++) conn.write(Buffer.alloc(size, i))
      conn.sendTrain(Buffer.alloc(10 * size), size)
      ctx.state.conns.push(conn)
    },
    { host: hosts.b.address4, port: PORT, link: 'packet' as const, size: SIZE },
  )
  for (let i = 0; i < 20; i++) expect((await server.next('message')).text).toHaveLength(SIZE)
  await recording.stop()
  const data = (await recording.segments()).filter(isData)
  expect(data.map(({ len, flags }) => [len, flags])).toEqual(Array(20).fill([SIZE, 'PA']))
})

/** The first segment with payload of one side. */
function helloOf(segments: readonly Segment[], client: boolean): Buffer {
  const first = segments.find((segment) => segment.len > 0 && (segment.dstport === PORT) === client)
  return Buffer.from(first?.payload ?? '', 'hex')
}

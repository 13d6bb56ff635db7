// A stranger who knows addresses and ports of a connection but sees none of its packets: whatever he sends in the name of one end, the connection
// lives, none of his bytes is delivered, each of his packets is counted by the reason for which it was dropped, and hardly any is answered.
//
//   client --- router --- server
//                 |
//             stranger
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest'
import type { Rejected } from '../../lib/index.ts'
import { compile, type Helper } from '../native/compile.ts'
import { capture, type Segment } from '../support/capture.ts'
import { createNetwork, type Host, type Network } from '../support/hosts.ts'
import { ACK, ANY, FIN, type Flood, type Names, PSH, type Range, RST, SYN, spoof } from '../support/spoof.ts'
import { echo } from './echo-job.ts'
import { Peer } from './peer.ts'

/** Advertised by both ends (docs/wire.md). */
const WINDOW = 16 << 20
/** RFC 5961, 7: by the whole engine, at most; and a delayed acknowledgement of what is not strange each 40 ms. */
const ANSWERS_A_SECOND = 150 + 25
const ORPHANS = 4096

let network: Network
let client: Host
let server: Host
let stranger: Host
let helper: Helper
/** Each connection has another, so that the last FINs of one do not disturb the next. */
let port = 9191
const peers: Peer[] = []

beforeAll(async () => {
  helper = compile(['test/spoof.cc'])
  network = await createNetwork()
  client = await network.addHost('client')
  server = await network.addHost('server')
  stranger = await network.addHost('stranger')
  const router = await network.addHost('router')
  for (const host of [client, server, stranger]) {
    const [, via] = await network.link(host, router)
    await host.output('ip', ['route', 'add', 'default', 'via', via.address4])
    await host.output('ip', ['route', 'add', 'default', 'via', via.address6])
  }
  // The stranger's provider does not look at source addresses.
  const settings = ['net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1', 'net.ipv4.conf.all.rp_filter=0']
  await router.output('sysctl', ['-q', '-w', ...settings])
})
afterEach(async () => {
  for (const peer of peers.splice(0)) await peer.agent.close()
})
afterAll(async () => {
  await network.remove()
  helper[Symbol.dispose]()
})

interface End {
  readonly peer: Peer
  readonly id: number
  readonly host: Host
  /** In whose name a stranger writes to this end. */
  readonly names: Names
  /** The next number it expects: one past the highest it has seen. */
  readonly expected: number
  /** The newest acknowledgement it has seen. */
  readonly acknowledged: number
}

/** A connection in use, and the numbers that no stranger knows. */
async function talking(family: 4 | 6 = 4): Promise<{ server: End; client: End }> {
  const address = (host: Host) => (family === 4 ? host.address4 : host.address6)
  port++
  const [listening, dialling] = [await Peer.on(server), await Peer.on(client)]
  peers.push(listening, dialling)
  await using recording = await capture(server, { filter: `tcp port ${port}` })
  await listening.listen({ host: address(server), port, echo: true })
  const { id, localPort } = await dialling.dial({ host: address(server), port })
  const accepted = await listening.next('connection')
  expect(await echo(dialling, { id, messages: 20, seed: 1, maxSize: 100 })).toMatchObject({ intact: 20 })
  await recording.stop()
  const segments = await recording.segments()
  const last = (from: number) => Math.max(...segments.filter(({ srcport }) => srcport === from).map(({ seq, len }) => seq + len))
  const [ofClient, ofServer] = [last(localPort), last(port)]
  const toServer = { source: address(client), sourcePort: localPort, destination: address(server), destinationPort: port }
  const toClient = { source: address(server), sourcePort: port, destination: address(client), destinationPort: localPort }
  return {
    server: { peer: listening, id: accepted.id, host: server, names: toServer, expected: ofClient, acknowledged: ofServer },
    client: { peer: dialling, id, host: client, names: toClient, expected: ofServer, acknowledged: ofClient },
  }
}

/**
 * 25 000 each of resets, FINs, data and SYNs: half of them anywhere, the others near what the end expects.
 *
 * Without timestamps a stranger who guesses both the window and what was acknowledged lately is believed, as TCP would. So nothing has an acknowledgement then
 * that could be right by chance: what is anywhere would be believed once in fifty runs.
 */
function hundredThousand({ expected, acknowledged }: End, timestamps: boolean): Flood[] {
  const ahead: Range = { from: expected + 1, count: WINDOW }
  const behind: Range = { from: expected - WINDOW, count: WINDOW - 1 }
  const exact: Range = { from: expected, count: 1 }
  /** Ordinary TCP would believe it (RFC 5961, 5.2): it is of the last window, but never was the newest one. */
  const plausible: Range = { from: acknowledged - 65_535, count: 50_000 }
  /** Beyond what will have been sent when the flood is over. */
  const ack = timestamps ? ANY : { from: acknowledged + 2 ** 20, count: 2 ** 30 }
  const anyOther = timestamps ? ANY : { from: acknowledged + 2 ** 20, count: 2 ** 32 - 2 ** 21 }
  const edges = [-WINDOW - 1, -WINDOW, -1, 0, 1, WINDOW, WINDOW + 1].map((offset) => ({ from: expected + offset, count: 1 }))
  const resets: Flood[] = [
    { count: 12_500, flags: RST },
    { count: 6000, flags: RST, seq: ahead },
    { count: 6000, flags: RST | ACK, seq: behind, ack: plausible },
    ...edges.filter(({ from }) => from !== expected).map((seq): Flood => ({ count: 50, flags: RST | ACK, seq })),
    { count: 200, flags: RST, seq: { from: expected + 1, count: 16 } },
  ]
  const segments = (shape: Pick<Flood, 'flags' | 'payload'>): Flood[] => [
    { ...shape, count: 6250, ack: anyOther },
    { ...shape, count: 6250, ack: anyOther, timestamps: true },
    { ...shape, count: 2000, seq: ahead, ack },
    { ...shape, count: 2000, seq: ahead, ack, timestamps: true },
    { ...shape, count: 2000, seq: behind, ack, timestamps: true },
    { ...shape, count: 2000, seq: ahead, ack: plausible },
    { ...shape, count: 2000, seq: behind, ack: plausible, timestamps: true },
    { ...shape, count: 1100, seq: exact, ack: plausible, timestamps: true },
    ...edges.map((seq): Flood => ({ ...shape, count: 200, seq, ack, timestamps: true })),
  ]
  const syns: Flood[] = [
    { count: 6250, flags: SYN },
    { count: 6250, flags: SYN, payload: 64 },
    { count: 4250, flags: SYN, seq: ahead, payload: 64, timestamps: true },
    { count: 4250, flags: SYN | ACK, seq: behind, ack: plausible },
    { count: 4000, flags: SYN, seq: exact, payload: 64 },
  ]
  return [...resets, ...segments({ flags: FIN | ACK }), ...segments({ flags: PSH | ACK, payload: 64 }), ...syns]
}

function increase(before: Rejected, after: Rejected): Rejected {
  return Object.fromEntries(Object.entries(after).map(([reason, count]) => [reason, count - before[reason as keyof Rejected]])) as never
}

/** How many segments without payload a recording may hold: the limit is by the second, and the first and the last may be cut. */
function allowance(answers: readonly Segment[]): number {
  const seconds = (answers.at(-1)?.time ?? 0) - (answers[0]?.time ?? 0)
  return ANSWERS_A_SECOND * (Math.ceil(seconds) + 1)
}

it.each([
  { victim: 'server', family: 4, timestamps: true },
  { victim: 'client', family: 4, timestamps: true },
  { victim: 'client', family: 6, timestamps: true },
  { victim: 'server', family: 4, timestamps: false },
  { victim: 'client', family: 4, timestamps: false },
] as const)(
  '100 000 spoofed packets to the $victim (IPv$family, timestamps: $timestamps): all are dropped and counted, messages go on',
  async ({ victim: which, family, timestamps }) => {
    await client.output('sysctl', ['-q', '-w', `net.ipv4.tcp_timestamps=${timestamps ? 1 : 0}`])
    const ends = await talking(family)
    const victim = ends[which]
    const { id } = ends.client
    const before = await victim.peer.stats(victim.id)
    const { source, sourcePort, destination, destinationPort } = victim.names
    const toPeer = `src host ${destination} and src port ${destinationPort} and dst host ${source} and dst port ${sourcePort}`
    await using recording = await capture(victim.host, { filter: `tcp and ${toPeer}`, snapLength: 120 })

    const flooding = spoof(stranger, helper, victim.names, hundredThousand(victim, timestamps))
    expect(await echo(ends.client.peer, { id, messages: 2000, seed: 2, size: 200, underWay: 400 })).toMatchObject(all(2000))
    expect(await flooding).toBe(100_000)
    expect(await echo(ends.client.peer, { id, messages: 100, seed: 3 })).toMatchObject(all(100))

    const after = await victim.peer.stats(victim.id)
    expect(after.kernelDrops).toBe(0)
    expect(after.messagesIn - before.messagesIn).toBe(2100)
    const { reset, syn, window, ack, timestamp, ...others } = increase(before.rejected, after.rejected)
    expect({ reset, syn, segments: window + ack + timestamp }).toEqual({ reset: 25_000, syn: 25_000, segments: 50_000 })
    expect(Object.values(others).filter((count) => count !== 0)).toEqual([])

    await recording.stop()
    const segments = await recording.segments()
    expect(segments.filter(({ flags }) => /[RSF]/.test(flags))).toEqual([])
    expect(segments.filter(({ len }) => len === 0).length).toBeLessThanOrEqual(allowance(segments))
  },
)

it('25 000 SYNs of strangers, half of them with payload: connections live, new ones are made, nothing is kept for long', async () => {
  const ends = await talking()
  const { id, peer } = ends.client
  const names = { ...ends.server.names, source: stranger.address4.replace(/\d+$/, '10'), sourcePort: 1024, sources: 200 }
  const floods: Flood[] = [
    { count: 12_500, flags: SYN },
    { count: 12_500, flags: SYN, payload: 64, timestamps: true },
  ]
  const flooding = spoof(stranger, helper, names, floods)
  const more = await peer.dial({ host: server.address4, port })
  expect(await echo(peer, { id: more.id, messages: 200, seed: 4, size: 200, underWay: 400 })).toMatchObject(all(200))
  expect(await flooding).toBe(25_000)
  expect(await echo(peer, { id, messages: 200, seed: 5 })).toMatchObject(all(200))
  const { orphans, accepted, rejected } = await ends.server.peer.listenerStats()
  expect(orphans).toBeLessThanOrEqual(ORPHANS)
  expect(accepted).toBe(2)
  expect(rejected.orphan).toBe(0) // a SYN brings nothing that could be lost
  await expect.poll(async () => (await ends.server.peer.listenerStats()).orphans, { timeout: 10_000 }).toBe(0)
})

it('25 000 data segments of strangers without a connection: none is delivered, few are kept, hardly any is answered', async () => {
  const ends = await talking()
  const names = { ...ends.server.names, source: stranger.address4.replace(/\d+$/, '10'), sourcePort: 1024, sources: 200 }
  await using recording = await capture(server, { filter: `tcp and src port ${port} and tcp[tcpflags] & tcp-rst != 0`, snapLength: 120 })
  expect(await spoof(stranger, helper, names, [{ count: 25_000, flags: PSH | ACK, payload: 64 }])).toBe(25_000)
  const { id, peer } = ends.client
  expect(await echo(peer, { id, messages: 200, seed: 6 })).toMatchObject(all(200))
  const { orphans, accepted, rejected } = await ends.server.peer.listenerStats()
  expect(orphans).toBeLessThanOrEqual(ORPHANS)
  expect(rejected.orphan + orphans).toBe(25_000)
  expect(accepted).toBe(1)
  // Those that are kept are reset when their time is over, in turn.
  await expect.poll(async () => (await ends.server.peer.listenerStats()).orphans, { timeout: 10_000 }).toBeLessThan(ORPHANS)
  await recording.stop()
  const resets = await recording.segments()
  expect(resets.length).toBeLessThanOrEqual(allowance(resets))
})

/** A result of `echo`. */
function all(messages: number): { intact: number; foreign: number; lost: number } {
  return { intact: messages, foreign: 0, lost: 0 }
}

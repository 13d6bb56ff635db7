// An attacker on the path of a tunnel with a key, who sees every packet, can hold packets back and sends what it likes in the name of either end,
// with numbers that fit: whatever it changed, cut, turned round, sends again or makes up is dropped and counted, nothing of it is delivered, and the flow and its
// conversations live on.
//
//   user -> client ----- path ----- server -> service
import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, expect, it } from 'vitest'
import type { TunnelStats } from '../../lib/tunnel/index.ts'
import { describeTrains, type TrainToSend } from '../native/sender-rig.ts'
import type { Agent } from '../support/agent.ts'
import { capture, type Segment } from '../support/capture.ts'
import { createNetwork, type Host, type Interface, type Network } from '../support/hosts.ts'
import { TunnelPeer, UdpPeer } from './tunnel-ends.ts'

const SERVER = 4000
const SERVICE = 7000
const USERS = 7001
const KEY = 'a secret that only the two ends have'
/** Of a sealed message: counter, type and session, tag (docs/wire.md). */
const OVERHEAD = 25
const HELD = 8
const TIMEOUT_MS = 60_000

let network: Network
let client: Host
let path: Host
let server: Host
/** The path's, towards either end. */
let towards: Record<'client' | 'server', Interface>
let attacker: Agent

beforeAll(async () => {
  network = await createNetwork()
  client = await network.addHost('client')
  path = await network.addHost('path')
  server = await network.addHost('server')
  // Every segment crosses the path alone, its checksum finished.
  const [, near] = await network.link(client, path, { offloads: false })
  const [, far] = await network.link(server, path, { offloads: false })
  towards = { client: near, server: far }
  await client.output('ip', ['route', 'add', 'default', 'via', near.address4])
  await server.output('ip', ['route', 'add', 'default', 'via', far.address4])
  await path.output('sysctl', ['-q', '-w', 'net.ipv4.ip_forward=1'])
  attacker = await path.agent({ nodeArgs: ['--import', 'tsx'] })
})
afterAll(() => network.remove())

/** A tunnel with one conversation, in which each end has spoken. */
interface Talk extends AsyncDisposable {
  readonly ends: Record<'client' | 'server', TunnelPeer>
  readonly user: UdpPeer
  readonly service: UdpPeer
  /** The conversation's port at the service's host. */
  readonly port: number
}

async function talk(): Promise<Talk> {
  const [service, user] = [await UdpPeer.on(server), await UdpPeer.on(client)]
  await service.open(SERVICE)
  await user.open()
  // Not strict: numbers alone let a segment in, however long it was held back.
  const common = { key: KEY, strict: false }
  const ends = {
    server: await TunnelPeer.server(server, { listen: `${server.address4}:${SERVER}`, to: `127.0.0.1:${SERVICE}`, ...common }),
    client: await TunnelPeer.client(client, { listen: `127.0.0.1:${USERS}`, to: `${server.address4}:${SERVER}`, flows: 1, ...common }),
  }
  await user.send(0, USERS, 'first')
  const { port } = await service.next()
  const dispose = async () => {
    for (const { agent } of [ends.client, ends.server, user, service]) await agent.close()
  }
  const made = { ends, user, service, port, [Symbol.asyncDispose]: dispose }
  await expectTalk(made, 'begun')
  return made
}

/** Each end hears the other, and has heard nothing else before. */
async function expectTalk({ user, service, port }: Talk, text: string): Promise<void> {
  await user.send(0, USERS, text)
  expect(await service.next()).toEqual({ socket: 0, text, port })
  await service.send(0, port, text)
  expect(await user.next()).toEqual({ socket: 0, text, port: USERS })
}

/** One end sends these; they come as far as the path, which records them and passes none on. */
async function heldBack(from: 'client' | 'server', { user, service, port }: Talk, texts: readonly string[]): Promise<Segment[]> {
  await using recording = await capture(path, { iface: towards[from].name, filter: `tcp port ${SERVER}` })
  const chain = `chain forward { type filter hook forward priority 0; iifname ${towards[from].name} drop; }`
  await path.output('nft', ['-f', '-'], `table ip held { ${chain}; }\n`)
  if (from === 'client') await user.send(0, USERS, ...texts)
  else await service.send(0, port, ...texts)
  const address = (from === 'client' ? client : server).address4
  const sealed = async () => {
    const segments = await recording.segments({ payload: true })
    return segments.filter(({ src, len }) => src === address && texts.some((text) => len === text.length + OVERHEAD))
  }
  await expect.poll(async () => (await sealed()).length, { timeout: 5000 }).toBe(texts.length)
  await path.output('nft', ['delete', 'table', 'ip', 'held'])
  return await sealed()
}

/** The numbers of a segment as they stand, and this payload. */
function forged({ src, srcport, dst, dstport, seq, ack, tsval, tsecr, window }: Segment, payload: Uint8Array): TrainToSend {
  const names = { from: src, fromPort: srcport, to: dst, toPort: dstport }
  return { ...names, seq, ack, window, timestamps: [tsval!, tsecr!], buffers: [payload], segment: payload.length }
}

async function attack(trains: readonly TrainToSend[]): Promise<void> {
  const sent = await attacker.run(
    async (ctx, { rig, descriptors, buffers, count }) => {
      const { sender } = await ctx.import<typeof import('../native/sender-rig.ts')>(rig)
      const { native } = sender(4)
      const sent = native.send(descriptors, 0, count, buffers)
      native.close()
      return sent
    },
    { rig: new URL('../native/sender-rig.ts', import.meta.url).href, ...describeTrains(trains), count: trains.length },
  )
  expect(sent).toBe(trains.length)
}

type Reason = keyof TunnelStats['drops']

/** What this end drops meanwhile is this, and nothing else. */
async function expectDrops(end: TunnelPeer, expected: Partial<Record<Reason, number>>, meanwhile: () => Promise<void>): Promise<void> {
  const before = (await end.stats()).drops
  await meanwhile()
  const more = async () => {
    const now = Object.entries((await end.stats()).drops).map(([reason, count]) => [reason, count - before[reason as Reason]])
    return Object.fromEntries(now.filter(([, count]) => count !== 0))
  }
  // Refusals are read once a second.
  await expect.poll(more, { timeout: 5000 }).toEqual(expected)
}

function flipped(bytes: Uint8Array, at: number): Buffer {
  const copy = Buffer.from(bytes)
  copy[at] ^= 1
  return copy
}

const other = { client: 'server', server: 'client' } as const

it.each(['server', 'client'] as const)(
  'what an attacker on the path sends to the %s is dropped and counted, and the conversation goes on',
  { timeout: TIMEOUT_MS },
  async (victim) => {
    await using talking = await talk()
    const { ends } = talking
    const texts = Array.from({ length: HELD }, (_, i) => `${i} `.repeat(20 + 10 * i))
    const held = await heldBack(other[victim], talking, texts)
    const payloads = held.map(({ payload }) => Buffer.from(payload!, 'hex'))
    const each = (change: (payload: Buffer) => Uint8Array) => attack(held.map((segment, i) => forged(segment, change(payloads[i]))))

    const changes: ((payload: Buffer) => Uint8Array)[] = [
      // Counter (to one that has not been seen either), type, session, text, tag.
      ...[0, 4, 6, 8, 30].map((at) => (payload: Buffer) => flipped(payload, at)),
      (payload) => flipped(payload, payload.length - 1),
      // Cut, down to where nothing is left but what every message has; and nothing but noise.
      ...[1, 16].map((less) => (payload: Buffer) => payload.subarray(0, payload.length - less)),
      (payload) => payload.subarray(0, OVERHEAD),
      ({ length }) => randomBytes(length),
    ]
    await expectDrops(ends[victim], { auth: changes.length * HELD }, async () => {
      for (const change of changes) await each(change)
    })
    await expectDrops(ends[victim], { malformed: 2 * HELD }, async () => {
      for (const length of [1, OVERHEAD - 1]) await each((payload) => payload.subarray(0, length))
    })
    await expectTalk(talking, 'after changes')

    // The attacker's packets do get there: what was held back is delivered when it comes as it was. Once.
    await each((payload) => payload)
    const receiver = victim === 'server' ? talking.service : talking.user
    const delivered = []
    for (const _ of texts) delivered.push((await receiver.next()).text)
    expect(delivered).toEqual(texts)
    await expectDrops(ends[victim], { replay: 3 * HELD }, async () => {
      await each((payload) => payload)
      await each((payload) => payload)
      // A counter that was seen is not looked at any further.
      await each((payload) => flipped(payload, payload.length - 1))
    })
    await expectTalk(talking, 'after repetitions')

    const { id } = (await ends.client.stats()).flows[0]
    expect(await ends.client.stats()).toMatchObject({ reconnects: 0, flowsTotal: 1, peers: 1, flows: [{ id, state: 'open', peers: 1 }] })
    expect(await ends.server.stats()).toMatchObject({ flowsTotal: 1, peersTotal: 1, peers: 1, flows: [{ state: 'open' }] })
  },
)

it('messages that come back to their sender are dropped and counted', { timeout: TIMEOUT_MS }, async () => {
  await using talking = await talk()
  const { ends } = talking
  for (const from of ['client', 'server'] as const) {
    const texts = Array.from({ length: HELD }, (_, i) => `${i}`.repeat(100 + i))
    const held = await heldBack(from, talking, texts)
    // The newest numbers of the opposite direction.
    const [answer] = await heldBack(other[from], talking, ['x'.repeat(500)])
    const back = held.map(({ payload }) => forged(answer, Buffer.from(payload!, 'hex')))
    await expectDrops(ends[from], { auth: HELD }, () => attack(back))
    await expectTalk(talking, `after reflections to the ${from}`)
  }
  expect(await ends.client.stats()).toMatchObject({ reconnects: 0, flowsTotal: 1 })
})

// As in any TCP: an end that has taken bytes which the other never sent acknowledges what the other cannot believe. Who is on the path can always cut
// a flow; the tunnel makes another.
it.each(['server', 'client'] as const)(
  'noise with numbers ahead of all that was sent is dropped by the %s, and the conversation goes on, if need be on another flow',
  { timeout: TIMEOUT_MS },
  async (victim) => {
    await using talking = await talk()
    const { ends, user, service, port } = talking
    const [newest] = await heldBack(other[victim], talking, ['x'.repeat(500)])
    const lengths = [1, 16, OVERHEAD - 1, OVERHEAD, OVERHEAD + 1, 100, 525, 1000, 1448]
    await expectDrops(ends[victim], { malformed: 3, auth: lengths.length - 3 }, () =>
      attack(lengths.map((length) => forged(newest, randomBytes(length)))),
    )
    const heard = async () => {
      await user.send(0, USERS, 'still there?')
      const asked = await service.next({ timeoutMs: 500 }).catch(() => undefined)
      await service.send(0, port, 'still here')
      const answered = await user.next({ timeoutMs: 500 }).catch(() => undefined)
      return [asked, answered]
    }
    const both = [
      { socket: 0, text: 'still there?', port },
      { socket: 0, text: 'still here', port: USERS },
    ]
    await expect.poll(heard, { timeout: 30_000 }).toEqual(both)
    expect(await ends.server.stats()).toMatchObject({ peers: 1, peersTotal: 1 })
    expect(await ends.client.stats()).toMatchObject({ peers: 1, peersTotal: 1, flows: [{ state: 'open' }] })
  },
)

it('a recorded handshake that comes again on a connection of its own gets no answer, nor does noise', { timeout: TIMEOUT_MS }, async () => {
  await using recording = await capture(path, { filter: `tcp port ${SERVER}` })
  await using talking = await talk()
  await recording.stop()
  const segments = await recording.segments({ payload: true })
  const [hello, init] = segments.filter(({ dstport, len }) => dstport === SERVER && len > 0).map(({ payload }) => payload!)
  // A kernel's TCP, which would tell whatever came, and ends with a FIN in each direction.
  const heard = (payloads: readonly string[]) =>
    attacker.run(
      async (ctx, { host, port, payloads }) => {
        const { connect } = await ctx.import<typeof import('node:net')>('node:net')
        const socket = connect({ host, port, noDelay: true, allowHalfOpen: true })
        await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject))
        for (const payload of payloads) await new Promise((resolve) => socket.write(Buffer.from(payload, 'hex'), resolve))
        socket.end()
        let bytes = 0
        for await (const block of socket) bytes += block.length
        return bytes
      },
      { host: server.address4, port: SERVER, payloads },
    )
  await expectDrops(talking.ends.server, { replay: 1 }, async () => expect(await heard([hello, init])).toBe(0))
  await expectDrops(talking.ends.server, { auth: 1 }, async () => expect(await heard([randomBytes(40).toString('hex')])).toBe(0))
  await expectTalk(talking, 'after strangers')
})

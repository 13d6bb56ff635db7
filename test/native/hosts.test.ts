// The addon between two hosts (network namespaces), watched by tcpdump: how carriers end on the wire, trains, policy routing, link-local
// addresses, and whatever a device can bring, injected through tun and tap.
//
//   a 10.77.0.1, fd00:77::1  <---- veth ---->  b 10.77.0.2, fd00:77::2      each with one agent that has the addon loaded
import { existsSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import * as layout from '../../lib/native/layout.ts'
import { addonPaths } from '../../lib/native/loader.ts'
import type { Agent } from '../support/agent.ts'
import { capture } from '../support/capture.ts'
import { twoHosts } from '../support/hosts.ts'
import { compile, type Helper } from './compile.ts'
import { openDevice } from './device.ts'
import { addressWords, ethernetFrame, type PacketOptions, packet } from './packets.ts'

const RIG = new URL('fixtures/host-rig.mjs', import.meta.url).href
const env = { FAKETCP_ADDON: addonPaths().find((path) => existsSync(path)) }

const loadRig = (agent: Agent) =>
  agent.run(async (ctx, url) => {
    ctx.state.rig = await ctx.import(url)
  }, RIG)

type Hosts = Awaited<ReturnType<typeof twoHosts>>

let hosts: Hosts
let a: Agent
let b: Agent

beforeAll(async () => {
  hosts = await twoHosts({ offloads: false })
  ;[a, b] = await Promise.all([hosts.a.agent({ env }), hosts.b.agent({ env })])
  await Promise.all([a, b].map(loadRig))
})
afterAll(() => hosts?.[Symbol.asyncDispose]())

const listen = (agent: Agent, address: string) => agent.run((ctx, at) => ctx.state.rig.listen(at) as number, address)
const dial = (agent: Agent, from: string, to: string, port: number) =>
  agent.run((ctx, arg) => ctx.state.rig.dial(arg) as Promise<number>, { from, to, port })

describe.each([
  ['IPv4', '10.77.0.1', '10.77.0.2'],
  ['IPv6', 'fd00:77::1', 'fd00:77::2'],
])('a carrier over %s ends', (_name, from, to) => {
  it.each([
    ['silent', 'device', []],
    ['fin', 'fin', ['FA']],
    ['reset', 'reset', ['RA']],
  ])('by %s', async (how, way, onTheWire) => {
    const port = await listen(b, to)
    await using wire = await capture(hosts.b, { filter: `tcp port ${port}` })
    expect(await dial(a, from, to, port)).toBe(0)
    await b.run((ctx) => ctx.state.rig.accepted() as Promise<void>)
    expect(await a.run((ctx, arg) => ctx.state.rig.client.end(arg) as string, how)).toBe(way)
    await b.run((ctx) => ctx.state.rig.endAccepted('silent') as string)
    await wire.stop()
    const flags = (await wire.segments()).map((segment) => segment.flags)
    expect(flags.slice(0, 3)).toEqual(['S', 'SA', 'A'])
    expect([...new Set(flags.slice(3))]).toEqual(onTheWire)
  })
})

it('a carrier ends silently in a process that has no capability left', async () => {
  const port = await listen(b, '10.77.0.2')
  await using wire = await capture(hosts.b, { filter: `tcp port ${port}` })
  const user = await hosts.a.agent({ env })
  await loadRig(user)
  expect(await dial(user, '10.77.0.1', '10.77.0.2', port)).toBe(0)
  const end = await user.run((ctx) => {
    process.setgroups?.([])
    process.setgid?.(65534)
    process.setuid?.(65534)
    return [process.getuid?.(), ctx.state.rig.client.end('silent')] as unknown[]
  })
  expect(end).toEqual([65534, 'device'])
  await b.run((ctx) => ctx.state.rig.accepted() as Promise<void>)
  await b.run((ctx) => ctx.state.rig.endAccepted('silent') as string)
  await wire.stop()
  expect((await wire.segments()).map((segment) => segment.flags)).toEqual(['S', 'SA', 'A'])
})

it('carriers and sender reach link-local addresses by their zone', async () => {
  const [near, far] = ['fe80::77:1', 'fe80::77:2']
  await Promise.all([hosts.a.addAddress(`${near}/64`), hosts.b.addAddress(`${far}/64`)])
  const port = await listen(b, `${far}%${hosts.b.iface}`)
  expect(await dial(a, `${near}%${hosts.a.iface}`, `${far}%${hosts.a.iface}`, port)).toBe(0)
  await b.run((ctx) => ctx.state.rig.accepted() as Promise<void>)
  await b.run((ctx) => ctx.state.rig.capture('packet', 6))
  const key = await a.run((ctx) => ctx.state.rig.key() as number[])
  expect(key.slice(0, 8)).toEqual([...addressWords(far), ...addressWords(near)])
  const ifindex = Number((await hosts.a.output('cat', [`/sys/class/net/${hosts.a.iface}/ifindex`])).trim())
  expect(await a.run((ctx, index) => ctx.state.rig.send(['over the link'], { ifindex: index }) as number, ifindex)).toBe(1)
  const train = await b.run((ctx) => ctx.state.rig.next('over the link') as Promise<{ segment: number }>)
  expect(train.segment).toBe('over the link'.length)
  expect(await a.run((ctx) => ctx.state.rig.client.end('silent') as string)).toMatch(/device|repair/)
  await b.run((ctx) => ctx.state.rig.endAccepted('silent') as string)
  await b.run((ctx) => ctx.state.rig.closeCapture())
})

it('what the sender writes is in order for tcpdump: no bad checksum, nothing malformed', async () => {
  const port = await listen(b, '10.77.0.2')
  expect(await dial(a, '10.77.0.1', '10.77.0.2', port)).toBe(0)
  await using wire = await capture(hosts.b, { filter: `tcp port ${port} and greater 100` })
  const messages = Array.from({ length: 40 }, (_, i) => 'x'.repeat(100 + i))
  expect(await a.run((ctx, texts) => ctx.state.rig.send(texts, { timestamps: true }) as number, messages)).toBe(40)
  await wire.stop()
  const segments = await wire.segments()
  expect(segments.map(({ len }) => len)).toEqual(messages.map(({ length }) => length))
  for (const { tcpChecksum, ipChecksum, malformed, tsval, tsecr, ttl } of segments) {
    expect({ tcpChecksum, ipChecksum, malformed, tsval, tsecr, ttl }).toEqual({
      tcpChecksum: 'good',
      ipChecksum: 'good',
      malformed: false,
      tsval: 11,
      tsecr: 22,
      ttl: 64,
    })
  }
  await a.run((ctx) => ctx.state.rig.client.end('silent') as string)
  await b.run((ctx) => ctx.state.rig.accepted() as Promise<void>)
  await b.run((ctx) => ctx.state.rig.endAccepted('silent') as string)
})

it('the sender is routed by its source address', async () => {
  // Policy routing sends what comes from 10.77.0.9 nowhere; the header's bytes alone would not be looked at.
  await hosts.a.addAddress('10.77.0.9/24')
  await hosts.a.output('ip', ['rule', 'add', 'from', '10.77.0.9', 'prohibit'])
  const options = { remote: '10.77.0.2', remotePort: 9, localPort: 9 }
  const errnoFrom = (local: string) => a.run((ctx, arg) => ctx.state.rig.sendRaw(arg) as [number, number], { ...options, local })
  expect(await errnoFrom('10.77.0.9')).toEqual([0, -13])
  expect(await errnoFrom('10.77.0.1')).toEqual([1, 0])
})

it('a full send buffer is told by EAGAIN, and onWritable follows when it has drained', async () => {
  // An address that nobody answers for: the kernel keeps the packets, charged to the socket, until it gives up asking.
  await hosts.a.output('sysctl', ['-q', '-w', `net.ipv4.neigh.${hosts.a.iface}.retrans_time_ms=50`])
  const outcome = await a.run((ctx, arg) => ctx.state.rig.fill(arg) as Promise<{ errno: number; sent: number; writable: number }>, {
    local: '10.77.0.1',
    remote: '10.77.0.77',
  })
  expect(outcome).toEqual({ errno: -11, sent: expect.any(Number), writable: 1 })
  expect(outcome.sent).toBeGreaterThan(0)
})

it('reports the segment size of trains that cross the wire whole', async () => {
  await using fast = await twoHosts()
  const [from, to] = await Promise.all([fast.a.agent({ env }), fast.b.agent({ env })])
  await Promise.all([from, to].map(loadRig))
  const transfer = { host: fast.b.address4, port: 5001, bytes: 2_000_000 }
  await to.run((ctx, arg) => ctx.state.rig.startTransfer(arg) as Promise<void>, transfer)
  await from.run((ctx, arg) => ctx.state.rig.sendTransfer(arg) as Promise<void>, transfer)
  const trains = await to.run(
    (ctx, port) => ctx.state.rig.endTransfer(port) as Promise<{ length: number; segment: number }[]>,
    transfer.port,
  )
  const mss = 1448
  expect(trains.reduce((sum, { length }) => sum + length, 0)).toBeGreaterThanOrEqual(transfer.bytes)
  expect(trains.some(({ length, segment }) => length > 10 * mss && segment === mss)).toBe(true)
  expect(trains.every(({ length, segment }) => (length > mss ? segment === mss : segment === length))).toBe(true)
})

describe('what a device brings', () => {
  const V4 = { source: '192.0.2.1', destination: '10.77.0.2' }
  const V6 = { source: '2001:db8::1', destination: 'fd00:77::2' }
  let inject: Helper

  beforeAll(() => {
    inject = compile(['test/inject.cc'])
  })
  afterAll(() => inject?.[Symbol.dispose]())

  /** A device in host b and a capture of one family beside it. */
  async function device(kind: 'tun' | 'tap', mode: 'packet' | 'raw', family: 4 | 6) {
    const opened = await openDevice(hosts.b, inject, kind)
    await b.run((ctx, [m, f]) => ctx.state.rig.capture(m, f), [mode, family] as const)
    return {
      ...opened,
      next: (payload: string) =>
        b.run((ctx, text) => ctx.state.rig.next(text) as Promise<{ words: number[]; length: number; segment: number }>, payload),
      counters: () => b.run((ctx) => ctx.state.rig.counted() as number[]),
      async [Symbol.asyncDispose]() {
        await b.run((ctx) => ctx.state.rig.closeCapture())
        await opened[Symbol.asyncDispose]()
      },
    }
  }

  it.each([
    ['IPv4', V4, 4],
    ['IPv6', V6, 6],
  ] as const)(
    'without a link header (%s over tun) is found at the network offset, and has no link address',
    async (_name, addresses, family) => {
      await using tun = await device('tun', 'packet', family)
      await tun.write(packet({ ...addresses, payload: 'from the tunnel', seq: 5 }))
      const { words } = await tun.next('from the tunnel')
      expect(words.slice(0, 8)).toEqual([...addressWords(addresses.source), ...addressWords(addresses.destination)])
      expect([words[layout.D_SEQ], words[layout.D_IFINDEX], words[layout.D_MAC_HIGH]]).toEqual([5, tun.ifindex, 0])
    },
  )

  it('with an Ethernet header has the sender’s link address, and padding is cut off', async () => {
    await using tap = await device('tap', 'packet', 4)
    const frame = ethernetFrame(packet({ ...V4, payload: 'pad' }), { source: '02:11:22:33:44:55', destination: tap.mac })
    await tap.write(Buffer.concat([frame, Buffer.alloc(20, 0x58)]))
    const { words } = await tap.next('pad')
    expect([words[layout.D_MAC_HIGH] >>> 0, words[layout.D_MAC_LOW]]).toEqual([0x80000211, 0x22334455])
  })

  it.each([
    ['IPv4', V4, 4],
    ['IPv6', V6, 6],
  ] as const)('as one train (%s) is told apart by its segment size, its checksum unfinished', async (_name, addresses, family) => {
    await using tun = await device('tun', 'packet', family)
    const payload = 'train '.repeat(500)
    await tun.write(packet({ ...addresses, payload, checksum: 'partial' }), { gso: 1000, flags: 1 })
    expect(await tun.next(payload)).toMatchObject({ length: 3000, segment: 1000 })
  })

  it.each([
    ['IPv4', V4, 4],
    ['IPv6', V6, 6],
  ] as const)('with an unfinished checksum passes an IP raw socket, which is not told of it (%s)', async (_name, addresses, family) => {
    await using tun = await device('tun', 'raw', family)
    await tun.write(packet({ ...addresses, payload: 'wrong', checksum: 'wrong' }))
    await tun.write(packet({ ...addresses, payload: 'unfinished', checksum: 'partial' }), { flags: 1 })
    expect(await tun.next('unfinished')).toMatchObject({ length: 10, segment: 10 })
    expect((await tun.counters())[layout.REJECT_CHECKSUM]).toBe(1)
  })

  it.each<[string, number, PacketOptions, 4 | 6]>([
    ['a wrong TCP checksum', layout.REJECT_CHECKSUM, { ...V4, checksum: 'wrong' }, 4],
    ['a wrong TCP checksum', layout.REJECT_CHECKSUM, { ...V6, checksum: 'wrong' }, 6],
    ['a fragment', layout.REJECT_FRAGMENT, { ...V4, fragment: 0x2000 }, 4],
    ['a fragment', layout.REJECT_FRAGMENT, { ...V6, extensions: [[44, [0, 0, 0, 1, 0, 0, 0, 9]]] }, 6],
    ['malformed options', layout.REJECT_HEADER, { ...V4, options: [8, 1, 0, 0] }, 4],
    ['malformed options', layout.REJECT_HEADER, { ...V6, options: [2, 40, 0, 0] }, 6],
    ['another protocol', layout.REJECT_FOREIGN, { ...V4, protocol: 17 }, 4],
    ['an IPv4-mapped source', layout.REJECT_FOREIGN, { ...V6, source: '::ffff:192.0.2.1' }, 6],
  ])('with %s is counted by reason and not delivered', async (_what, reason, options, family) => {
    await using tun = await device('tun', 'packet', family)
    const before = await tun.counters()
    await tun.write(packet(options))
    await tun.write(packet({ ...(family === 4 ? V4 : V6), payload: 'the next one' }))
    await tun.next('the next one')
    const after = await tun.counters()
    expect(after[reason] - before[reason]).toBe(1)
    expect(after.slice(0, 5).reduce((sum, count) => sum + count)).toBe(before.slice(0, 5).reduce((sum, count) => sum + count) + 1)
  })

  it('shorter than it says is counted as truncated', async () => {
    await using tap = await device('tap', 'packet', 4)
    const whole = ethernetFrame(packet({ ...V4, payload: 'cut off' }), { source: '02:11:22:33:44:55', destination: tap.mac })
    await tap.write(whole.subarray(0, whole.length - 3))
    await tap.write(ethernetFrame(packet({ ...V4, payload: 'whole' }), { source: '02:11:22:33:44:55', destination: tap.mac }))
    await tap.next('whole')
    expect((await tap.counters())[layout.REJECT_TRUNCATED]).toBe(1)
  })
})

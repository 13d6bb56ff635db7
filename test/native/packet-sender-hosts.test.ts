// The sender by AF_PACKET between two hosts: trains whole and cut up by the kernel, devices of every kind, what the kernel refuses.
//
//   a 10.77.0.1, fd00:77::1  <---- veth ---->  b 10.77.0.2, fd00:77::2      each with one agent that has the addon loaded
import { existsSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ACK, D_FLAGS, D_SEGMENT, D_SEQ, FIN, PSH } from '../../lib/native/layout.ts'
import { addonPaths } from '../../lib/native/loader.ts'
import type { Agent } from '../support/agent.ts'
import { capture } from '../support/capture.ts'
import { type Host, type Offloads, twoHosts } from '../support/hosts.ts'
import { compile, type Helper } from './compile.ts'
import { openDevice } from './device.ts'
import { packet } from './packets.ts'
import { type Family, messagesOf } from './rig.ts'
import { describeHops, describeTrains, type Hop, type TrainToSend } from './sender-rig.ts'

const RIG = new URL('fixtures/host-rig.mjs', import.meta.url).href
const env = { FAKETCP_ADDON: addonPaths().find((path) => existsSync(path)) }
const PORT = 7001

async function agentOf(host: Host): Promise<Agent> {
  const agent = await host.agent({ env })
  await agent.run(async (ctx, url) => {
    ctx.state.rig = await ctx.import(url)
  }, RIG)
  return agent
}

const ifindexOf = async (host: Host, name = host.iface) => Number(await host.output('cat', [`/sys/class/net/${name}/ifindex`]))
const bytesOf = (mac: string) => Buffer.from(mac.replaceAll(':', ''), 'hex')

/** From one host to the other: row 0 for IPv4, row 1 for IPv6. */
async function hopsTo(from: Host, to: Host): Promise<Hop[]> {
  const ifindex = await ifindexOf(from)
  return ['0800', '86dd'].map((type) => ({
    ifindex,
    header: Buffer.concat([bytesOf(to.mac), bytesOf(from.mac), Buffer.from(type, 'hex')]),
  }))
}

/** Segments taken and errno. */
function send(agent: Agent, hops: readonly Hop[], trains: readonly TrainToSend[]): Promise<[number, number]> {
  const call = { ...describeTrains(trains), hops: describeHops(hops) }
  return agent.run((ctx, arg) => ctx.state.rig.sendByPacket(arg) as [number, number], call)
}

const payloadOf = (length: number) => Buffer.from(Array.from({ length }, (_, i) => (i * 11 + (i >> 8)) & 0xff))

describe.each<[string, Offloads, packets: number | undefined]>([
  // 47 segments fill a packet.
  ['crosses a link with TSO whole', {}, 3],
  ['is cut up by a sender without TSO', { tso: false }, 101],
  ['is cut up by a sender without TSO and put together by GRO', { tso: false, gro: true }, undefined],
  ['is cut up and checksummed by a sender without any offload', false, 101],
])('a train %s', (_what, offloads, packets) => {
  let hosts: Awaited<ReturnType<typeof twoHosts>>
  let a: Agent
  let b: Agent
  let hops: Hop[]

  beforeAll(async () => {
    hosts = await twoHosts({ offloads })
    ;[a, b] = await Promise.all([agentOf(hosts.a), agentOf(hosts.b)])
    hops = await hopsTo(hosts.a, hosts.b)
  })
  afterAll(() => hosts?.[Symbol.asyncDispose]())

  it.each([4, 6] as const)('with every message as it was, PSH and FIN on the last one only (IPv%i)', async (family) => {
    const addresses = { from: family === 4 ? hosts.a.address4 : hosts.a.address6, to: family === 4 ? hosts.b.address4 : hosts.b.address6 }
    const [seq, size] = [0xffffff00, 1380]
    const payload = payloadOf(100 * size + 77)
    // The kernel of host b has no such connection and answers; that goes to another port.
    await using wire = await capture(hosts.b, { filter: `tcp dst port ${PORT}` })
    await b.run((ctx, f) => ctx.state.rig.capture('packet', f, 1), family)
    const train = {
      ...addresses,
      fromPort: 9,
      toPort: PORT,
      seq: 0xffffff00,
      timestamps: [3, 4],
      segment: size,
      buffers: [payload],
    } as const
    expect(await send(a, hops, [{ ...train, flags: ACK | PSH | FIN }])).toEqual([101, 0])
    const arrived = await b.run((ctx, arg) => ctx.state.rig.arrived(arg) as Promise<{ words: number[]; payload: string }[]>, {
      port: PORT,
      bytes: payload.length,
    })
    await b.run((ctx) => ctx.state.rig.closeCapture())
    const trains = arrived.map(({ words, payload: text }) => ({
      seq: words[D_SEQ] >>> 0,
      flags: words[D_FLAGS] & 0xff,
      segment: words[D_SEGMENT],
      payload: Buffer.from(text, 'latin1'),
    }))
    const messages = messagesOf(trains)
    // The last segment of a packet that is cut up belongs to the sending socket (skb_segment), also behind a veth. GRO takes it for another flow
    // (gro_list_prepare) and hands it over first.
    if (packets === undefined) messages.sort((x, y) => ((x.seq - seq) >>> 0) - ((y.seq - seq) >>> 0))
    expect(messages.map((message) => message.seq)).toEqual(Array.from({ length: 101 }, (_, i) => (seq + i * size) >>> 0))
    expect(messages.map(({ payload: { length } }) => length)).toEqual([...Array<number>(100).fill(size), 77])
    expect(messages.map(({ flags }) => flags)).toEqual([...Array<number>(100).fill(ACK), ACK | PSH | FIN])
    expect(Buffer.concat(messages.map((message) => message.payload)).equals(payload)).toBe(true)
    if (packets !== undefined) expect(trains.length).toBe(packets)

    await wire.stop()
    const segments = await wire.segments()
    expect(segments.every(({ malformed, tsval, tsecr }) => !malformed && tsval === 3 && tsecr === 4)).toBe(true)
    if (offloads === false) {
      expect(segments.length).toBe(101)
      const checksums = new Set(segments.map(({ tcpChecksum, ipChecksum }) => `${tcpChecksum} ${ipChecksum}`))
      expect([...checksums]).toEqual([family === 4 ? 'good good' : 'good absent'])
    }
  })
})

describe('on a host', () => {
  let hosts: Awaited<ReturnType<typeof twoHosts>>
  let inject: Helper
  let a: Agent

  beforeAll(async () => {
    inject = compile(['test/inject.cc'])
    hosts = await twoHosts()
    a = await agentOf(hosts.a)
  })
  afterAll(async () => {
    await hosts?.[Symbol.asyncDispose]()
    inject?.[Symbol.dispose]()
  })

  const ADDRESSES = { 4: ['192.0.2.1', '192.0.2.2'], 6: ['2001:db8::1', '2001:db8::2'] } as const
  const trainOf = (family: Family, fields: Partial<TrainToSend>): TrainToSend => {
    const [from, to] = ADDRESSES[family]
    return { from, to, fromPort: 4001, toPort: PORT, hop: 0, ...fields }
  }

  it.each([4, 6] as const)('a device without a link header and without offloads is given finished segments (IPv%i)', async (family) => {
    await using tun = await openDevice(hosts.a, inject, 'tun')
    const payload = payloadOf(2500)
    const fields = { seq: 5, ack: 6, window: 7, ttl: 33, tos: 0x28 }
    const sent = [
      trainOf(family, { ...fields, flags: ACK | PSH | FIN, segment: 1000, buffers: [payload] }),
      trainOf(family, { ...fields, flags: ACK | PSH, buffers: ['alone'] }),
      trainOf(family, { ...fields, flags: ACK }),
    ]
    expect(await send(a, [{ ifindex: tun.ifindex, header: new Uint8Array(0) }], sent)).toEqual([5, 0])
    const segments: string[] = []
    // The host itself sends neighbour and router solicitations.
    for (let i = 0; i < 50 && segments.length < 5; i++) {
      const bytes = await tun.read()
      if (bytes && bytes[bytes[0] >> 4 === 6 ? 6 : 9] === 6) segments.push(bytes.toString('hex'))
    }
    const [source, destination] = ADDRESSES[family]
    const expected = (text: string | Buffer, flags: number, at = 0, id = 0) =>
      packet({
        ...{ source, destination, sourcePort: 4001, destinationPort: PORT },
        ...{ ...fields, seq: 5 + at, flags, payload: text, id },
      }).toString('hex')
    expect(segments).toEqual([
      expected(payload.subarray(0, 1000), ACK),
      // inet_gso_segment counts the identification up.
      expected(payload.subarray(1000, 2000), ACK, 1000, 1),
      expected(payload.subarray(2000), ACK | PSH | FIN, 2000, 2),
      expected('alone', ACK | PSH),
      expected('', ACK),
    ])
  })

  it('a message that is larger than the MTU is refused, a train of smaller ones is not', async () => {
    const hops = await hopsTo(hosts.a, hosts.b)
    const [train, large, never] = [payloadOf(20_000), payloadOf(1461), payloadOf(1)].map((payload, i) =>
      trainOf(4, { segment: i === 0 ? 1460 : payload.length, buffers: [payload] }),
    )
    const EMSGSIZE = -90
    expect(await send(a, hops, [train, large, never])).toEqual([14, EMSGSIZE])
  })

  it('a device that is down, and one that has gone, refuse everything', async () => {
    const [ENETDOWN, ENXIO] = [-100, -6]
    let hop: Hop
    {
      await using tun = await openDevice(hosts.a, inject, 'tun')
      hop = { ifindex: tun.ifindex, header: new Uint8Array(0) }
      const sent = [trainOf(4, { segment: 10, buffers: [payloadOf(95)] })]
      expect(await send(a, [hop], sent)).toEqual([10, 0])
      await hosts.a.output('ip', ['link', 'set', tun.name, 'down'])
      expect(await send(a, [hop], sent)).toEqual([0, ENETDOWN])
    }
    expect(await send(a, [hop], [trainOf(4, { buffers: ['x'] })])).toEqual([0, ENXIO])
  })

  it('a full send buffer is told by EAGAIN, and onWritable follows when it has drained', async () => {
    // A queue that lets 8 KB go in a moment, but not at once; what waits there is charged to the socket.
    await hosts.a.output('tc', [
      'qdisc',
      'replace',
      'dev',
      hosts.a.iface,
      'root',
      'tbf',
      'rate',
      '2mbit',
      'burst',
      '2000',
      'limit',
      '100000',
    ])
    const hops = describeHops(await hopsTo(hosts.a, hosts.b))
    const flow = { local: hosts.a.address4, remote: hosts.b.address4, hops }
    const outcome = await a.run((ctx, arg) => ctx.state.rig.fill(arg) as Promise<{ errno: number; sent: number; writable: number }>, flow)
    await hosts.a.output('tc', ['qdisc', 'delete', 'dev', hosts.a.iface, 'root'])
    expect(outcome).toEqual({ errno: -11, sent: expect.any(Number), writable: 1 })
    expect(outcome.sent).toBeGreaterThan(0)
  })
})

// The IP header of a whole connection, from its SYN to its last ACK: what the host gives its packets, ours have too, and the option `dscp`.
import { expect, it } from 'vitest'
import { COLUMNS, FLAGS, type Packet, readPacket } from '../comparison/packets.ts'
import { capture, fields } from '../support/capture.ts'
import { type Host, twoHosts } from '../support/hosts.ts'
import { Peer } from './peer.ts'

const PORT = 9191
const HOPS = 77
const DSCP = 46

async function setHops(host: Host): Promise<void> {
  await host.output('sysctl', ['-q', '-w', `net.ipv4.ip_default_ttl=${HOPS}`, `net.ipv6.conf.${host.iface}.hop_limit=${HOPS}`])
}

/** Both ends write trains, and close. */
async function recorded(family: 4 | 6, link: 'packet' | 'raw', anyAddress: boolean): Promise<Packet[]> {
  await using hosts = await twoHosts({ offloads: false })
  await Promise.all([setHops(hosts.a), setHops(hosts.b)])
  const [server, client] = [await Peer.on(hosts.b), await Peer.on(hosts.a)]
  const host = family === 4 ? hosts.b.address4 : hosts.b.address6
  await server.listen({ host: anyAddress ? '::' : host, port: PORT, link, dscp: DSCP })
  await using recording = await capture(hosts.b, { filter: `tcp port ${PORT}` })
  const { id } = await client.dial({ host, port: PORT, link, dscp: DSCP })
  await server.next('connection')
  await expect.poll(async () => (await client.stats(id)).dialect).toBe('native')
  const messages = Array.from({ length: 30 }, () => Buffer.alloc(500, 'm'))
  await Promise.all([client.write(id, ...messages), server.write(0, ...messages)])
  for (let i = 0; i < messages.length; i++) await Promise.all([client.next('message'), server.next('message')])
  expect([(await client.stats(id)).link, (await server.stats(0)).link]).toEqual([link, link])
  await client.close(id)
  await server.next('closed')
  await recording.stop()
  return (await fields(recording.file, COLUMNS, 'tcp')).map((row) => readPacket(row, PORT))
}

it.each([
  { family: 4, link: 'packet', anyAddress: false },
  { family: 6, link: 'packet', anyAddress: false },
  { family: 4, link: 'raw', anyAddress: false },
  { family: 6, link: 'raw', anyAddress: false },
  { family: 4, link: 'packet', anyAddress: true },
  { family: 6, link: 'raw', anyAddress: true },
] as const)(
  'has the host’s hop limit and the asked-for DSCP throughout (IPv$family, link $link, any address: $anyAddress)',
  async (way) => {
    const packets = await recorded(way.family, way.link, way.anyAddress)
    expect(packets.length).toBeGreaterThan(60)
    expect(new Set(packets.map(({ hops }) => hops))).toEqual(new Set([HOPS]))
    expect(new Set(packets.map(({ trafficClass }) => trafficClass))).toEqual(new Set([DSCP << 2]))
    if (way.family === 6) expect(new Set(packets.map(({ flowLabel }) => flowLabel))).toEqual(new Set([0]))
    else for (const dialled of [true, false]) expectCounted(packets.filter((packet) => packet.dialled === dialled))
  },
)

/** Identifications of what follows the kernel's part of the handshake count up by one, those of trains included. */
function expectCounted(own: readonly Packet[]): void {
  const ours = own.slice(own[0].flags === FLAGS.SYN ? 2 : 1)
  expect(ours.filter(({ id }, i) => i > 0 && id !== ((ours[i - 1].id! + 1) & 0xffff))).toEqual([])
  expect(own.every(({ dontFragment }) => dontFragment)).toBe(true)
}

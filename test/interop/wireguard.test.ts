// The walk-through of docs/tunnel.md, done step by step over a NAT router: WireGuard works through the tunnel, at the MTU that the page names and at none above
// it, and nothing but TCP crosses the router.
import { expect, it } from 'vitest'
import { ALL_VALID } from '../e2e/nat-job.ts'
import { capture } from '../support/capture.ts'
import { table } from './guide.ts'
import { type Change, TUNNEL_PORT, WireGuard } from './wireguard.ts'

/** ICMP and IP inside. */
const PING_HEADERS = 28
/** Whatever would give the tunnel away, and fragments; but not what every host says to its neighbours (ARP, neighbour discovery, multicast listeners). */
const NOT_TCP = `(ip and (not tcp port ${TUNNEL_PORT} or ip[6:2] & 0x3fff != 0)) or (ip6 and not ip6 multicast and not (icmp6 and ip6[40] >= 133 and ip6[40] <= 136))`
const WITH_KEY = mtuOf('yes')
const WITHOUT_KEY = mtuOf('no')

/** From the page's table: IPv4 outside, with timestamps. */
function mtuOf(key: 'yes' | 'no'): number {
  const row = table('MTU').find((row) => row.outside === 'IPv4' && row.key === key && row.timestamps === 'yes')
  return Number(row?.["WireGuard's MTU"])
}

const plain: Change[] = [
  { from: / --key-file \S+/g, to: '' },
  { from: new RegExp(`\\b${WITH_KEY}\\b`, 'g'), to: `${WITHOUT_KEY}` },
  { from: new RegExp(`\\b${WITH_KEY - PING_HEADERS}\\b`, 'g'), to: `${WITHOUT_KEY - PING_HEADERS}` },
]

it.each([
  { is: 'with a key', changes: [], mtu: WITH_KEY },
  { is: 'without a key', changes: plain, mtu: WITHOUT_KEY },
])('WireGuard runs through the tunnel as the walk-through says, $is', { timeout: 120_000 }, async ({ changes, mtu }) => {
  await using wireguard = await WireGuard.start(changes)
  const { client, routed, ends } = wireguard
  await using recording = await capture(routed.router, { iface: routed.outside.name, filter: NOT_TCP })
  await wireguard.follow('4. Does it work?')
  for (const direction of ['up', 'down'] as const) expect((await wireguard.stream(1, direction)).bytes).toBeGreaterThan(1e6)

  // One byte more is too much for the device; where the device is told more, it is too much for the tunnel, which says so.
  const full = `ping -c 1 -W 2 -M do -s ${mtu - PING_HEADERS} 10.9.0.1`
  const more = `ping -c 1 -W 2 -M do -s ${mtu - PING_HEADERS + 1} 10.9.0.1`
  expect([await client.succeeds(full), await client.succeeds(more)]).toEqual([true, false])
  await client.run(`ip link set wg0 mtu ${mtu + 1}`)
  expect(await client.succeeds(more)).toBe(false)
  await ends[1].prints(new RegExp(`MTU = ${mtu}\\b`))
  await client.run(`ip link set wg0 mtu ${mtu}`)
  expect(await client.succeeds(full)).toBe(true)

  expect(await routed.entries(TUNNEL_PORT)).toHaveLength(1)
  expect(await routed.invalid()).toEqual(ALL_VALID)
  // The recorder does see what is not TCP: this question and its answer, and nothing else.
  await client.run('ping -c 1 vpn.example.net')
  expect((await recording.stop()).captured).toBe(2)
})

it('WireGuard goes on by itself when the tunnel server is killed and started again', { timeout: 60_000 }, async () => {
  await using wireguard = await WireGuard.start()
  await wireguard.follow('4. Does it work?')
  const shakenHands = () => wireguard.client.run('wg show wg0 latest-handshakes')
  const before = await shakenHands()
  await wireguard.restartServer()
  // The first answer within the time ends it.
  await wireguard.client.run('ping -c 1 -w 15 10.9.0.1')
  expect(await shakenHands()).toBe(before)
})

it('all of the client goes through WireGuard but the tunnel itself', { timeout: 60_000 }, async () => {
  await using wireguard = await WireGuard.start()
  const { client, server, routed } = wireguard
  await wireguard.follow('4. Does it work?')
  await client.run('wg-quick down wg0')
  await wireguard.follow('Everything through it')
  // An address that only the way through WireGuard leads to.
  await server.run('ip address add 192.0.2.1/32 dev lo; wg set wg0 peer $(wg show wg0 peers) allowed-ips 10.9.0.2/32')
  await client.run('ping -c 3 192.0.2.1')
  // One for each of the two interfaces, which have a UDP port each.
  expect(await routed.entries(TUNNEL_PORT)).toHaveLength(2)
  await client.run('wg-quick down wg1')
  expect(await client.run('ip route show')).not.toContain(routed.server.address4)
})

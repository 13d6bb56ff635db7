// The arithmetic of docs/tunnel.md: each row of its table is what a tunnel over that path says itself, and what it takes.
import { expect, it } from 'vitest'
import { TunnelPeer, UdpPeer } from '../e2e/tunnel-ends.ts'
import { twoHosts } from '../support/hosts.ts'
import { table } from './guide.ts'

const rows = table('MTU')

it('the table has every combination', () => {
  const combinations = rows.map(({ outside, key, timestamps }) => `${outside} ${key} ${timestamps}`)
  expect(new Set(combinations).size).toBe(8)
})

it.each(rows)('IP is $outside, key: $key, timestamps: $timestamps', async (row) => {
  await using hosts = await twoHosts()
  const { a, b } = hosts
  if (row.timestamps === 'no') await a.output('sysctl', ['-q', '-w', 'net.ipv4.tcp_timestamps=0'])
  const key = row.key === 'yes' ? { key: 'a secret that only the two ends have' } : {}
  const at = row.outside === 'IPv4' ? `${b.address4}:4000` : `[${b.address6}]:4000`
  await TunnelPeer.server(b, { listen: at, to: '127.0.0.1:7000', ...key })
  const client = await TunnelPeer.client(a, { listen: '127.0.0.1:7001', to: at, ...key })
  const [user, service] = [await UdpPeer.on(a), await UdpPeer.on(b)]
  await service.open(7000)
  const { id } = await user.open()
  const longest = Number(row['longest datagram'])
  await user.send(id, 7001, 'x'.repeat(longest))
  expect((await service.next()).text).toHaveLength(longest)
  await user.send(id, 7001, 'x'.repeat(longest + 1))
  const { code, message } = await client.next('warning')
  expect({ code, message }).toEqual({ code: 'message-size', message: expect.stringContaining(`MTU = ${row["WireGuard's MTU"]} `) })
})

// The hosts' own connection tracking sees only one direction of what is sent by AF_PACKET: it must neither drop the other one nor keep entries.
import { expect, it } from 'vitest'
import { twoHosts } from '../support/hosts.ts'
import { expectNoEntriesLeft, track } from './conntrack-job.ts'
import { echo } from './echo-job.ts'
import { Peer } from './peer.ts'

it('after 500 flows by packet no entry is left on either host', () => expectNoEntriesLeft(500), 60_000)

it.each([4, 6] as const)('an INPUT rule on both hosts that drops what is invalid does no harm (IPv%s)', async (family) => {
  await using hosts = await twoHosts()
  await track(hosts.a)
  await track(hosts.b)
  const [server, client] = [await Peer.on(hosts.b), await Peer.on(hosts.a)]
  const host = family === 4 ? hosts.b.address4 : hosts.b.address6
  await server.listen({ host, port: 9191, echo: true, link: 'packet' })
  const { id } = await client.dial({ host, port: 9191, link: 'packet' })
  const all = { intact: 20_000, foreign: 0, lost: 0 }
  expect(await echo(client, { id, messages: 20_000, seed: 8 })).toMatchObject(all)
  expect(await echo(client, { id, messages: 20_000, seed: 9, size: 1200 })).toMatchObject(all)
  // The rule was there for something: tracking that does not see our segments leave takes the peer's answers for invalid.
  const counters = await hosts.a.output('nft', ['list', 'counters'])
  expect(Number(/packets (\d+)/.exec(counters)?.[1])).toBeGreaterThan(0)
  await client.close(id)
  expect(await server.next('closed')).toEqual({ id: 0, code: undefined })
})

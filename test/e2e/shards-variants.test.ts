// A shared port with each kind of capture, address, peer and privilege; who may share it; and how a member leaves it.
import { expect, it } from 'vitest'
import { twoHosts } from '../support/hosts.ts'
import { expectExit, expectNothingLeft, held } from './leftovers.ts'
import { Peer } from './peer.ts'
import { Clients, figuresOf, portsFrom, processes, SHARDED_PORT, sharesOf, threads } from './shards.ts'

it.each([
  { kind: 'packet capture, both families on one listener', mode: 'packet', dualStack: true },
  { kind: 'raw capture, IPv6', mode: 'raw', dualStack: false },
] as const)('$kind: each connection finds its shard, also while one is missing', async ({ mode, dualStack }) => {
  await using hosts = await twoHosts()
  const { a, b } = hosts
  const shards = await threads(
    b,
    3,
    dualStack ? { port: SHARDED_PORT, capture: mode } : { host: b.address6, port: SHARDED_PORT, capture: mode },
  )
  for (const index of [1, 0, 2]) await shards.start(index)
  const clients = await Clients.on(a)
  const ends = (first: number) => [
    ...portsFrom(first, 30, b.address6),
    ...(dualStack ? portsFrom(first, 30, b.address4) : portsFrom(first + 100, 30, b.address6)),
  ]
  const served = await clients.dial(ends(20_000))
  expect(sharesOf(served, 3).every((share) => share > 5)).toBe(true)
  // Each family's hash is its own: the same ports of both are divided in different ways.
  if (dualStack) expect(served.slice(0, 30)).not.toEqual(served.slice(30))
  await shards.kill(2)
  expect(await clients.dial(ends(30_000), { once: false })).not.toContain(2)
  expect(await clients.duplicates()).toEqual([])
})

it('CAP_NET_RAW is enough', async () => {
  await using hosts = await twoHosts()
  const { a, b } = hosts
  const shards = await processes(b, 2, { host: b.address4, port: SHARDED_PORT }, { capabilities: 'net_raw' })
  for (const index of [1, 0]) await shards.start(index)
  const clients = await Clients.on(a)
  const served = await clients.dial(portsFrom(20_000, 40, b.address4))
  expect(sharesOf(served, 2).every((share) => share > 5)).toBe(true)
  expect(await figuresOf(shards, [0, 1])).toMatchObject({ accepted: 40, strays: 0, steered: true })
})

it('peers without a hello are served as well, by their own shard and by another', async () => {
  await using hosts = await twoHosts()
  const { a, b } = hosts
  const shards = await processes(b, 2, { host: b.address4, port: SHARDED_PORT })
  await shards.start(1)
  const clients = await Clients.on(a)
  const asTcpraw = (first: number) => portsFrom(first, 20, b.address4).map((end) => ({ ...end, dialect: 'tcpraw' as const }))
  expect(new Set(await clients.dial(asTcpraw(20_000), { once: false }))).toEqual(new Set([1]))
  await shards.start(0)
  const served = await clients.dial(asTcpraw(30_000))
  expect(sharesOf(served, 2).every((share) => share > 3)).toBe(true)
  expect(await clients.duplicates()).toEqual([])
})

it('a shard is there once, and a port is shared by all of its listeners or by none', async () => {
  await using hosts = await twoHosts()
  const { b } = hosts
  const [one, two] = [await Peer.on(b), await Peer.on(b)]
  const host = b.address4
  await one.listen({ host, port: SHARDED_PORT, shard: { index: 0, count: 2 } })
  const again = await two.listenError({ host, port: SHARDED_PORT, shard: { index: 0, count: 2 } })
  expect(again).toMatchObject({ code: 'EADDRINUSE', syscall: 'bind', address: host, port: SHARDED_PORT })
  expect(again.message).toBe(`bind EADDRINUSE ${host}:${SHARDED_PORT} (its shard 0 is there already)`)
  expect(await two.listenError({ host, port: SHARDED_PORT })).toMatchObject({ code: 'EADDRINUSE', syscall: 'bind' })
  await two.listen({ host, port: SHARDED_PORT, shard: { index: 1, count: 2 } })
  await one.closeListener()
  await one.listen({ host, port: SHARDED_PORT, shard: { index: 0, count: 2 } })

  await two.closeListener()
  await one.closeListener()
  await one.listen({ host, port: SHARDED_PORT })
  expect(await two.listenError({ host, port: SHARDED_PORT })).toMatchObject({ code: 'EADDRINUSE', syscall: 'bind' })
  const mixed = await two.listenError({ host, port: SHARDED_PORT, shard: { index: 0, count: 2 } })
  expect(mixed).toMatchObject({ code: 'EADDRINUSE', syscall: 'bind' })
  expect(mixed.message).toContain('a port is shared by all of its listeners or by none')
  expect(await one.listenError({ host, port: 0, shard: { index: 0, count: 2 } })).toMatchObject({ code: 'ERR_FAKETCP_INVALID_OPTION' })
})

it('closing one leaves its connections open and its handshakes to the others, and nothing behind', async () => {
  await using hosts = await twoHosts()
  const { a, b } = hosts
  const [one, two] = [await Peer.on(b), await Peer.on(b)]
  const before = await held(one)
  await one.listen({ host: b.address4, port: SHARDED_PORT, shard: { index: 0, count: 2 }, echo: true })
  const clients = await Clients.on(a)
  // Its own, and strays of the shard that is not there yet.
  await clients.dial(portsFrom(20_000, 20, b.address4), { once: false })
  await two.listen({ host: b.address4, port: SHARDED_PORT, shard: { index: 1, count: 2 }, echo: true })
  await one.closeListener()
  await clients.dial(portsFrom(30_000, 20, b.address4), { once: false })
  await clients.ask([...Array(40).keys()], 'still')
  expect(await clients.duplicates()).toEqual([])
  await clients.closeAll()
  await expectNothingLeft(one, before)
  await expectExit(one)
})

// Many threads or processes on one port: every flow lives on one, every message arrives once, and none of them minds the death of another.
import { setTimeout as delay } from 'node:timers/promises'
import { expect, it } from 'vitest'
import { capture } from '../support/capture.ts'
import { twoHosts } from '../support/hosts.ts'
import { type ClientEnd, Clients, figuresOf, portsFrom, processes, SHARDED_PORT, sharesOf, threads } from './shards.ts'

it.each([
  { kind: 'threads', spread: 'even ports of one client', make: threads },
  { kind: 'processes', spread: 'many clients', make: processes },
])('1 000 flows over four $kind: $spread are divided within 25 % of even, and each message arrives once', async ({ spread, make }) => {
  await using hosts = await twoHosts()
  const { a, b } = hosts
  const shards = await make(b, 4, { host: b.address4, port: SHARDED_PORT })
  // Not in the order of their indexes: the kernel's numbers are all wrong then, and every handshake has to find its way.
  for (const index of [2, 0, 3, 1]) await shards.start(index)
  const clients = await Clients.on(a)
  const ends: ClientEnd[] = []
  if (spread === 'many clients') {
    const addresses = Array.from({ length: 100 }, (_, i) => `10.77.0.${100 + i}`)
    for (const address of addresses) await a.addAddress(`${address}/24`)
    for (let i = 0; i < 1000; i++)
      ends.push({ host: b.address4, port: SHARDED_PORT, localAddress: addresses[i % 100], localPort: 20_000 + Math.floor(i / 100) })
  } else for (let i = 0; i < 1000; i++) ends.push({ host: b.address4, port: SHARDED_PORT, localPort: 20_000 + i * 2 })
  const shares = sharesOf(await clients.dial(ends), 4)
  expect(shares.reduce((sum, share) => sum + share)).toBe(1000)
  for (const share of shares) {
    expect(share).toBeGreaterThan(250 * 0.75)
    expect(share).toBeLessThan(250 * 1.25)
  }
  expect(await clients.duplicates()).toEqual([])
  const figures = await figuresOf(shards, [0, 1, 2, 3])
  expect(figures).toMatchObject({ accepted: 1000, refused: 0, strays: 0, exceptions: 0, steered: true, takenOver: figures.handedOver })
  expect(figures.handedOver).toBeGreaterThan(500)
})

it.each([
  { kind: 'threads', make: threads },
  { kind: 'processes', make: processes },
])('$kind: the death and return of a shard disturb nobody else, and every port can connect at any moment', async ({ make }) => {
  await using hosts = await twoHosts()
  const { a, b } = hosts
  const shards = await make(b, 4, { host: b.address4, port: SHARDED_PORT })
  for (const index of [0, 1, 2, 3]) await shards.start(index)
  const clients = await Clients.on(a)
  const first = await clients.dial(portsFrom(20_000, 80, b.address4))
  const others = first.flatMap((index, at) => (index === 1 ? [] : [at]))
  expect(others.length).toBeGreaterThan(40)

  await shards.kill(1)
  // Whose handshakes belong to the missing shard, somebody else keeps.
  const meanwhile = await clients.dial(portsFrom(30_000, 80, b.address4), { once: false })
  expect(meanwhile).not.toContain(1)
  expect(await clients.ask(others, 'alive')).toEqual(others.map((at) => first[at]))
  const without = await figuresOf(shards, [0, 2, 3])
  expect(without.strays).toBeGreaterThan(5)
  expect(without).toMatchObject({ exceptions: without.strays, wholeShards: 0 })

  await shards.start(1)
  // The kernel's numbers have moved: shard 1 is the last of the group now.
  const after = await clients.dial(portsFrom(40_000, 80, b.address4))
  expect(sharesOf(after, 4).every((share) => share > 5)).toBe(true)
  const figures = await figuresOf(shards, [0, 1, 2, 3])
  expect(figures.strays).toBe(without.strays)
  expect(figures.takenOver).toBe(figures.handedOver)
  expect(figures.handedOver).toBeGreaterThan(20)

  // What was kept meanwhile lives on where it is, though shard 1 sees its packets as well now.
  const kept = meanwhile.map((_, at) => first.length + at)
  expect(await clients.ask(kept, 'still')).toEqual(meanwhile)
  expect(await clients.ask(others, 'also')).toEqual(others.map((at) => first[at]))
  expect(await clients.duplicates()).toEqual([])
  expect(await clients.gone()).toEqual(first.flatMap((index, at) => (index === 1 ? [at] : [])))

  // Exceptions go with their flows.
  await clients.closeAll()
  await expect.poll(async () => (await figuresOf(shards, [0, 2, 3])).exceptions, { timeout: 8000 }).toBe(0)
})

it('beyond 64 exceptions a whole shard is captured besides, and no longer when few are left', async () => {
  await using hosts = await twoHosts()
  const { a, b } = hosts
  const shards = await processes(b, 2, { host: b.address4, port: SHARDED_PORT })
  await shards.start(0)
  const clients = await Clients.on(a)
  const served = await clients.dial(portsFrom(20_000, 200, b.address4), { once: false })
  expect(new Set(served)).toEqual(new Set([0]))
  expect(await shards.figures(0)).toMatchObject({ shard: { exceptions: 0, wholeShards: 1 }, accepted: 200, refused: 0 })
  // The other shard comes, and sees the same packets.
  await shards.start(1)
  expect(await clients.ask([...served.keys()], 'still')).toEqual(served)
  const own = await clients.dial(portsFrom(40_000, 60, b.address4))
  expect(own.filter((index) => index === 1).length).toBeGreaterThan(10)
  expect(
    await clients.ask(
      own.map((_, i) => 200 + i),
      'each',
    ),
  ).toEqual(own)
  expect(await clients.duplicates()).toEqual([])
  await clients.closeAll()
  await expect.poll(async () => (await shards.figures(0)).shard, { timeout: 8000 }).toMatchObject({ exceptions: 0, wholeShards: 0 })
})

it('a shard that came back leaves alone what another keeps: nobody resets it, and nothing is heard twice', async () => {
  await using hosts = await twoHosts()
  const { a, b } = hosts
  const shards = await processes(b, 2, { host: b.address4, port: SHARDED_PORT })
  await shards.start(0)
  const clients = await Clients.on(a)
  await using wire = await capture(a, { filter: `tcp port ${SHARDED_PORT} and tcp[13] & 4 != 0` })
  const served = await clients.dial(portsFrom(20_000, 20, b.address4), { once: false })
  await shards.start(1)
  // Unknown data would be answered by a reset after 5 s.
  for (let round = 0; round < 14; round++) {
    expect(await clients.ask([...served.keys()], `round${round}`)).toEqual(served)
    await delay(500)
  }
  const { strays } = (await shards.figures(0)).shard
  expect(strays).toBeGreaterThan(5)
  expect((await shards.figures(1)).accepted).toBe(0)
  expect(await clients.gone()).toEqual([])
  expect(await clients.duplicates()).toEqual([])
  await wire.stop()
  expect(await wire.segments()).toEqual([])
})

it.each([
  { kind: 'threads', make: threads },
  { kind: 'processes', make: processes },
])('$kind: connections that come in while shards die and return are all served, and nothing leaks', async ({ make }) => {
  await using hosts = await twoHosts()
  const { a, b } = hosts
  const shards = await make(b, 3, { host: b.address4, port: SHARDED_PORT })
  for (const index of [0, 1, 2]) await shards.start(index)
  const before = await shards.sockets(0)
  const clients = await Clients.on(a)
  const stop = await clients.storm({ host: b.address4, port: SHARDED_PORT })
  for (let round = 0; round < 4; round++) {
    for (const index of [1, 2]) {
      await shards.kill(index)
      await delay(100)
      await shards.start(index)
      await delay(200)
    }
  }
  const { served, again } = await stop()
  expect(served).toBeGreaterThan(100)
  expect(again).toBeLessThan(8 * 10) // no more than what each death found open
  expect(await clients.duplicates()).toEqual([])
  await expect.poll(() => shards.sockets(0), { timeout: 8000 }).toBe(before)
  expect(await shards.figures(0)).toMatchObject({ shard: { exceptions: 0, wholeShards: 0 } })
})

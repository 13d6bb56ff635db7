// Idle connections: what goes over the wire to keep them, and how a peer that is gone without a word is found.
import { afterEach, expect, it } from 'vitest'
import { capture } from '../support/capture.ts'
import { createNetwork, type Network } from '../support/hosts.ts'
import { Peer, type PeerDialOptions, type PeerListenOptions } from './peer.ts'

const PORT = 9191
const KEEP_ALIVE_MS = 600

let network: Network | undefined
afterEach(() => network?.remove())

async function connected(client: Partial<PeerDialOptions>, server: Partial<PeerListenOptions>) {
  network = await createNetwork()
  const [a, b] = [await network.addHost('a'), await network.addHost('b')]
  await network.link(a, b, { offloads: false })
  const [peerB, peerA] = [await Peer.on(b), await Peer.on(a)]
  await peerB.listen({ host: b.address4, port: PORT, ...server })
  const { id } = await peerA.dial({ host: b.address4, port: PORT, ...client })
  await peerB.next('connection')
  await peerA.write(id, 'a message')
  await peerB.next('message')
  return { a, b, client: peerA, server: peerB, id }
}

it('an idle connection is asked for a sign of life, as a kernel asks, and answers', async () => {
  const { a, b, client, id } = await connected({ keepAliveMs: KEEP_ALIVE_MS }, { keepAliveMs: 0 })
  const wire = await capture(b)
  // Its own figure, for it must not end, and stays below twice the time only if answers come.
  const silence = async () => (await client.stats(id)).idleMs
  await expect.poll(silence, { interval: 20, timeout: 5000 }).toBeGreaterThan(KEEP_ALIVE_MS / 2)
  await expect.poll(silence, { interval: 20, timeout: 5000 }).toBeLessThan(KEEP_ALIVE_MS / 2)
  await expect.poll(silence, { interval: 20, timeout: 5000 }).toBeGreaterThan(KEEP_ALIVE_MS / 2)
  await expect.poll(silence, { interval: 20, timeout: 5000 }).toBeLessThan(KEEP_ALIVE_MS / 2)
  await wire.stop()
  const segments = await wire.segments()
  const [asked, answered] = [a, b].map((host) => segments.filter(({ src }) => src === host.address4))
  expect(asked.length).toBeGreaterThanOrEqual(2)
  expect(answered.length).toBeGreaterThanOrEqual(2)
  for (const { flags, len } of segments) expect({ flags, len }).toEqual({ flags: 'A', len: 0 })
  // One below what the other end has acknowledged (RFC 9293, 3.8.4), which answers with what it has.
  for (const { seq } of asked) expect((answered[0].ack - seq) | 0).toBe(1)
})

it('a peer that has vanished without a word: ETIMEDOUT, once, at both ends', async () => {
  const options = { keepAliveMs: KEEP_ALIVE_MS }
  const { a, client, server } = await connected(options, options)
  await a.output('ip', ['link', 'set', a.iface, 'down'])
  const closed = await Promise.all([client.next('closed'), server.next('closed')])
  expect(closed.map(({ code }) => code)).toEqual(['ETIMEDOUT', 'ETIMEDOUT'])
  expect([await client.flows(), await server.flows()]).toEqual([1, 1]) // in time wait
  await expect.poll(async () => [await client.flows(), await server.flows()], { timeout: 5000 }).toEqual([0, 0])
})

it('keepAliveMs: 0 asks nothing', async () => {
  const { b, client, id } = await connected({ keepAliveMs: 0 }, { keepAliveMs: 0 })
  const silence = async () => (await client.stats(id)).idleMs
  await expect.poll(silence, { timeout: 10_000 }).toBeGreaterThan(KEEP_ALIVE_MS)
  const wire = await capture(b)
  await expect.poll(silence, { timeout: 10_000 }).toBeGreaterThan(4 * KEEP_ALIVE_MS)
  await wire.stop()
  expect(await wire.segments()).toEqual([])
})

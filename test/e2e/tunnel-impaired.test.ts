// The tunnel over a link that loses, doubles and reorders: flows open all the same, what is doubled arrives once, and both ends know the loss.
import { expect, it } from 'vitest'
import { createNetwork } from '../support/hosts.ts'
import { impairedLink } from '../support/impairment.ts'
import { KEY, tunnelled, USERS } from './tunnel-ends.ts'

const FLOWS = 24
const DATAGRAMS = 20_000
const PER_TICK = 100

it('handshakes that lose their messages are repeated until every flow is open', async () => {
  await using network = await createNetwork()
  const hosts = { a: await network.addHost('a'), b: await network.addHost('b') }
  await impairedLink(network, hosts.a, hosts.b, { aToB: { duplicate: 0.1, payloadOnly: true }, bToA: { loss: 0.25, payloadOnly: true } })
  const { client, server } = await tunnelled(hosts, { key: KEY, flows: FLOWS, connectTimeoutMs: 25_000 }, { key: KEY })
  for (const end of [client, server]) {
    await expect.poll(async () => (await end.stats()).flows.filter(({ state }) => state === 'open').length, { timeout: 20_000 }).toBe(FLOWS)
  }
  // A repeat on the same flow is a repeat: no other flow, no replay, nor a message that is not authentic.
  expect(await server.stats()).toMatchObject({ flowsTotal: FLOWS, drops: { auth: 0, malformed: 0 } })
}, 60_000)

it('both ends know what the link has lost, and what it doubled is delivered once', async () => {
  await using network = await createNetwork()
  const hosts = { a: await network.addHost('a'), b: await network.addHost('b') }
  const link = await impairedLink(network, hosts.a, hosts.b)
  const tunnel = await tunnelled(hosts, { key: KEY, flows: 1 }, { key: KEY })
  const { client, server, users } = tunnel
  expect(await client.next('flow')).toMatchObject({ state: 'open' })
  const { id } = await users.open()
  await link.set('aToB', { loss: 0.05, duplicate: 0.03, payloadOnly: true })
  const before = (await link.stats()).aToB.payload
  await users.agent.run(
    async (ctx, { id, port, datagrams, perTick }) => {
      for (let sent = 0; sent < datagrams; sent += perTick) {
        for (let i = 0; i < perTick; i++) ctx.state.sockets[id].send('x'.repeat(200), port, '127.0.0.1')
        await new Promise((next) => setTimeout(next, 2))
      }
    },
    { id, port: USERS, datagrams: DATAGRAMS, perTick: PER_TICK },
  )
  await expect.poll(async () => (await client.stats()).out.datagrams, { timeout: 10_000 }).toBe(DATAGRAMS)
  await expect.poll(async () => (await link.stats()).aToB.all.waiting).toBe(0)
  await link.set('aToB', { loss: 0, duplicate: 0 })
  const { payload } = (await link.stats()).aToB
  const lost = payload.dropped.loss - before.dropped.loss
  expect(lost).toBeGreaterThan(DATAGRAMS * 0.03)
  // What comes now arrives, and calls for reports that do.
  await users.send(id, USERS, 'the last one')
  await expect.poll(async () => (await server.stats()).lostIn, { timeout: 10_000 }).toBe(lost)
  await expect.poll(async () => (await client.stats()).lostOut, { timeout: 10_000 }).toBe(lost)
  const arrived = await server.stats()
  // Reports may be among the lost.
  const missing = DATAGRAMS + 1 - arrived.in.datagrams
  expect(missing).toBeGreaterThan(lost - 60)
  expect(missing).toBeLessThanOrEqual(lost)
  expect(arrived.drops.replay).toBeGreaterThan(0)
  expect(arrived.flows[0].lossIn).toBeGreaterThan(0)
}, 60_000)

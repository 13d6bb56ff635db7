// A router in between that masquerades and drops what its connection tracking takes for invalid: a flow is to it what any other TCP is, in one
// direction alone, at small windows, under loss and reordering, and after a silence.
import { setTimeout as delay } from 'node:timers/promises'
import { expect, it } from 'vitest'
import { bulk } from './bulk-job.ts'
import { echo } from './echo-job.ts'
import { ALL_VALID, FAR, PORT, ROUGH, SMALL_WINDOWS, type ThroughOptions, through, transfer } from './nat-job.ts'

const LINKS = ['packet', 'raw'] as const
/** As fast as the stream takes them, and nothing comes back but acknowledgements. */
const HEADLONG = { messages: 20_000, size: 1400, by: 'train', pace: Number.POSITIVE_INFINITY } as const

it.each([
  { family: 4, masquerade: 'nftables', is: 'trains cross whole', offloads: {} },
  { family: 6, masquerade: 'iptables', is: 'trains cross whole', offloads: {} },
  { family: 4, masquerade: 'iptables', is: 'every segment crosses alone', offloads: { tso: false, gro: false } },
  { family: 6, masquerade: 'nftables', is: 'every segment crosses alone', offloads: { tso: false, gro: false } },
] as (ThroughOptions & { is: string })[])('$masquerade, IPv$family, $is: all arrives, nothing is invalid', async (options) => {
  await using scene = await through(options)
  const { routed, client, server, ids } = scene
  const host = options.family === 4 ? routed.server.address4 : routed.server.address6
  // Another client beside: the echo of the first, the stream of the second.
  const second = await client.dial({ host, port: PORT, echo: true })
  const { id } = await server.next('connection')
  const all = { intact: 20_000, foreign: 0, lost: 0 }
  expect(await echo(server, { id, messages: 20_000, seed: 10 })).toMatchObject(all)
  expect(await echo(server, { id, messages: 20_000, seed: 11, size: 1300 })).toMatchObject(all)

  const job = { messages: 50_000, size: 1400, by: 'train' } as const
  const result = await bulk({ from: client, id: ids.client }, { to: server, id: ids.server }, job)
  expect(result).toEqual({ intact: job.messages, corrupt: 0, doubled: 0, lost: 0 })
  for (const one of [ids.client, second.id]) expect(await client.stats(one)).toMatchObject({ link: 'packet', dialect: 'native' })
  for (const one of [ids.client, second.id]) await client.close(one)
  expect(await routed.invalid()).toEqual(ALL_VALID)
})

it.each(LINKS.flatMap((link) => (['up', 'down', 'both'] as const).map((direction) => ({ link, direction }))))(
  'headlong, nothing but acknowledgements comes back: nothing is invalid (link $link, $direction)',
  async ({ link, direction }) => {
    await using scene = await through({ link })
    const entries = await scene.routed.entries(PORT)
    expect(entries).toEqual([expect.stringContaining('[ASSURED]')])
    const outcome = await transfer(scene, direction, HEADLONG)
    expect(outcome).toMatchObject({ corrupt: 0, doubled: 0, invalid: ALL_VALID })
    expect(outcome.intact).toBeGreaterThan(HEADLONG.messages / 2)
    expect(await scene.routed.entries(PORT)).toEqual(entries)
  },
)

it.each(LINKS)(
  'windows of 64 KiB and a round trip of 10 ms: numbering is set back all the time, nothing is invalid (link %s)',
  async (link) => {
    await using scene = await through({ link, sysctls: SMALL_WINDOWS, impaired: { link: 'outside', ...FAR } })
    const outcome = await transfer(scene, 'both', HEADLONG)
    expect(outcome).toMatchObject({ corrupt: 0, doubled: 0, invalid: ALL_VALID })
    expect(outcome.setBacks).toBeGreaterThan(100)
    expect(outcome.intact).toBeGreaterThan(HEADLONG.messages / 2)
  },
)

it.each(LINKS)('one in fifty lost and reordered each way, from the handshake on: nothing is invalid (link %s)', async (link) => {
  await using scene = await through({ link, impaired: { link: 'inside', ...ROUGH } })
  const outcome = await transfer(scene, 'both', HEADLONG)
  expect(outcome).toMatchObject({ corrupt: 0, doubled: 0, invalid: ALL_VALID })
  const { aToB, bToA } = await scene.routed.link!.stats()
  expect(aToB.payload.dropped.loss + bToA.payload.dropped.loss).toBeGreaterThan(100)
  expect(aToB.payload.reordered + bToA.payload.reordered).toBeGreaterThan(100)
})

it.each(LINKS)('what the link loses is lost, what it doubles comes twice, and nothing else (link %s)', async (link) => {
  await using scene = await through({ link, impaired: { link: 'outside' } })
  const { client, server, ids, routed } = scene
  // Hellos are segments with payload, too, and no messages: they are over by then.
  await expect.poll(async () => (await client.stats(ids.client)).dialect).toBe('native')
  await routed.link!.setBoth({ loss: 0.02, duplicate: 0.01, reorder: 0.02, payloadOnly: true })
  const outcome = await transfer(scene, 'both', { messages: 30_000, size: 1000, by: 'message', pace: 15_000 })
  const { aToB, bToA } = await routed.link!.stats()
  const { dropped, duplicated } = aToB.payload
  // Nothing was lost in silence: neither in the kernels nor in front of a slow reader.
  const silent = { kernelDrops: 0, droppedIn: 0, droppedOut: 0 }
  expect([await client.stats(ids.client), await server.stats(ids.server)]).toMatchObject([silent, silent])
  expect([aToB.overflow, bToA.overflow]).toEqual([0, 0])
  expect(outcome).toMatchObject({
    lost: dropped.loss + bToA.payload.dropped.loss,
    doubled: duplicated + bToA.payload.duplicated,
    corrupt: 0,
    invalid: ALL_VALID,
  })
  expect(dropped.loss).toBeGreaterThan(100)
})

it('keepAliveMs keeps the router’s entry through a silence that would end it, and the server may speak first', async () => {
  await using scene = await through({ timeouts: { established: 2 }, keepAliveMs: 500 })
  const { routed, client, server, ids } = scene
  await client.write(ids.client, 'before')
  await server.next('message')
  const entries = await routed.entries(PORT)
  await delay(5000)
  expect(await routed.entries(PORT)).toEqual(entries)
  await server.write(ids.server, 'after')
  expect((await client.next('message')).text).toBe('after')
  expect(await routed.invalid()).toEqual(ALL_VALID)
})

it('without keepAliveMs such a silence ends the entry', async () => {
  await using scene = await through({ timeouts: { established: 2 }, keepAliveMs: 0 })
  await expect.poll(() => scene.routed.entries(PORT), { timeout: 10_000, interval: 250 }).toEqual([])
})

it.each(LINKS)(
  'the router sees connections end as those of any TCP: TIME_WAIT after close(), CLOSE after destroy() (link %s)',
  async (link) => {
    await using scene = await through({ link })
    const { routed, client, server, ids } = scene
    const second = await client.dial({ host: routed.server.address4, port: PORT, link })
    await server.next('connection')
    await client.write(ids.client, 'before the end')
    await client.write(second.id, 'before the end')
    await server.next('message')
    await server.next('message')
    const states = async () => {
      const entries = await routed.entries(PORT)
      return Object.fromEntries(entries.map((entry) => [/sport=(\d+)/.exec(entry)?.[1], entry.split(/ +/)[2]]))
    }
    const { localPort } = await client.agent.run((ctx, id) => ({ localPort: ctx.state.conns[id].localPort }), ids.client)
    expect(await states()).toEqual({ [localPort]: 'ESTABLISHED', [second.localPort]: 'ESTABLISHED' })
    await client.close(ids.client)
    await client.destroy(second.id)
    for (let i = 0; i < 2; i++) await server.next('closed')
    await expect.poll(states).toEqual({ [localPort]: 'TIME_WAIT', [second.localPort]: 'CLOSE' })
    // Nor do the carriers say anything when the time comes for them to go.
    await expect.poll(() => client.flows(), { timeout: 5000 }).toBe(0)
    expect(await states()).toEqual({ [localPort]: 'TIME_WAIT', [second.localPort]: 'CLOSE' })
    expect(await routed.invalid()).toEqual(ALL_VALID)
  },
)

it.each(LINKS)(
  'a connection that is destroyed while both ends send: no reset is invalid, the other end is told (link %s)',
  async (link) => {
    await using scene = await through({ link, impaired: { link: 'inside', ...FAR } })
    const { routed, client, server, ids } = scene
    for (const [peer, id] of [
      [client, ids.client],
      [server, ids.server],
    ] as const) {
      await peer.agent.run((ctx, id) => {
        const conn = ctx.state.conns[id]
        const timer = setInterval(() => conn.write(Buffer.alloc(100)), 1)
        conn.once('close', () => clearInterval(timer))
      }, id)
    }
    const arrived = async () => (await server.stats(ids.server)).messagesIn
    await expect.poll(arrived).toBeGreaterThan(100)
    await client.destroy(ids.client)
    expect(await server.next('closed')).toEqual({ id: ids.server, code: 'ECONNRESET' })
    await expect.poll(() => client.flows(), { timeout: 5000 }).toBe(0)
    expect(await routed.invalid()).toEqual(ALL_VALID)
  },
)

// Conversations outlive their flows: whatever ends those, the client dials again and the UDP applications go on with the same sockets.
import { expect, it } from 'vitest'
import { type Host, twoHosts } from '../support/hosts.ts'
import { echoed, KEY, SERVER, SERVICE, type Tunnelled, TunnelPeer, tunnelled, USERS } from './tunnel-ends.ts'

/** A conversation goes on so soon after its way is free again. */
const RESUME_MS = 3000
const OUTAGE_MS = 10_000
/** After so long without an answer a client gives a flow up. */
const SILENCE_MS = 5000

/** Sends a datagram every 50 ms until one is echoed. */
async function resumed({ users }: Tunnelled, id: number): Promise<void> {
  await users.agent.run(
    async (ctx, { id, port, limitMs }) => {
      const socket = ctx.state.sockets[id]
      await new Promise<void>((resolve, reject) => {
        const sending = setInterval(() => socket.send('resumed?', port, '127.0.0.1'), 50)
        const limit = setTimeout(() => end(() => reject(new Error(`No echo within ${limitMs} ms`))), limitMs)
        const end = (settle: () => void) => {
          clearInterval(sending)
          clearTimeout(limit)
          socket.off('message', onMessage)
          settle()
        }
        const onMessage = () => end(resolve)
        socket.on('message', onMessage)
      })
    },
    { id, port: USERS, limitMs: RESUME_MS },
  )
}

/** Keeps sending for a while, as applications do that wait for an answer. */
async function sendFor({ users }: Tunnelled, id: number, ms: number): Promise<void> {
  await users.agent.run(
    async (ctx, { id, port, ms }) => {
      const sending = setInterval(() => ctx.state.sockets[id].send('still there?', port, '127.0.0.1'), 200)
      await new Promise((resolve) => setTimeout(resolve, ms))
      clearInterval(sending)
    },
    { id, port: USERS, ms },
  )
}

const NEW_ADDRESS = '10.77.0.9'

/** Host a is somewhere else now: nothing finds the way to its old address any more. */
async function readdressed({ a, b }: { a: Host; b: Host }): Promise<void> {
  const old = a.address4
  await a.output('ip', ['address', 'flush', 'dev', 'eth0', 'scope', 'global'])
  await a.addAddress(`${NEW_ADDRESS}/24`)
  await b.output('ip', ['route', 'add', 'blackhole', `${old}/32`])
}

async function conversing({ a, b }: { a: Host; b: Host }, flows: number): Promise<Tunnelled & { id: number }> {
  const tunnel = await tunnelled({ a, b }, { key: KEY, flows }, { key: KEY })
  const { id } = await tunnel.users.open()
  await echoed(tunnel, id, 'before')
  return { ...tunnel, id }
}

it.each([0, 2])(
  'the server is killed and started again: conversations go on (flows %s)',
  async (flows) => {
    await using hosts = await twoHosts()
    const { id, ...tunnel } = await conversing(hosts, flows)
    await tunnel.server.agent.kill()
    const listen = `${hosts.b.address4}:${SERVER}`
    const server = await TunnelPeer.server(hosts.b, { listen, to: `127.0.0.1:${SERVICE}`, key: KEY })
    await resumed(tunnel, id)
    const stats = await tunnel.client.stats()
    expect(stats.reconnects).toBe(Math.max(1, flows))
    expect(stats).toMatchObject({ peers: 1, peersTotal: 1 })
    expect(await server.stats()).toMatchObject({ peers: 1 })
  },
  60_000,
)

it("the client's network is gone for 10 s: conversations go on, with the same socket at the server", async () => {
  await using hosts = await twoHosts()
  const { id, ...tunnel } = await conversing(hosts, 0)
  await hosts.a.output('ip', ['link', 'set', 'eth0', 'down'])
  await sendFor(tunnel, id, OUTAGE_MS)
  await hosts.a.output('ip', ['link', 'set', 'eth0', 'up'])
  await resumed(tunnel, id)
  expect(await tunnel.server.stats()).toMatchObject({ peers: 1, peersTotal: 1 })
}, 60_000)

it("the client's address changes: the flow is dialled anew from the new one", async () => {
  await using hosts = await twoHosts()
  const { id, ...tunnel } = await conversing(hosts, 1)
  await readdressed(hosts)
  await sendFor(tunnel, id, SILENCE_MS)
  await resumed(tunnel, id)
  const stats = await tunnel.server.stats()
  expect(stats).toMatchObject({ peers: 1, peersTotal: 1 })
  expect(stats.flows.find(({ peers }) => peers === 1)?.remoteAddress).toBe(NEW_ADDRESS)
}, 60_000)

it('the server answers on the new flow before the peer has sent anything more', async () => {
  await using hosts = await twoHosts()
  const tunnel = await tunnelled(hosts, { key: KEY, flows: 1, keepAliveMs: 1000 }, { key: KEY, to: `127.0.0.1:${SERVICE + 1}` })
  const service = await tunnel.service.open(SERVICE + 1)
  const { id } = await tunnel.users.open()
  await tunnel.users.send(id, USERS, 'hello')
  const { port } = await tunnel.service.next()
  await readdressed(hosts)
  expect(await tunnel.client.next('flow')).toMatchObject({ state: 'open' })
  expect(await tunnel.client.next('flow')).toMatchObject({ state: 'closed', reason: expect.stringContaining('ETIMEDOUT') })
  expect(await tunnel.client.next('flow')).toMatchObject({ state: 'open', localAddress: NEW_ADDRESS })
  const unasked = async () => {
    await tunnel.service.send(service.id, port, 'unasked')
    return tunnel.users.next({ timeoutMs: 200 }).catch(() => undefined)
  }
  await expect.poll(unasked, { timeout: RESUME_MS }).toMatchObject({ socket: id, text: 'unasked' })
})

it('the conversation of a client that was killed is forgotten, however much the service goes on sending', async () => {
  await using hosts = await twoHosts()
  const limits = { idleTimeoutMs: 2000, keepAliveMs: 1000 }
  const tunnel = await tunnelled(hosts, {}, { ...limits, to: `127.0.0.1:${SERVICE + 1}` })
  const service = await tunnel.service.open(SERVICE + 1)
  const { id } = await tunnel.users.open()
  await tunnel.users.send(id, USERS, 'hello')
  const { port } = await tunnel.service.next()
  await tunnel.client.agent.kill()
  const peers = async () => {
    await tunnel.service.send(service.id, port, 'anybody?')
    return (await tunnel.server.stats()).peers
  }
  await expect.poll(peers, { timeout: 20_000, interval: 200 }).toBe(0)
  expect((await tunnel.server.stats()).drops['no-flow']).toBeGreaterThan(0)
}, 60_000)

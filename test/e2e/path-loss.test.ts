// When the way between two ends breaks: a cable that is pulled and put in again, a NAT that has forgotten its connections and has another address, a process
// that dies behind a NAT.
//
//   client .1 --- .2 router .1 --- .2 server      the router translates the client's address, and drops what its connection tracking takes for invalid
//      10.77.0.0/24      10.77.1.0/24
import { afterEach, expect, it } from 'vitest'
import { createNetwork, type Host, type Network } from '../support/hosts.ts'
import { echo } from './echo-job.ts'
import { Peer } from './peer.ts'

const PORT = 9191
const KEEP_ALIVE_MS = 1000
/** The router's address outside that connections leave with at first. */
const FIRST = { 4: '10.77.1.9', 6: 'fd00:77:0:1::9' } as const
const PREFIX = { 4: 24, 6: 64 } as const

let network: Network
afterEach(() => network.remove())

interface Options {
  /** 0 unless told. */
  readonly keepAliveMs?: { readonly server: number; readonly client: number }
  /** The server echoes. Otherwise one message has gone each way. */
  readonly echoes?: boolean
}

async function connected(family: 4 | 6, { keepAliveMs = { server: 0, client: 0 }, echoes = false }: Options = {}) {
  network = await createNetwork()
  const [a, router, b] = [await network.addHost('client'), await network.addHost('router'), await network.addHost('server')]
  const [, inside] = await network.link(a, router)
  const [outside, far] = await network.link(router, b)
  const settings = ['net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1', 'net.ipv6.conf.all.keep_addr_on_down=1']
  await router.output('sysctl', ['-q', '-w', ...settings])
  await router.addAddress(`${FIRST[family]}/${PREFIX[family]}`, outside.name)
  await translate(router, FIRST[family])
  const address = (of: { address4: string; address6: string }) => (family === 4 ? of.address4 : of.address6)
  await a.output('ip', ['route', 'add', 'default', 'via', address(inside)])
  const [server, client] = [await Peer.on(b), await Peer.on(a)]
  await server.listen({ host: address(far), port: PORT, echo: echoes, keepAliveMs: keepAliveMs.server })
  const { id } = await client.dial({ host: address(far), port: PORT, keepAliveMs: keepAliveMs.client })
  const accepted = await server.next('connection')
  expect(accepted).toMatchObject({ remoteAddress: FIRST[family] })
  if (!echoes) {
    await client.write(id, 'from the client')
    await server.write(accepted.id, 'from the server')
    await Promise.all([server.next('message'), client.next('message')])
  }
  return { router, server, client, inside, outside, id, accepted: accepted.id }
}

/** Connections that begin from here on leave the router with this source address. */
async function translate(router: Host, source: string): Promise<void> {
  const rules = `table inet nat {
    chain forward { type filter hook forward priority filter; }
    chain post { type nat hook postrouting priority srcnat; }
  }
  flush table inet nat
  add rule inet nat forward ct state invalid drop
  add rule inet nat post oifname eth1 snat ${source.includes(':') ? 'ip6' : 'ip'} to ${source}\n`
  await router.output('nft', ['-f', '-'], rules)
}

/** A message gets through before long. Neighbours are asked for again and links take their time: the first ones may be lost, as on any network. */
async function expectArrival(from: Peer, id: number, to: Peer, text: string): Promise<void> {
  const arrived = async () => {
    await from.write(id, text)
    return (await to.agent.next<{ text: string }>('message', { timeoutMs: 300 }).catch(() => undefined))?.text
  }
  await expect.poll(arrived, { timeout: 10_000 }).toBe(text)
}

it.each([4, 6] as const)('a cable pulled for 5 s (IPv%i): the connection lives, messages go again once it is in again', async (family) => {
  const { router, server, client, inside, id, accepted } = await connected(family)
  await router.output('ip', ['link', 'set', inside.name, 'down'])
  await client.write(id, 'into the void')
  await server.write(accepted, 'into the void')
  await expect.poll(async () => (await client.stats(id)).idleMs, { timeout: 10_000 }).toBeGreaterThan(5000)
  await router.output('ip', ['link', 'set', inside.name, 'up'])
  await expectArrival(client, id, server, 'client to server')
  await expectArrival(server, accepted, client, 'server to client')
})

it.each([
  { family: 4, is: 'in use' },
  { family: 6, is: 'in use' },
  { family: 4, is: 'idle' },
  { family: 6, is: 'idle' },
] as const)(
  'a connection over IPv$family that is $is, and a NAT that has forgotten it and has another address: each end gets one error',
  async ({ family, is }) => {
    // In use, its messages alone have to bring it to light.
    const keepAliveMs = { server: KEEP_ALIVE_MS, client: is === 'idle' ? KEEP_ALIVE_MS : 0 }
    const { router, server, client, outside, id, accepted } = await connected(family, { keepAliveMs })
    await translate(router, family === 4 ? outside.address4 : outside.address6)
    await router.output('ip', ['address', 'del', `${FIRST[family]}/${PREFIX[family]}`, 'dev', outside.name])
    await router.output('conntrack', ['-F'])
    if (is === 'in use') await client.write(id, 'from a new address')
    expect(await client.next('closed')).toEqual({ id, code: 'ECONNRESET' })
    expect(await server.next('closed')).toEqual({ id: accepted, code: 'ETIMEDOUT' })
  },
)

it.each(['client', 'server'] as const)(
  'a %s that is killed behind a NAT after much data: the other end is told at once',
  async (victim) => {
    const { server, client, id, accepted } = await connected(4, { echoes: true })
    expect(await echo(client, { id, messages: 20_000, seed: 1, size: 1400 })).toMatchObject({ intact: 20_000 })
    await (victim === 'client' ? client : server).agent.kill('SIGKILL')
    const survivor = victim === 'client' ? { peer: server, id: accepted } : { peer: client, id }
    expect(await survivor.peer.next('closed')).toEqual({ id: survivor.id, code: 'ECONNRESET' })
  },
)

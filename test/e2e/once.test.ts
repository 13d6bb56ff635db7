// Each message arrives once, and by the link that it should, wherever packets may be seen at more than one place or have no link header:
// bridges, macvlan, loopback, own addresses, link-local addresses, tun devices.
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { afterEach, expect, it } from 'vitest'
import { compile } from '../native/compile.ts'
import { createNetwork, type Host, type Network, twoHosts } from '../support/hosts.ts'
import { echo } from './echo-job.ts'
import { Peer, type PeerDialOptions } from './peer.ts'

const PORT = 9191
const MESSAGES = 5000
const TUN_PAIR = fileURLToPath(new URL('../support/tun_pair.cc', import.meta.url))

let network: Network | undefined
afterEach(() => network?.remove())

async function hosts(...names: string[]): Promise<Host[]> {
  network = await createNetwork()
  const made: Host[] = []
  for (const name of names) made.push(await network.addHost(name))
  return made
}

/** Random sizes and equal ones; both ends' figures count every message once, and both send by packet. */
async function expectOnce(server: Peer, client: Peer, dial: PeerDialOptions): Promise<void> {
  const { id } = await client.dial({ port: PORT, ...dial })
  const accepted = await server.next('connection')
  const all = { intact: MESSAGES, foreign: 0, lost: 0 }
  expect(await echo(client, { id, messages: MESSAGES, seed: 5 })).toMatchObject(all)
  expect(await echo(client, { id, messages: MESSAGES, seed: 6, size: 1000 })).toMatchObject(all)
  const counted = { messagesIn: 2 * MESSAGES, messagesOut: 2 * MESSAGES, droppedIn: 0, droppedOut: 0 }
  const linked = { link: 'packet', linkReason: undefined, capture: 'packet' }
  expect(await client.stats(id)).toMatchObject({ ...counted, ...linked })
  expect(await server.stats(accepted.id)).toMatchObject({ ...counted, ...linked })
  await client.close(id)
}

it('over a bridge with two ports, to the bridge’s own address; what it only passes on is not heard', async () => {
  const [a, b, c] = await hosts('a', 'b', 'c')
  await network!.link(a, b)
  await network!.link(c, b)
  await b.output('ip', ['link', 'add', 'br0', 'type', 'bridge', 'forward_delay', '0'])
  for (const { name } of b.interfaces) {
    await b.output('ip', ['address', 'flush', 'dev', name])
    await b.output('ip', ['link', 'set', name, 'master', 'br0'])
  }
  await b.output('ip', ['link', 'set', 'br0', 'up', 'promisc', 'on'])
  for (const [host, iface, number] of [
    [a, 'eth0', 1],
    [b, 'br0', 2],
    [c, 'eth0', 3],
  ] as const) {
    await host.addAddress(`10.78.0.${number}/24`, iface)
    await host.addAddress(`fd00:78::${number}/64`, iface)
  }
  const bridge = await Peer.on(b)
  const [first, second] = [await Peer.on(a), await Peer.on(c)]
  await bridge.listen({ host: '::', port: PORT, echo: true })
  for (const host of ['10.78.0.2', 'fd00:78::2']) {
    await expectOnce(bridge, first, { host })
    await expectOnce(bridge, second, { host })
  }

  await expect.poll(() => bridge.flows(), { timeout: 8000 }).toBe(0)
  const before = await bridge.agent.run((ctx) => ctx.state.listener.stats[0].packets)
  await second.listen({ host: '::', port: PORT, echo: true })
  await expectOnce(second, first, { host: '10.78.0.3' })
  expect(await bridge.agent.run((ctx) => ctx.state.listener.stats[0].packets)).toBe(before)
})

it('to a macvlan on a host that listens on the same port', async () => {
  const [a, b, c] = await hosts('a', 'b', 'c')
  await network!.link(a, b)
  await b.output('ip', ['link', 'add', 'mv0', 'link', 'eth0', 'type', 'macvlan', 'mode', 'bridge'])
  await b.output('ip', ['link', 'set', 'mv0', 'netns', c.netns])
  await c.output('ip', ['link', 'set', 'mv0', 'up'])
  await c.addAddress('10.77.0.3/24', 'mv0')
  await c.addAddress('fd00:77::3/64', 'mv0')
  const [below, above, client] = [await Peer.on(b), await Peer.on(c), await Peer.on(a)]
  await below.listen({ host: '::', port: PORT, echo: true })
  await above.listen({ host: '::', port: PORT, echo: true })
  await expectOnce(above, client, { host: '10.77.0.3' })
  await expectOnce(above, client, { host: 'fd00:77::3' })
  await expectOnce(below, client, { host: '10.77.0.2' })
})

it('to a macvlan beside the device that it stands on, in one host', async () => {
  const [a, b] = await hosts('a', 'b')
  await network!.link(a, b)
  await b.output('ip', ['link', 'add', 'mv0', 'link', 'eth0', 'type', 'macvlan', 'mode', 'bridge'])
  await b.output('ip', ['link', 'set', 'mv0', 'up'])
  await b.addAddress('10.79.0.2/24', 'mv0')
  await a.addAddress('10.79.0.1/24')
  // Else either device answers for both addresses (ip-sysctl, arp_ignore), and packets come by one and leave by the other.
  await b.output('sysctl', ['-q', '-w', 'net.ipv4.conf.all.arp_ignore=1'])
  const [server, client] = [await Peer.on(b), await Peer.on(a)]
  await server.listen({ host: '::', port: PORT, echo: true })
  await expectOnce(server, client, { host: '10.79.0.2' })
  await expectOnce(server, client, { host: '10.77.0.2' })
})

it('through a VXLAN tunnel between hosts that both listen on the same port beneath it', async () => {
  const [a, b] = await hosts('a', 'b')
  await network!.link(a, b)
  for (const [host, remote, number] of [
    [a, b, 1],
    [b, a, 2],
  ] as const) {
    await host.output('ip', ['link', 'add', 'vx0', 'type', 'vxlan', 'id', '7', 'dstport', '4789', 'remote', remote.address4, 'dev', 'eth0'])
    await host.output('ip', ['link', 'set', 'vx0', 'up'])
    await host.addAddress(`10.82.0.${number}/24`, 'vx0')
    await host.addAddress(`fd00:82::${number}/64`, 'vx0')
  }
  const [server, client] = [await Peer.on(b), await Peer.on(a)]
  await server.listen({ host: '::', port: PORT, echo: true })
  await expectOnce(server, client, { host: '10.82.0.2' })
  await expectOnce(server, client, { host: 'fd00:82::2' })
  await expectOnce(server, client, { host: b.address4 })
})

it.each(['127.0.0.1', '::1', '10.77.0.1', 'fd00:77::1'])('on one host, to %s', async (host) => {
  const [a, b] = await hosts('a', 'b')
  await network!.link(a, b)
  const [server, client] = [await Peer.on(a), await Peer.on(a)]
  await server.listen({ host: '::', port: PORT, echo: true })
  await expectOnce(server, client, { host })
})

it('on one host, within one process', async () => {
  const [a] = await hosts('a')
  const both = await Peer.on(a)
  await both.listen({ host: '127.0.0.1', port: PORT, echo: true })
  await expectOnce(both, both, { host: '127.0.0.1' })
})

it('on one host by raw socket to a peer that does not capture by AF_PACKET', async () => {
  const [a] = await hosts('a')
  const [server, client] = [await Peer.on(a), await Peer.on(a)]
  await server.listen({ host: '127.0.0.1', port: PORT, echo: true, capture: 'raw' })
  const { id } = await client.dial({ host: '127.0.0.1', port: PORT })
  expect(await echo(client, { id, messages: MESSAGES, seed: 7 })).toMatchObject({ intact: MESSAGES, foreign: 0, lost: 0 })
  expect(await client.stats(id)).toMatchObject({
    link: 'raw',
    linkReason: 'the peer is on this host and does not capture by AF_PACKET',
    messagesIn: MESSAGES,
  })
})

it('to a link-local address, dialled with its zone, of a listener on every address', async () => {
  await using pair = await twoHosts()
  await pair.a.addAddress('fe80::77:1/64')
  await pair.b.addAddress('fe80::77:2/64')
  const [server, client] = [await Peer.on(pair.b), await Peer.on(pair.a)]
  await server.listen({ host: '::', port: PORT, echo: true })
  await expectOnce(server, client, { host: 'fe80::77:2%eth0', localAddress: 'fe80::77:1%eth0' })
  await expectOnce(server, client, { host: 'fe80::77:2%eth0' })
})

it('between tun devices, which have no link header', async () => {
  using helper = compile([TUN_PAIR])
  const [a, b] = await hosts('a', 'b')
  const forwarder = a.spawn(helper.path, [`/run/netns/${a.netns}`, 'tun0', `/run/netns/${b.netns}`, 'tun0'])
  await Promise.race([
    once(forwarder.stdout!, 'data'),
    once(forwarder, 'close').then(([code]) => Promise.reject(new Error(`tun_pair ended with ${code}`))),
  ])
  for (const [host, number] of [
    [a, 1],
    [b, 2],
  ] as const) {
    await host.output('ip', ['link', 'set', 'tun0', 'up', 'txqueuelen', '10000'])
    await host.addAddress(`10.80.0.${number}/24`, 'tun0')
    await host.addAddress(`fd00:80::${number}/64`, 'tun0')
  }
  const [server, client] = [await Peer.on(b), await Peer.on(a)]
  await server.listen({ host: '::', port: PORT, echo: true })
  await expectOnce(server, client, { host: '10.80.0.2' })
  await expectOnce(server, client, { host: 'fd00:80::2' })
})

// What the packet link does while the network around it changes: flows live on, by packet where that can be, else by raw socket, and `stats` say
// which and why.
import { afterEach, expect, it } from 'vitest'
import { createNetwork, type Host, type Network } from '../support/hosts.ts'
import { Peer, type PeerDialOptions } from './peer.ts'

const PORT = 9191
const PATIENCE = { timeout: 15_000, interval: 50 }

let network: Network | undefined
afterEach(() => network?.remove())

interface Flow {
  readonly a: Host
  readonly b: Host
  readonly client: Peer
  readonly server: Peer
  readonly id: number
}

/** Two hosts and a connection that has sent in both directions. */
async function flow(family: 4 | 6 = 4, options: Partial<PeerDialOptions> = {}): Promise<Flow> {
  network = await createNetwork()
  const [a, b] = [await network.addHost('a'), await network.addHost('b')]
  await network.link(a, b)
  return connected(a, b, family === 4 ? b.address4 : b.address6, options)
}

async function connected(a: Host, b: Host, host: string, options: Partial<PeerDialOptions> = {}): Promise<Flow> {
  const [server, client] = [await Peer.on(b), await Peer.on(a)]
  await server.listen({ host, port: PORT })
  const { id } = await client.dial({ host, port: PORT, ...options })
  await server.next('connection')
  const made = { a, b, client, server, id }
  await expectBothWays(made, 'at first')
  return made
}

/** One message each way, which must arrive. */
async function expectBothWays({ client, server, id }: Flow, text: string): Promise<void> {
  await Promise.all([client.write(id, `${text}, from the client`), server.write(0, `${text}, from the server`)])
  expect([(await server.next('message')).text, (await client.next('message')).text]).toEqual([
    `${text}, from the client`,
    `${text}, from the server`,
  ])
}

const linkOf = async (peer: Peer, id: number) => {
  const { link, linkReason } = await peer.stats(id)
  return { link, linkReason }
}
const BY_PACKET = { link: 'packet', linkReason: undefined }

async function expectLink(peer: Peer, id: number, wanted: object): Promise<void> {
  await expect.poll(() => linkOf(peer, id), PATIENCE).toEqual(wanted)
}

/** Both ends write until both have heard something again; what is lost meanwhile is lost. */
async function expectRecovery({ client, server, id }: Flow, text: string): Promise<void> {
  const before = { client: (await client.stats(id)).messagesIn, server: (await server.stats(0)).messagesIn }
  let round = 0
  await expect
    .poll(async () => {
      await Promise.all([client.write(id, `${text} ${round}`), server.write(0, `${text} ${round++}`)])
      return (await client.stats(id)).messagesIn > before.client && (await server.stats(0)).messagesIn > before.server
    }, PATIENCE)
    .toBe(true)
}

/** Takes what arrived while a test was looking at something else. */
async function settle({ client, server, id }: Flow): Promise<void> {
  await Promise.all([client.write(id, 'settled'), server.write(0, 'settled')])
  for (const peer of [client, server]) while ((await peer.next('message')).text !== 'settled');
}

it("link: 'raw' sends by raw socket, and says who wanted it", async () => {
  const made = await flow(4, { link: 'raw' })
  expect(await linkOf(made.client, made.id)).toEqual({ link: 'raw', linkReason: "link 'raw' was asked for" })
  expect(await linkOf(made.server, 0)).toEqual(BY_PACKET)
})

it("link: 'packet' with capture: 'raw' is refused", async () => {
  network = await createNetwork()
  const peer = await Peer.on(await network.addHost('a'))
  const options = { host: '127.0.0.1', port: PORT, link: 'packet', capture: 'raw' } as const
  expect(await peer.dialError(options)).toMatchObject({ code: 'ERR_FAKETCP_INVALID_OPTION' })
  expect(await peer.listenError(options)).toMatchObject({ code: 'ERR_FAKETCP_INVALID_OPTION' })
})

it.each([4, 6] as const)(
  'a new way, over which the hosts have never spoken: raw, until the kernel has found it for a message (IPv%s)',
  async (family) => {
    const made = await flow(family)
    const { a, b, client, server, id } = made
    const [near, far] = await network!.link(a, b)
    const of = (one: { address4: string; address6: string }) => (family === 4 ? one.address4 : one.address6)
    await a.output('ip', [`-${family}`, 'route', 'add', of(b), 'via', of(far), 'dev', near.name, 'src', of(a)])
    // The peer still answers by the old way: which of the two is right, the kernel is to say.
    const elsewhere = { link: 'raw', linkReason: 'the peer is heard on another interface' }
    await expectLink(client, id, elsewhere)
    await expectBothWays(made, 'there by the second link, back by the first')
    expect([await linkOf(client, id), await linkOf(server, 0)]).toEqual([elsewhere, elsewhere])
    await b.output('ip', [`-${family}`, 'route', 'add', of(a), 'via', of(near), 'dev', far.name, 'src', of(b)])
    await expectBothWays(made, 'both ways by the second link')
    await expectLink(client, id, BY_PACKET)
    await expectLink(server, 0, BY_PACKET)
    await expectBothWays(made, 'and by packet')
  },
)

it.each([4, 6] as const)('another gateway, never spoken to (IPv%s)', async (family) => {
  network = await createNetwork()
  const [a, r, b] = [await network.addHost('a'), await network.addHost('r'), await network.addHost('b')]
  await network.link(a, r)
  await network.link(r, b)
  const forwarding = family === 4 ? 'net.ipv4.ip_forward=1' : 'net.ipv6.conf.all.forwarding=1'
  await r.output('sysctl', ['-q', '-w', forwarding])
  const [near, far] = r.interfaces
  const of = (one: { address4: string; address6: string }) => (family === 4 ? one.address4 : one.address6)
  await a.output('ip', [`-${family}`, 'route', 'add', 'default', 'via', of(near)])
  await b.output('ip', [`-${family}`, 'route', 'add', 'default', 'via', of(far)])
  const made = await connected(a, b, of(b))
  await expectLink(made.client, made.id, BY_PACKET)
  // A second gateway, which the host has never spoken to and from which nothing comes.
  const other = family === 4 ? '10.77.0.99' : 'fd00:77::99'
  await r.output('ip', ['link', 'add', 'mv0', 'link', 'eth0', 'address', '02:00:00:00:00:99', 'type', 'macvlan', 'mode', 'private'])
  await r.output('ip', ['link', 'set', 'mv0', 'up'])
  await r.addAddress(family === 4 ? `${other}/32` : `${other}/128`, 'mv0')
  await a.output('ip', [`-${family}`, 'route', 'replace', 'default', 'via', other])
  await expectRecovery(made, 'other gateway')
  await expect
    .poll(() => a.output('ip', ['neighbour', 'show', other]), PATIENCE)
    .toMatch(/lladdr [0-9a-f:]+ .*(REACHABLE|STALE|DELAY|PROBE)/)
  await expectLink(made.client, made.id, BY_PACKET)
  await settle(made)
  await expectBothWays(made, 'by the other gateway')
})

it.each([4, 6] as const)('the peer gets another link address during traffic (IPv%s)', async (family) => {
  const made = await flow(family)
  await made.b.output('ip', ['link', 'set', 'eth0', 'address', '02:00:00:00:00:02'])
  await expectRecovery(made, 'new address')
  await expectLink(made.client, made.id, BY_PACKET)
  await expectLink(made.server, 0, BY_PACKET)
  await settle(made)
  await expectBothWays(made, 'afterwards')
})

it('the gateway gets another link address during traffic', async () => {
  network = await createNetwork()
  const [a, r, b] = [await network.addHost('a'), await network.addHost('r'), await network.addHost('b')]
  const [, near] = await network.link(a, r)
  const [far] = await network.link(r, b)
  await r.output('sysctl', ['-q', '-w', 'net.ipv4.ip_forward=1'])
  await a.output('ip', ['route', 'add', 'default', 'via', near.address4])
  await b.output('ip', ['route', 'add', 'default', 'via', far.address4])
  const made = await connected(a, b, b.address4)
  await r.output('ip', ['link', 'set', near.name, 'address', '02:00:00:00:00:77'])
  await expectRecovery(made, 'new gateway')
  await expectLink(made.client, made.id, BY_PACKET)
  await settle(made)
  await expectBothWays(made, 'afterwards')
})

it.each([4, 6] as const)('the neighbour entry is deleted: captured frames answer, nothing is lost (IPv%s)', async (family) => {
  const made = await flow(family)
  for (let round = 0; round < 5; round++) {
    const peer = family === 4 ? made.b.address4 : made.b.address6
    await made.a.output('ip', [`-${family}`, 'neighbour', 'flush', 'to', peer, 'dev', 'eth0'])
    await expectBothWays(made, `round ${round}`)
  }
  await expectLink(made.client, made.id, BY_PACKET)
})

it('frames of two peers that were captured together answer for each by its own', async () => {
  network = await createNetwork()
  const [a, b, c] = [await network.addHost('a'), await network.addHost('b'), await network.addHost('c')]
  await network.link(a, b)
  await network.link(c, b)
  await b.output('ip', ['link', 'add', 'br0', 'type', 'bridge', 'forward_delay', '0'])
  for (const { name } of b.interfaces) await b.output('ip', ['link', 'set', name, 'master', 'br0'])
  await b.output('ip', ['link', 'set', 'br0', 'up'])
  for (const [host, cidr, iface] of [
    [a, '10.78.0.1/24', 'eth0'],
    [b, '10.78.0.2/24', 'br0'],
    [c, '10.78.0.3/24', 'eth0'],
  ] as const)
    await host.addAddress(cidr, iface)
  const server = await Peer.on(b)
  await server.listen({ host: '10.78.0.2', port: PORT, echo: true })
  const clients = [await Peer.on(a), await Peer.on(c)]
  for (const client of clients) {
    await client.dial({ host: '10.78.0.2', port: PORT })
    await client.write(0, 'at first')
    expect((await client.next('message')).text).toBe('at first')
  }
  for (let round = 0; round < 5; round++) {
    // While nothing is read, both send: one batch.
    const busy = server.agent.run(() => {
      for (const end = performance.now() + 300; performance.now() < end; );
    })
    await Promise.all(clients.map((client) => client.write(0, `round ${round}`)))
    await busy
    for (const client of clients) expect((await client.next('message')).text).toBe(`round ${round}`)
    // From here on only frames say where the clients are, until the kernel has asked again.
    await b.output('ip', ['neighbour', 'flush', 'dev', 'br0'])
    await Promise.all(clients.map((client) => client.write(0, `after ${round}`)))
    for (const client of clients) expect((await client.next('message')).text).toBe(`after ${round}`)
  }
})

it('the interface goes down and comes up again: messages fail meanwhile, the flow lives', async () => {
  const made = await flow()
  await made.a.output('ip', ['link', 'set', 'eth0', 'down'])
  await expect.poll(async () => (await linkOf(made.client, made.id)).link, PATIENCE).toBe('raw')
  expect((await linkOf(made.client, made.id)).linkReason).toMatch(/^(link down|no route|local address gone)/)
  await expectLink(made.server, 0, { link: 'raw', linkReason: 'link down' })
  await made.client.write(made.id, 'into the void')
  expect(await made.client.next('drop')).toMatchObject({ id: made.id, reason: 'send-refused', size: 13 })
  await made.a.output('ip', ['link', 'set', 'eth0', 'up'])
  await made.a.carries('eth0')
  await expectRecovery(made, 'up again')
  await expectLink(made.client, made.id, BY_PACKET)
  await expectLink(made.server, 0, BY_PACKET)
  await settle(made)
  await expectBothWays(made, 'afterwards')
})

it('in the same tick in which the MTU shrinks: the packet link refuses, the raw socket says why, nobody hangs', async () => {
  const made = await flow()
  // The notification of the change is read only after the tick that makes it. Each longer than the one before, so that each goes alone.
  await made.client.agent.run(async (ctx, id) => {
    const { execFileSync } = await ctx.import<typeof import('node:child_process')>('node:child_process')
    execFileSync('ip', ['link', 'set', 'eth0', 'mtu', '1300'])
    for (let i = 0; i < 3; i++) ctx.state.conns[id].write(Buffer.alloc(1400 + i))
    setImmediate(() => ctx.state.conns[id].write('short'))
  }, made.id)
  for (let i = 0; i < 3; i++) {
    expect(await made.client.next('drop')).toMatchObject({ reason: 'message-size', size: 1400 + i, max: 1300 - 52 })
  }
  expect((await made.server.next('message')).text).toBe('short')
  await expectBothWays(made, 'afterwards')
})

it('the interface goes down under a burst of trains: each message is told as lost, and the flow lives', async () => {
  const made = await flow()
  // In the tick of the change: by packet the kernel says ENETDOWN, and the raw socket that takes over has no route.
  await made.client.agent.run(async (ctx, id) => {
    const { execFileSync } = await ctx.import<typeof import('node:child_process')>('node:child_process')
    execFileSync('ip', ['link', 'set', 'eth0', 'down'])
    for (let i = 0; i < 100; i++) ctx.state.conns[id].write(Buffer.alloc(1000, i))
  }, made.id)
  for (let i = 0; i < 100; i++) expect(await made.client.next('drop')).toMatchObject({ reason: 'send-refused', size: 1000 })
  expect(await made.client.stats(made.id)).toMatchObject({ link: 'raw', droppedOut: 100 })
  await made.a.output('ip', ['link', 'set', 'eth0', 'up'])
  await made.a.carries('eth0')
  await expectRecovery(made, 'up again')
  await expectLink(made.client, made.id, BY_PACKET)
})

it.each([4, 6] as const)('the local address goes and does not come back: EADDRNOTAVAIL after ten seconds, once (IPv%s)', async (family) => {
  const made = await flow(family)
  await made.client.agent.run((ctx, id) => {
    ctx.state.errors = []
    ctx.state.conns[id].on('error', (error: Error) => ctx.state.errors.push(error.message))
  }, made.id)
  const cidr = family === 4 ? `${made.a.address4}/24` : `${made.a.address6}/64`
  await made.a.output('ip', ['address', 'del', cidr, 'dev', 'eth0'])
  await expectLink(made.client, made.id, { link: 'raw', linkReason: 'local address gone' })
  await made.client.write(made.id, 'from nowhere')
  if (family === 6) expect(await made.client.next('drop')).toMatchObject({ id: made.id, reason: 'send-refused' })
  expect(await made.client.agent.next('closed', { timeoutMs: 15_000 })).toEqual({ id: made.id, code: 'EADDRNOTAVAIL' })
  const [message, ...others] = await made.client.agent.run((ctx) => ctx.state.errors as string[])
  expect(others).toEqual([])
  expect(message).toContain(family === 4 ? made.a.address4 : made.a.address6)
})

it.each([4, 6] as const)('the local address goes and comes back in time: the flow lives (IPv%s)', async (family) => {
  const made = await flow(family)
  const cidr = family === 4 ? `${made.a.address4}/24` : `${made.a.address6}/64`
  await made.a.output('ip', ['address', 'del', cidr, 'dev', 'eth0'])
  await expectLink(made.client, made.id, { link: 'raw', linkReason: 'local address gone' })
  await made.a.addAddress(cidr)
  await expectLink(made.client, made.id, BY_PACKET)
  await expectRecovery(made, 'back again')
  await settle(made)
  await expectBothWays(made, 'afterwards')
})

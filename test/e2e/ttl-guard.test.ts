// The ttl guard: its rules are there while somebody needs them, drop what they are to drop and nothing else, and are gone afterwards. Each fault of
// earlier systems of this kind is one test.
import { setTimeout as delay } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { capture } from '../support/capture.ts'
import { type Host, twoHosts } from '../support/hosts.ts'
import { echo } from './echo-job.ts'
import { FIREWALLS, guardRules, haveSocketsReset } from './firewall.ts'
import { expectExit, expectNothingLeft, held } from './leftovers.ts'
import { Peer } from './peer.ts'

const PORT = 9191
const MESSAGES = 5000
/** timeWait takes 2 s. */
const SOON = { timeout: 8000, interval: 50 }
const guard = 'ttl'

/** A process on each host, and an echo server for every address on `b`. */
async function scene(firewall: (typeof FIREWALLS)[number]) {
  const hosts = await twoHosts()
  const [server, client] = [await Peer.on(hosts.b), await Peer.on(hosts.a)]
  await server.listen({ host: '::', port: PORT, guard, firewall, echo: true })
  return { ...hosts, server, client, options: { port: PORT, guard, firewall } as const }
}

const oneOfEachFamily = [
  { family: 4, owner: expect.any(String), dropped: 0 },
  { family: 6, owner: expect.any(String), dropped: 0 },
]

describe.each(FIREWALLS)('by %s', (firewall) => {
  it.each([
    ['IPv4', 'address4', 'address4'],
    ['IPv6', 'address6', 'address6'],
    ['IPv4 on a listener of both families', undefined, 'address4'],
    ['IPv6 on a listener of both families', undefined, 'address6'],
  ] as const)('every message is echoed over %s, and afterwards nothing is left', async (_, listenOn, dialTo) => {
    await using hosts = await twoHosts()
    const [server, client] = [await Peer.on(hosts.b), await Peer.on(hosts.a)]
    const before = { server: await held(server), client: await held(client) }
    const options = { port: PORT, guard, firewall } as const
    await server.listen({ ...options, host: listenOn === undefined ? '::' : hosts.b[listenOn], echo: true })
    const { id } = await client.dial({ ...options, host: hosts.b[dialTo] })
    expect(await echo(client, { id, messages: MESSAGES, seed: 1 })).toMatchObject({ intact: MESSAGES, foreign: 0, lost: 0 })
    expect([(await client.stats(id)).guard, (await server.stats(0)).guard]).toEqual(['ttl', 'ttl'])
    expect([await guardRules(hosts.a, firewall), await guardRules(hosts.b, firewall)]).toEqual([oneOfEachFamily, oneOfEachFamily])
    await client.close(id)
    await server.closeListener()
    await expect.poll(() => guardRules(hosts.a, firewall), SOON).toEqual([])
    await expect.poll(() => guardRules(hosts.b, firewall), SOON).toEqual([])
    await expectNothingLeft(client, before.client)
    await expectNothingLeft(server, before.server)
    await expectExit(client)
    await expectExit(server)
  })

  it.each([
    ['IPv4', 4, 'address4', 'a'],
    ['IPv6', 6, 'address6', 'a'],
    ['IPv4, accepted by a listener of both families', 4, 'address4', 'b'],
    ['IPv6, accepted by a listener of both families', 6, 'address6', 'b'],
  ] as const)('what the kernel socket sends is dropped: %s', async (_, family, address, speaker) => {
    await using hosts = await scene(firewall)
    const listener = hosts[speaker === 'a' ? 'b' : 'a']
    await hosts.client.dial({ ...hosts.options, host: hosts.b[address] })
    await expectResetDropped(hosts[speaker], listener, family)
  })

  async function expectResetDropped(speaker: Host, listener: Host, family: 4 | 6): Promise<void> {
    const count = async () => (await guardRules(speaker, firewall)).filter((rule) => rule.family === family).map(({ dropped }) => dropped)
    const [before] = await count()
    await using recording = await capture(listener)
    await haveSocketsReset(speaker, PORT)
    await expect.poll(count, SOON).toEqual([before + 1])
    await recording.stop()
    expect((await recording.segments()).filter(({ flags }) => flags.includes('R'))).toEqual([])
  }

  it('a hundred dials make one rule for each family', async () => {
    await using hosts = await scene(firewall)
    const { a, b, client, options } = hosts
    const addresses = [b.address4, b.address6]
    const fifty = () => Promise.all(Array.from({ length: 50 }, (_, i) => client.dial({ ...options, host: addresses[i % 2] })))
    await fifty()
    await fifty()
    expect(await client.flows()).toBe(100)
    expect([await guardRules(a, firewall), await guardRules(b, firewall)]).toEqual([oneOfEachFamily, oneOfEachFamily])
  })

  it('one of two processes ends: the rule of the other stays, and works', async () => {
    await using hosts = await scene(firewall)
    const { a, b, client, options } = hosts
    const other = await Peer.on(a)
    const { id } = await client.dial({ ...options, host: b.address4 })
    const [{ owner }] = await guardRules(a, firewall)
    await other.dial({ ...options, host: b.address4 })
    expect(await guardRules(a, firewall)).toHaveLength(4)
    await client.close(id)
    await expect.poll(async () => (await guardRules(a, firewall)).length, SOON).toBe(2)
    await client.agent.close()
    expect((await guardRules(a, firewall)).map((rule) => rule.owner)).not.toContain(owner)
    await expectResetDropped(a, b, 4)
  })

  it('an ACCEPT that was there before does not let it through', async () => {
    await using hosts = await twoHosts()
    const { a, b } = hosts
    const output = '{ type filter hook output priority -400; meta l4proto tcp accept; }'
    await a.output('nft', ['-f', '-'], `table inet before { chain output ${output}; }`)
    for (const tool of ['iptables', 'ip6tables']) {
      for (const table of ['mangle', 'filter']) await a.output(tool, ['-w', '-t', table, '-I', 'OUTPUT', '-p', 'tcp', '-j', 'ACCEPT'])
    }
    const [server, client] = [await Peer.on(b), await Peer.on(a)]
    const options = { port: PORT, guard, firewall } as const
    await server.listen({ ...options, host: '::' })
    await client.dial({ ...options, host: b.address4 })
    await expectResetDropped(a, b, 4)
  })

  it("somebody else's TCP packets with TTL 1 still leave the host", async () => {
    await using hosts = await scene(firewall)
    const { a, b, client, options } = hosts
    await client.dial({ ...options, host: b.address4 })
    // On one link TTL 1 arrives.
    await a.output('sysctl', ['-w', 'net.ipv4.ip_default_ttl=1', 'net.ipv6.conf.eth0.hop_limit=1'])
    await using recording = await capture(b, { filter: 'tcp port 7777' })
    const [listening, calling] = [await b.agent(), await a.agent()]
    await listening.run(async (ctx) => {
      const net = await ctx.import<typeof import('node:net')>('node:net')
      const server = net.createServer((socket) => socket.pipe(socket)).listen(7777, '::')
      await new Promise((resolve) => server.once('listening', resolve))
    })
    const echoed = await calling.run(
      async (ctx, addresses) => {
        const net = await ctx.import<typeof import('node:net')>('node:net')
        const texts = addresses.map(async (address) => {
          const socket = net.connect(7777, address).setEncoding('utf8')
          socket.end('from somebody else')
          let text = ''
          for await (const part of socket) text += part
          return text
        })
        return Promise.all(texts)
      },
      [b.address4, b.address6],
    )
    expect(echoed).toEqual(['from somebody else', 'from somebody else'])
    await recording.stop()
    const from = (await recording.segments()).filter(({ src }) => src === a.address4 || src === a.address6)
    expect(new Set(from.map(({ ttl }) => ttl))).toEqual(new Set([1]))
    expect(await guardRules(a, firewall)).toEqual(oneOfEachFamily)
  })

  it('keepalive settings that end idle kernel connections within seconds do not touch a flow', async () => {
    await using hosts = await scene(firewall)
    const { a, b, client, server, options } = hosts
    for (const host of [a, b]) {
      await host.output('sysctl', [
        '-w',
        'net.ipv4.tcp_keepalive_time=1',
        'net.ipv4.tcp_keepalive_intvl=1',
        'net.ipv4.tcp_keepalive_probes=1',
      ])
    }
    const { id } = await client.dial({ ...options, host: b.address4, keepAliveMs: 0 })
    expect(await echo(client, { id, messages: 1, seed: 1 })).toMatchObject({ intact: 1 })
    // No kernel socket of ours has a keepalive timer.
    for (const host of [a, b]) expect(await host.output('ss', ['-H', '-t', '-n', '-o', 'state', 'established'])).not.toContain('timer:')
    await using recording = await capture(b)
    // Nothing can be awaited: nothing is to happen while two probes would have been due and a reset after them.
    await delay(4000)
    const held = [...(await guardRules(a, firewall)), ...(await guardRules(b, firewall))]
    expect(held.map(({ dropped }) => dropped)).toEqual([0, 0, 0, 0])
    expect(await echo(client, { id, messages: 100, seed: 2 })).toMatchObject({ intact: 100 })
    await recording.stop()
    expect((await recording.segments()).filter(({ flags, ttl }) => flags.includes('R') || ttl === 1)).toEqual([])
    expect((await server.stats(0)).guard).toBe('ttl')
  })

  it('process.exit() with an open flow: the other side learns of it at once, and no rule is left', async () => {
    await using hosts = await scene(firewall)
    const { a, b, client, server, options } = hosts
    await client.dial({ ...options, host: b.address4 })
    await using recording = await capture(b)
    await client.agent.run(() => {
      setImmediate(() => process.exit(7))
    })
    expect(await server.next('closed')).toMatchObject({ id: 0 })
    // By the first FIN, not by one that the kernel has repeated, with its TTL of 1, when the rule had gone.
    await recording.stop()
    const farewells = (await recording.segments()).filter(({ flags }) => flags.includes('F'))
    expect(new Set(farewells.map(({ ttl }) => ttl))).toEqual(new Set([64]))
    expect(await client.agent.exit).toEqual({ code: 7, signal: null })
    await expect.poll(() => guardRules(a, firewall), SOON).toEqual([])
  })
})

it('a killed process takes its nftables rule with it at once', async () => {
  await using hosts = await scene('nftables')
  const { a, b, client, options } = hosts
  await client.dial({ ...options, host: b.address4 })
  expect(await guardRules(a, 'nftables')).toEqual(oneOfEachFamily)
  await client.agent.kill('SIGKILL')
  await expect.poll(() => guardRules(a, 'nftables'), SOON).toEqual([])
  await expect.poll(() => a.pids(), SOON).toEqual([])
})

it('the iptables rule of a killed process drops its farewell; the next start removes it', async () => {
  await using hosts = await scene('iptables')
  const { a, b, client, server, options } = hosts
  await client.dial({ ...options, host: b.address4, keepAliveMs: 0 })
  await using recording = await capture(b)
  await client.agent.kill('SIGKILL')
  // The kernel repeats its FIN until the carrier's user timeout.
  await expect.poll(async () => (await guardRules(a, 'iptables'))[0].dropped, SOON).toBeGreaterThan(1)
  const stale = await guardRules(a, 'iptables')
  expect(stale).toHaveLength(2)
  await recording.stop()
  expect((await recording.segments()).filter(({ src }) => src === a.address4)).toEqual([])
  const next = await Peer.on(a)
  await next.dial({ ...options, host: b.address4 })
  const now = (await guardRules(a, 'iptables')).map(({ owner }) => owner)
  expect(now).toHaveLength(2)
  expect(now).not.toContain(stale[0].owner)
  expect(await server.flows()).toBe(2)
})

it('a peer whose process was killed is found by keepalive', async () => {
  await using hosts = await twoHosts()
  const { a, b } = hosts
  const [server, client] = [await Peer.on(b), await Peer.on(a)]
  const options = { port: PORT, guard, firewall: 'iptables' } as const
  await server.listen({ ...options, host: '::', echo: true, keepAliveMs: 400 })
  const { id } = await client.dial({ ...options, host: b.address4 })
  expect(await echo(client, { id, messages: 1, seed: 1 })).toMatchObject({ intact: 1 })
  await client.agent.kill('SIGKILL')
  expect(await server.next('closed')).toEqual({ id: 0, code: 'ETIMEDOUT' })
})

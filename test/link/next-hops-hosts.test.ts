// Next hops on real hosts: what the kernel says, and how paths follow it.
//
//                                     .--- veth ---.  r eth0 10.77.0.2 fd00:77::2
//   a eth0 10.77.0.1 fd00:77::1  <---'
//     eth1 10.77.1.1 fd00:77:0:1::1 <---- veth ---->  r eth1 10.77.1.2 fd00:77:0:1::2
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { addonPaths } from '../../lib/native/loader.ts'
import { compile, type Helper } from '../native/compile.ts'
import type { Agent } from '../support/agent.ts'
import { capture } from '../support/capture.ts'
import { createNetwork, type Host, type Interface, type Network } from '../support/hosts.ts'
import { type Bundle, bundle } from './bundle.ts'
import type * as Rig from './fixtures/agent.ts'
import type { State } from './fixtures/agent.ts'

const env = { FAKETCP_ADDON: addonPaths().find((path) => existsSync(path)) }
const MAC = '02:00:5e:10:20:fe'
const OTHER_MAC = '02:00:5e:10:20:ff'

let network: Network
let a: Host
let r: Host
let eth0: Interface
let eth1: Interface
let toEth0: Interface
let toEth1: Interface
let agent: Agent
let rig: Bundle

beforeAll(async () => {
  rig = await bundle(new URL('fixtures/agent.ts', import.meta.url))
  network = await createNetwork()
  a = await network.addHost('a')
  r = await network.addHost('r')
  ;[eth0, toEth0] = await network.link(a, r)
  ;[eth1, toEth1] = await network.link(a, r)
  // A neighbour that has changed its address is believed at once, and one that is silent is given up soon.
  for (const family of ['ipv4', 'ipv6']) {
    for (const iface of ['eth0', 'eth1']) {
      const at = `net.${family}.neigh.${iface}`
      await a.output('sysctl', ['-q', '-w', `${at}.locktime=0`, `${at}.delay_first_probe_time=1`, `${at}.retrans_time_ms=50`])
    }
  }
  // Otherwise an interface that is taken down loses its IPv6 addresses for good.
  for (const host of [a, r]) await host.output('sysctl', ['-q', '-w', 'net.ipv6.conf.eth0.keep_addr_on_down=1'])
  // As a process that sends by packet; what a device reserves for headers is not told to others.
  agent = await a.agent({ env, capabilities: 'net_raw' })
  await agent.run(async (ctx, url) => {
    ctx.state.rig = await ctx.import(url)
  }, rig.url)
})
afterAll(async () => {
  await network?.remove()
  rig?.[Symbol.dispose]()
})
beforeEach(async () => {
  await agent.run((ctx) => (ctx.state.rig as typeof Rig).releaseAll())
  for (const host of [a, r]) {
    for (const iface of ['eth0', 'eth1']) {
      // For ip(8), 'all' is without these.
      for (const nud of ['all', 'noarp']) await host.output('ip', ['neigh', 'flush', 'dev', iface, 'nud', nud])
    }
  }
})

const ip = (...args: string[]) => a.output('ip', args)
const indexOf = async (iface: string) => Number(await a.output('cat', [`/sys/class/net/${iface}/ifindex`]))
const open = (name: string, remote: string, local: string, ifindex = 0) =>
  agent.run((ctx, args) => (ctx.state.rig as typeof Rig).open(...args), [name, remote, local, ifindex] as const)
const state = (name: string) => agent.run((ctx, arg) => (ctx.state.rig as typeof Rig).state(arg), name)
const until = (name: string, wanted: Parameters<typeof Rig.until>[1]): Promise<State> =>
  agent.run((ctx, args) => (ctx.state.rig as typeof Rig).until(...args), [name, wanted] as const)
const probed = (name: string) => agent.run((ctx, arg) => (ctx.state.rig as typeof Rig).probed(arg), name)
const heard = (name: string, ifindex: number, mac: string) => {
  const bytes = Buffer.from(mac.replaceAll(':', ''), 'hex')
  const words = [(0x80000000 | bytes.readUInt16BE(0)) >> 0, bytes.readInt32BE(2)] as const
  return agent.run((ctx, args) => (ctx.state.rig as typeof Rig).heard(...args), [name, ifindex, ...words] as const)
}
/** One packet by the kernel's own ways, which makes it find out about the neighbour. */
const packetTo = (address: string, host = a) => host.exec('bash', ['-c', `echo x > /dev/udp/${address}/9`])
const frame = (to: string, from: string, type = '0800') => `${to}${from}${type}`.replaceAll(':', '')
const setMac = (iface: Interface, mac: string) => r.output('ip', ['link', 'set', iface.name, 'address', mac])

describe('a path on the link', () => {
  it.each([
    ['IPv4', '10.77.0.2', '10.77.0.1', '0800'],
    ['IPv6', 'fd00:77::2', 'fd00:77::1', '86dd'],
  ])('of %s has no hop until the kernel has resolved the neighbour', async (_name, remote, local, type) => {
    expect(await open('peer', remote, local)).toEqual({
      hop: undefined,
      why: 'neighbour unresolved',
      mtu: 1500,
      local: false,
      gone: false,
      probe: 'never',
    })
    await packetTo(remote)
    const resolved = await until('peer', { header: frame(toEth0.mac, eth0.mac, type), why: undefined })
    expect(resolved.hop?.ifindex).toBe(await indexOf('eth0'))
  })

  it('of link-local addresses is found by its interface', async () => {
    await a.addAddress('fe80::77:1/64', 'eth1')
    await ip('neigh', 'replace', 'fe80::77:2', 'lladdr', MAC, 'dev', 'eth1')
    const ifindex = await indexOf('eth1')
    const { hop } = await open('peer', 'fe80::77:2', 'fe80::77:1', ifindex)
    expect(hop).toMatchObject({ ifindex, header: frame(MAC, eth1.mac, '86dd') })
    expect((await open('nowhere', 'fe80::77:2', 'fe80::77:1', await indexOf('eth0'))).hop).toBeUndefined()
  })

  it.each(['permanent', 'reachable', 'stale', 'noarp'])("has a hop while the neighbour is '%s'", async (nud) => {
    await ip('neigh', 'replace', '10.77.0.2', 'lladdr', MAC, 'nud', nud, 'dev', 'eth0')
    const { hop, why } = await open('peer', '10.77.0.2', '10.77.0.1')
    expect([hop?.header, why]).toEqual([frame(MAC, eth0.mac), undefined])
  })

  it('has none when the neighbour has failed, and follows when it answers', async () => {
    await ip('neigh', 'replace', '10.77.0.3', 'lladdr', MAC, 'nud', 'permanent', 'dev', 'eth0')
    await open('peer', '10.77.0.3', '10.77.0.1')
    await ip('neigh', 'change', '10.77.0.3', 'nud', 'failed', 'dev', 'eth0')
    await until('peer', { header: null, why: 'neighbour unresolved' })
    await r.addAddress('10.77.0.3/24')
    await packetTo('10.77.0.3')
    await until('peer', { header: frame(toEth0.mac, eth0.mac) })
  })
})

describe('a path by a gateway', () => {
  it.each([
    ['of its own family', '10.66.1.7', '10.66.1.0/24', ['via', '10.77.0.2'], '10.77.0.1', '10.77.0.2', '0800'],
    ['of IPv6', '10.66.2.7', '10.66.2.0/24', ['via', 'inet6', 'fd00:77::2', 'dev', 'eth0'], '10.77.0.1', 'fd00:77::2', '0800'],
    ['of IPv6, as the path is', 'fd00:66::7', 'fd00:66::/64', ['via', 'fd00:77::2'], 'fd00:77::1', 'fd00:77::2', '86dd'],
  ])('%s is sent to that', async (_what, remote, prefix, how, local, gateway, type) => {
    await ip('neigh', 'replace', gateway, 'lladdr', MAC, 'dev', 'eth0')
    await ip('route', 'add', prefix, ...how)
    const far = await open('far', remote, local)
    expect(far.hop?.header).toBe(frame(MAC, eth0.mac, type))
    await ip('route', 'del', prefix)
    await until('far', { header: null, why: 'no route' })
  })

  it('follows when the gateway tells of a new link address', async () => {
    await ip('route', 'add', '10.66.3.0/24', 'via', '10.77.0.2')
    await packetTo('10.77.0.2')
    await open('far', '10.66.3.7', '10.77.0.1')
    await until('far', { header: frame(toEth0.mac, eth0.mac) })
    await setMac(toEth0, OTHER_MAC)
    await r.output('ip', ['neigh', 'flush', 'dev', 'eth0'])
    // Its question for our address has its new one in it (RFC 826).
    await packetTo('10.77.0.1', r)
    await until('far', { header: frame(OTHER_MAC, eth0.mac) })
    await setMac(toEth0, toEth0.mac)
  })

  it('follows when the gateway has silently got a new link address', async () => {
    await ip('route', 'add', '10.66.4.0/24', 'via', '10.77.0.2')
    await ip('neigh', 'replace', '10.77.0.2', 'lladdr', MAC, 'nud', 'stale', 'dev', 'eth0')
    const { hop, probe } = await open('far', '10.66.4.7', '10.77.0.1')
    expect([hop?.header, probe]).toEqual([frame(MAC, eth0.mac), 'due'])
    // What the probe is for: the kernel's own packet makes it ask the old address, in vain, and then, for the next packet, everyone.
    await packetTo('10.66.4.7')
    await probed('far')
    expect((await state('far')).probe).toBe('later')
    await until('far', { header: null, why: 'neighbour unresolved' })
    await packetTo('10.66.4.7')
    await until('far', { header: frame(toEth0.mac, eth0.mac) })
  })

  it('follows the route to another gateway', async () => {
    await ip('neigh', 'replace', '10.77.0.2', 'lladdr', MAC, 'dev', 'eth0')
    await ip('neigh', 'replace', '10.77.1.2', 'lladdr', OTHER_MAC, 'dev', 'eth1')
    await ip('route', 'add', '10.66.5.0/24', 'via', '10.77.0.2', 'mtu', '1300')
    expect(await open('far', '10.66.5.7', '10.77.0.1')).toMatchObject({ hop: { header: frame(MAC, eth0.mac) }, mtu: 1300 })
    await ip('route', 'replace', '10.66.5.0/24', 'via', '10.77.1.2')
    const moved = await until('far', { header: frame(OTHER_MAC, eth1.mac), mtu: 1500 })
    expect(moved.hop?.ifindex).toBe(await indexOf('eth1'))
  })

  it('shares its row with others by the same gateway, and each kind of refusal has its reason', async () => {
    await ip('neigh', 'replace', '10.77.0.2', 'lladdr', MAC, 'dev', 'eth0')
    await ip('route', 'add', '10.66.6.0/24', 'via', '10.77.0.2')
    const [first, second] = [await open('first', '10.66.6.7', '10.77.0.1'), await open('second', '10.66.6.8', '10.77.0.1')]
    expect([second.hop, typeof first.hop?.row]).toEqual([first.hop, 'number'])
    await ip('route', 'replace', '10.66.6.7', 'encap', 'ip', 'id', '7', 'dst', '10.77.0.2', 'via', '10.77.0.2', 'dev', 'eth0')
    await until('first', { header: null, why: 'encapsulated route' })
    await ip('route', 'replace', 'prohibit', '10.66.6.7')
    await until('first', { header: null, why: 'no route (EACCES)' })
    await ip('route', 'replace', 'unreachable', '10.66.6.7')
    await until('first', { header: null, why: 'no route' })
    expect((await state('second')).hop).toEqual(second.hop)
  })
})

describe('confirming a neighbour', () => {
  it('is due when its entry has become stale, and not while it is reachable', async () => {
    await ip('neigh', 'replace', '10.77.0.2', 'lladdr', toEth0.mac, 'nud', 'reachable', 'dev', 'eth0')
    expect(await open('peer', '10.77.0.2', '10.77.0.1')).toMatchObject({ why: undefined, probe: 'never' })
    await ip('neigh', 'change', '10.77.0.2', 'lladdr', toEth0.mac, 'nud', 'stale', 'dev', 'eth0')
    await until('peer', { probe: 'due' })
    // The kernel confirms the entry for its own packet (NUD: STALE, DELAY, PROBE, REACHABLE).
    await packetTo('10.77.0.2')
    await probed('peer')
    expect((await state('peer')).probe).toBe('later')
    await until('peer', { probe: 'never', header: frame(toEth0.mac, eth0.mac) })
  })
})

describe('captured frames', () => {
  it('answer when the kernel does not, if they came by the interface that packets leave by', async () => {
    await ip('neigh', 'replace', '10.77.0.2', 'lladdr', MAC, 'dev', 'eth0')
    await open('peer', '10.77.0.2', '10.77.0.1')
    await ip('neigh', 'del', '10.77.0.2', 'dev', 'eth0')
    await until('peer', { header: null, why: 'neighbour unresolved' })
    await heard('peer', await indexOf('eth1'), OTHER_MAC)
    expect((await state('peer')).why).toBe('neighbour unresolved')
    await heard('peer', await indexOf('eth0'), OTHER_MAC)
    expect(await state('peer')).toMatchObject({ hop: { header: frame(OTHER_MAC, eth0.mac) }, why: undefined, probe: 'due' })
    // Until the kernel knows better.
    await packetTo('10.77.0.2')
    await until('peer', { header: frame(toEth0.mac, eth0.mac) })
  })

  it('of another link address do not overrule the kernel', async () => {
    await ip('neigh', 'replace', '10.77.0.2', 'lladdr', MAC, 'nud', 'stale', 'dev', 'eth0')
    await open('peer', '10.77.0.2', '10.77.0.1')
    await heard('peer', await indexOf('eth0'), OTHER_MAC)
    expect((await state('peer')).hop?.header).toBe(frame(MAC, eth0.mac))
  })
})

describe('an interface', () => {
  it.each([
    ['IPv4', '10.77.0.2', '10.77.0.1', '0800'],
    ['IPv6', 'fd00:77::2', 'fd00:77::1', '86dd'],
  ])('that goes down takes the hop along and brings it back (%s)', async (_name, remote, local, type) => {
    await packetTo(remote)
    await open('peer', remote, local)
    await until('peer', { header: frame(toEth0.mac, eth0.mac, type) })
    await ip('link', 'set', 'eth0', 'down')
    expect((await until('peer', { header: null })).why).toMatch(/^(link down|no route|local address gone)$/)
    await ip('link', 'set', 'eth0', 'up')
    await a.carries('eth0')
    await until('peer', { gone: false, why: 'neighbour unresolved' })
    await packetTo(remote)
    await until('peer', { header: frame(toEth0.mac, eth0.mac, type) })
  })

  it('without carrier has none', async () => {
    await ip('neigh', 'replace', '10.77.0.2', 'lladdr', MAC, 'nud', 'permanent', 'dev', 'eth0')
    await open('peer', '10.77.0.2', '10.77.0.1')
    await r.output('ip', ['link', 'set', 'eth0', 'down'])
    await until('peer', { header: null, why: 'link down' })
    await r.output('ip', ['link', 'set', 'eth0', 'up'])
    await a.carries('eth0')
    await until('peer', { header: frame(MAC, eth0.mac), why: undefined })
  })

  it('with a new link address of its own has it in the header', async () => {
    await ip('neigh', 'replace', '10.77.1.2', 'lladdr', MAC, 'nud', 'permanent', 'dev', 'eth1')
    await open('peer', '10.77.1.2', '10.77.1.1')
    await ip('link', 'set', 'eth1', 'address', OTHER_MAC)
    await ip('neigh', 'replace', '10.77.1.2', 'lladdr', MAC, 'nud', 'permanent', 'dev', 'eth1')
    await until('peer', { header: frame(MAC, OTHER_MAC) })
    await ip('link', 'set', 'eth1', 'mtu', '1400')
    await until('peer', { mtu: 1400 })
    await ip('link', 'set', 'eth1', 'mtu', '1500', 'address', eth1.mac)
  })
})

it.each([
  ['IPv4', '10.77.0.2', '10.77.0.40', '/24', []],
  ['IPv6', 'fd00:77::2', 'fd00:77::40', '/64', ['nodad']],
])('a local address that is removed is told, and its return (%s)', async (_name, remote, local, size, how) => {
  await a.addAddress(local + size)
  await ip('neigh', 'replace', remote, 'lladdr', MAC, 'dev', 'eth0')
  expect(await open('peer', remote, local)).toMatchObject({ why: undefined, gone: false })
  await open('other', remote, local.replace(/40$/, '1'))
  await ip('address', 'del', local + size, 'dev', 'eth0')
  await until('peer', { gone: true, header: null, why: 'local address gone' })
  await ip('address', 'add', local + size, 'dev', 'eth0', ...how)
  await until('peer', { gone: false, why: undefined })
  expect(await state('other')).toMatchObject({ gone: false, why: undefined })
})

it.each([
  ['127.0.0.1', '127.0.0.1', '0800'],
  ['::1', '::1', '86dd'],
  ['10.77.0.1', '10.77.0.1', '0800'],
  ['fd00:77::1', 'fd00:77::1', '86dd'],
])('the path to %s, this host, is loopback’s', async (remote, local, type) => {
  expect(await open('own', remote, local)).toEqual({
    hop: { row: expect.any(Number), ifindex: 1, header: frame('000000000000', '000000000000', type) },
    why: undefined,
    mtu: 65536,
    local: true,
    gone: false,
    probe: 'never',
  })
})

describe('a device', () => {
  let inject: Helper
  const ARPHRD_TUNNEL = '768'
  const ARPHRD_RAWIP = '519'

  beforeAll(() => {
    inject = compile(['test/inject.cc'])
  })
  afterAll(() => inject?.[Symbol.dispose]())

  async function device(kind: 'tun' | 'tap', name: string, subnet: number, ...type: string[]) {
    const child = a.spawn(inject.path, [kind, name, ...type], { stdio: ['pipe', 'pipe', 'inherit'] })
    const [line] = await once(createInterface({ input: child.stdout! }), 'line')
    expect(line).toBe('ready')
    await a.addAddress(`10.88.${subnet}.1/24`, name)
    const close = async () => {
      child.kill()
      await once(child, 'close')
    }
    return { ifindex: await indexOf(name), close }
  }

  it.each([
    ['tun', 0, []],
    ['raw IP', 1, [ARPHRD_RAWIP]],
  ] as const)('without a link header (%s) needs no neighbour, and its end is the hop’s', async (_kind, subnet, type) => {
    const tun = await device('tun', `bare${subnet}`, subnet, ...type)
    const { hop, mtu } = await open('peer', `10.88.${subnet}.2`, `10.88.${subnet}.1`)
    expect([hop?.ifindex, hop?.header, mtu]).toEqual([tun.ifindex, '', 1500])
    await tun.close()
    await until('peer', { header: null, gone: true, why: 'local address gone' })
  })

  it('of a type whose header nobody knows here is refused', async () => {
    const tunnel = await device('tun', 'strange0', 2, ARPHRD_TUNNEL)
    expect(await open('peer', '10.88.2.2', '10.88.2.1')).toMatchObject({ hop: undefined, why: 'device type 768' })
    await tunnel.close()
  })

  it('that reserves other bytes in front of a packet than its type says is refused: trains would be lost in it', async () => {
    const tap = await device('tap', 'strange1', 3, ARPHRD_RAWIP)
    expect(await open('peer', '10.88.3.2', '10.88.3.1')).toMatchObject({ hop: undefined, why: 'unusual link header' })
    await tap.close()
  })
})

it.each([
  ['on the link', '10.77.0.2', '10.77.0.1', 'eth0'],
  ['on the link, by IPv6', 'fd00:77::2', 'fd00:77::1', 'eth0'],
  ['behind a gateway', '10.66.9.7', '10.77.0.1', 'eth0'],
  ['behind a gateway of the other family', '10.66.8.7', '10.77.1.1', 'eth1'],
])('what is sent on a hop arrives: %s', async (_where, remote, local, iface) => {
  await ip('route', 'replace', '10.66.9.0/24', 'via', '10.77.0.2')
  await ip('route', 'replace', '10.66.8.0/24', 'via', 'inet6', 'fd00:77:0:1::2', 'dev', 'eth1')
  const root = await a.agent({ env })
  await root.run(async (ctx, url) => {
    ctx.state.rig = await ctx.import(url)
  }, rig.url)
  await packetTo(remote)
  await root.run((ctx, args) => (ctx.state.rig as typeof Rig).open(...args), ['peer', remote, local] as const)
  await root.run((ctx) => (ctx.state.rig as typeof Rig).until('peer', { why: undefined }))
  await using wire = await capture(r, { iface, filter: `tcp dst port 9 and ether dst ${iface === 'eth0' ? toEth0.mac : toEth1.mac}` })
  expect(await root.run((ctx) => (ctx.state.rig as typeof Rig).send('peer', 'by packet'))).toEqual([1, 0])
  await wire.stop()
  const segments = await wire.segments()
  expect(segments.map(({ src, dst, len }) => ({ src, dst, len }))).toContainEqual({ src: local, dst: remote, len: 'by packet'.length })
  await root.close()
})

it('an open path does not keep the process', async () => {
  const script = `import(process.argv[1]).then((rig) => console.log(rig.open('peer', '10.77.0.2', '10.77.0.1').why))`
  const child = a.spawn(process.execPath, ['-e', script, rig.url], { env, stdio: ['ignore', 'pipe', 'inherit'] })
  const [line] = await once(createInterface({ input: child.stdout! }), 'line')
  const [code] = await once(child, 'close')
  expect([line, code]).toEqual(['neighbour unresolved', 0])
})

it('changes are told', async () => {
  const changes = () => agent.run((ctx) => (ctx.state.rig as typeof Rig).changesSoFar())
  await open('peer', '10.77.0.2', '10.77.0.1')
  const before = await changes()
  await ip('neigh', 'replace', '10.77.0.2', 'lladdr', MAC, 'dev', 'eth0')
  await until('peer', { header: frame(MAC, eth0.mac) })
  expect(await changes()).toBeGreaterThan(before)
})

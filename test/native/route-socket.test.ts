// RouteSocket: what the kernel answers by rtnetlink, and its word of changes.
//
//   a eth0 10.77.0.1 fd00:77::1  <---- veth ---->  b eth0 10.77.0.2 fd00:77::2
import { existsSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import * as layout from '../../lib/native/layout.ts'
import { addonPaths } from '../../lib/native/loader.ts'
import type { Agent } from '../support/agent.ts'
import { twoHosts } from '../support/hosts.ts'
import { compile } from './compile.ts'
import { openDevice } from './device.ts'
import { addressWords } from './packets.ts'
import { binding } from './rig.ts'

const RIG = new URL('fixtures/route-rig.mjs', import.meta.url).href
const env = { FAKETCP_ADDON: addonPaths().find((path) => existsSync(path)) }
const [RTN_UNICAST, RTN_LOCAL] = [1, 2]
const [NUD_STALE, NUD_PERMANENT] = [0x04, 0x80]
const NO_MAC = [0, 0]

const macWords = (mac: string) => {
  const bytes = Buffer.from(mac.replaceAll(':', ''), 'hex')
  return [(0x80000000 | bytes.readUInt16BE(0)) >> 0, bytes.readInt32BE(2)]
}

type Answer = [result: number, words: number[]]
interface Question {
  readonly remote: string
  readonly local?: string
  readonly ifindex?: number
  readonly at?: number
}

describe('between two hosts', () => {
  let hosts: Awaited<ReturnType<typeof twoHosts>>
  let a: Agent
  let eth0 = 0

  beforeAll(async () => {
    hosts = await twoHosts()
    // An ordinary user's process: none of this needs a capability.
    a = await hosts.a.agent({ env, capabilities: 'none' })
    await a.run(async (ctx, url) => {
      ctx.state.rig = await ctx.import(url)
      ctx.state.rig.open()
    }, RIG)
    eth0 = Number(await hosts.a.output('cat', ['/sys/class/net/eth0/ifindex']))
  })
  afterAll(() => hosts?.[Symbol.asyncDispose]())

  const ip = (...args: string[]) => hosts.a.output('ip', args)
  const route = (question: Question) => a.run((ctx, arg) => ctx.state.rig.route(arg) as Answer, question)
  const neighbour = (address: string) => a.run((ctx, arg) => ctx.state.rig.neighbour(arg) as Answer, { address, ifindex: eth0 })
  const changed = (bits: number) => a.run((ctx, arg) => ctx.state.rig.changed(arg) as Promise<void>, bits)

  it.each([
    ['127.0.0.1', '127.0.0.1'],
    ['::1', '::1'],
    ['10.77.0.1', '10.77.0.1'],
    ['fd00:77::1', 'fd00:77::1'],
  ])('%s is local', async (remote, local) => {
    const [result, words] = await route({ remote, local })
    expect([result, words[layout.ROUTE_TYPE], words[layout.ROUTE_IFINDEX]]).toEqual([0, RTN_LOCAL, 1])
  })

  it.each([
    ['10.77.0.2', '10.77.0.1'],
    ['fd00:77::2', 'fd00:77::1'],
  ])('%s is on the link, from a key anywhere in its array', async (remote, local) => {
    for (const at of [0, 3]) {
      expect(await route({ remote, local, at })).toEqual([0, [RTN_UNICAST, eth0, ...addressWords(remote), 0, 0]])
    }
  })

  it('a link-local address is found by the interface', async () => {
    expect(await route({ remote: 'fe80::99', local: '::', ifindex: eth0 })).toEqual([
      0,
      [RTN_UNICAST, eth0, ...addressWords('fe80::99'), 0, 0],
    ])
  })

  it.each([
    ['by its own family', '10.66.1.0/24', ['via', '10.77.0.2'], '10.66.1.7', '10.77.0.2', 0, 0],
    ['by IPv6', '10.66.2.0/24', ['via', 'inet6', 'fd00:77::2', 'dev', 'eth0'], '10.66.2.7', 'fd00:77::2', 0, 0],
    ['of IPv6', 'fd00:66::/64', ['via', 'fd00:77::2'], 'fd00:66::7', 'fd00:77::2', 0, 0],
    ['with an MTU', '10.66.3.0/24', ['via', '10.77.0.2', 'mtu', '1300'], '10.66.3.7', '10.77.0.2', 0, 1300],
    [
      'that wraps packets',
      '10.66.4.0/24',
      ['encap', 'ip', 'id', '7', 'dst', '10.77.0.2', 'via', '10.77.0.2', 'dev', 'eth0'],
      '10.66.4.7',
      '10.77.0.2',
      layout.ROUTE_ENCAPSULATED,
      0,
    ],
  ] as const)('a gateway %s is told', async (_what, prefix, how, remote, gateway, flags, mtu) => {
    await ip('route', 'add', prefix, ...how)
    expect(await route({ remote })).toEqual([0, [RTN_UNICAST, eth0, ...addressWords(gateway), flags, mtu]])
  })

  it('the kernel’s refusals are its errnos', async () => {
    const [ENETUNREACH, EHOSTUNREACH, EACCES] = [-101, -113, -13]
    expect((await route({ remote: '203.0.113.1' }))[0]).toBe(ENETUNREACH)
    expect((await route({ remote: '2001:db8::1', local: '::' }))[0]).toBe(ENETUNREACH)
    await ip('route', 'add', 'unreachable', '10.66.5.0/24')
    await ip('route', 'add', 'prohibit', '10.66.6.0/24')
    expect((await route({ remote: '10.66.5.1' }))[0]).toBe(EHOSTUNREACH)
    expect((await route({ remote: '10.66.6.1' }))[0]).toBe(EACCES)
    expect(await a.run((ctx) => ctx.state.rig.link(999) as Answer)).toEqual([-19, [0, 0, 0, 0, 0, 0]])
  })

  it('source routing applies', async () => {
    await hosts.a.addAddress('10.77.0.9/24')
    await ip('rule', 'add', 'from', '10.77.0.9', 'prohibit')
    expect((await route({ remote: '10.77.0.2', local: '10.77.0.9' }))[0]).toBe(-13)
    expect((await route({ remote: '10.77.0.2', local: '10.77.0.1' }))[0]).toBe(0)
  })

  it.each([['10.77.0.50'], ['fd00:77::50']])('a neighbour entry is told with its state: %s', async (address) => {
    expect(await neighbour(address)).toEqual([-2, [0, ...NO_MAC]])
    await ip('neigh', 'add', address, 'lladdr', '02:00:5e:10:20:fe', 'nud', 'permanent', 'dev', 'eth0')
    expect(await neighbour(address)).toEqual([0, [NUD_PERMANENT, ...macWords('02:00:5e:10:20:fe')]])
    await ip('neigh', 'change', address, 'lladdr', 'f2:ff:ff:ff:ff:ff', 'nud', 'stale', 'dev', 'eth0')
    expect(await neighbour(address)).toEqual([0, [NUD_STALE, ...macWords('f2:ff:ff:ff:ff:ff')]])
  })

  it('a link is told with type, flags, address and MTU', async () => {
    const [result, words] = await a.run((ctx, index) => ctx.state.rig.link(index) as Answer, eth0)
    expect([result, words[layout.LINK_TYPE], words[layout.LINK_FLAGS] & 1, words.slice(2)]).toEqual([
      0,
      1,
      1,
      [...macWords(hosts.a.mac), 1500, layout.LINK_HEADER_UNKNOWN],
    ])
    const [, loopback] = await a.run((ctx) => ctx.state.rig.link(1) as Answer)
    expect([loopback[layout.LINK_TYPE], loopback[layout.LINK_MTU]]).toEqual([772, 65536])
  })

  it('what a device reserves for a header is found by who may send by packet, and nothing is sent for it', async () => {
    const sender = await hosts.a.agent({ env, capabilities: 'net_raw' })
    const headerOf = async (device: string) => {
      const ifindex = Number(await hosts.a.output('cat', [`/sys/class/net/${device}/ifindex`]))
      return sender.run((ctx, index) => (ctx.state.rig.link(index) as Answer)[1], ifindex).then((words) => words[layout.LINK_HEADER])
    }
    await sender.run(async (ctx, url) => {
      ctx.state.rig = await ctx.import(url)
      ctx.state.rig.open()
    }, RIG)
    await ip('link', 'add', 'br-down', 'type', 'bridge')
    using inject = compile(['test/inject.cc'])
    await using tun = await openDevice(hosts.a, inject, 'tun')
    await ip('link', 'set', 'tun0', 'up')
    // Of the devices here only the loopback is quiet by itself.
    const sent = () => hosts.a.output('cat', ['/sys/class/net/lo/statistics/tx_packets'])
    const before = await sent()
    expect([await headerOf('lo'), await headerOf('eth0'), await headerOf(tun.name), await headerOf('br-down')]).toEqual([
      14,
      14,
      0,
      layout.LINK_HEADER_UNKNOWN,
    ])
    expect(await sent()).toBe(before)
    await ip('link', 'del', 'br-down')
  })

  it.each([
    ['an address', layout.CHANGED_ADDRESS | layout.CHANGED_ROUTE, [['address', 'add', '10.77.0.20/24', 'dev', 'eth0']]],
    ['an IPv6 address', layout.CHANGED_ADDRESS | layout.CHANGED_ROUTE, [['address', 'add', 'fd00:77::20/64', 'dev', 'eth0', 'nodad']]],
    ['a route', layout.CHANGED_ROUTE, [['route', 'add', '10.66.20.0/24', 'via', '10.77.0.2']]],
    ['an IPv6 route', layout.CHANGED_ROUTE, [['route', 'add', 'fd00:66:20::/64', 'via', 'fd00:77::2']]],
    ['a rule', layout.CHANGED_ROUTE, [['rule', 'add', 'from', '10.66.66.66', 'table', 'main']]],
    ['an IPv6 rule', layout.CHANGED_ROUTE, [['-6', 'rule', 'add', 'from', 'fd00:66::66', 'table', 'main']]],
    ['a next hop object', layout.CHANGED_ROUTE, [['nexthop', 'add', 'id', '7', 'via', '10.77.0.2', 'dev', 'eth0']]],
    ['a neighbour', layout.CHANGED_NEIGHBOUR, [['neigh', 'add', '10.77.0.60', 'lladdr', '02:00:00:00:00:01', 'dev', 'eth0']]],
    ['a link', layout.CHANGED_LINK, [['link', 'set', 'eth0', 'mtu', '1400']]],
  ])('a change of %s is told', async (_what, bits, commands) => {
    const told = changed(bits)
    for (const command of commands) await ip(...command)
    await told
  })

  it('notifications that have gathered are told in one call, and lost ones as a change of everything', async () => {
    const root = await hosts.a.agent({ env })
    await root.run(async (ctx, url) => {
      ctx.state.rig = await ctx.import(url)
      ctx.state.rig.open()
    }, RIG)
    const routes = (net: number, count: number) =>
      Array.from({ length: count }, (_, i) => `route add 10.${net}.${i >> 8}.${i & 255}/32 via 10.77.0.2\n`).join('')
    const flood = (batch: string) =>
      root.run((ctx, text) => ctx.state.rig.flood(text) as Promise<{ result: number; seen: number; calls: number }>, batch)
    expect(await flood(routes(64, 50))).toEqual({ result: 0, seen: layout.CHANGED_ROUTE, calls: 1 })
    expect(await flood(routes(65, 4000))).toMatchObject({ result: 0, seen: layout.CHANGED_ALL })
    // And it goes on watching.
    const told = root.run((ctx, bit) => ctx.state.rig.changed(bit) as Promise<void>, layout.CHANGED_ADDRESS)
    await hosts.a.addAddress('10.77.0.30/24')
    await told
  })
})

describe('calls', () => {
  const open = () => new binding.RouteSocket({ onChange() {} })
  const key = new Int32Array(layout.KEY_WORDS)
  const out = new Int32Array(layout.ROUTE_WORDS)

  it('throw for arguments that they cannot use', () => {
    const socket = open()
    expect(() => socket.route(key.subarray(2), 0, 0, out)).toThrow(/key must have at least 8 elements, it has 7/)
    expect(() => socket.route(key, 2, 0, out)).toThrow(/at must be an integer from 0 to 1, it is 2/)
    expect(() => socket.route(key, 0, -1, out)).toThrow(/ifindex must be an integer/)
    expect(() => socket.route(key, 0, 0, out.subarray(1))).toThrow(/out must have at least 8 elements/)
    expect(() => socket.neighbour(1, key, 6, out)).toThrow(/at must be an integer from 0 to 5/)
    expect(() => socket.link(1, new Int32Array(1))).toThrow(/out must have at least 6 elements/)
    expect(() => socket.route.call({} as never, key, 0, 0, out)).toThrow(TypeError)
    expect(() => new binding.RouteSocket({ onChange: undefined as never })).toThrow(/onChange must be a function/)
    expect(() => (binding.RouteSocket as unknown as (options: unknown) => void)({ onChange() {} })).toThrow(TypeError)
    socket.close()
  })

  it('answer EBADF once it is closed, which may be done twice', () => {
    const socket = open()
    socket.close()
    socket.close()
    expect([socket.route(key, 0, 0, out), socket.neighbour(1, key, 0, out), socket.link(1, out)]).toEqual([-9, -9, -9])
  })

  it('answer a thousand times in a row', () => {
    const socket = open()
    key.set(addressWords('127.0.0.1'), layout.KEY_REMOTE)
    key.set(addressWords('127.0.0.1'), layout.KEY_LOCAL)
    const results = Array.from({ length: 1000 }, () => [socket.route(key, 0, 0, out), socket.link(1, out)].join())
    expect(new Set(results)).toEqual(new Set(['0,0']))
    socket.close()
  })
})

// A client and a server with a NAT router in between, as the internet has them:
//
//   client -- inside -- router -- outside -- server
//
// The router forwards IPv4 and IPv6, masquerades what leaves by its outside, and drops and counts what its connection tracking takes for invalid.
// Tracking is strict (not liberal). The server has no route to the client: it only ever sees the router's address. Either link can be an impaired
// one. It knows nothing of the library.
import { createNetwork, type Host, type Interface, type Network, type Offloads } from './hosts.ts'
import { type Impairment, type ImpairmentOptions, impairedLink } from './impairment.ts'

/** What the rules are made with; 'iptables' is the legacy kind, iptables and ip6tables, which shares no code in the kernel with nftables. */
export type Masquerade = 'nftables' | 'iptables'

export interface RoutedOptions {
  /** 'nftables' unless told. */
  readonly masquerade?: Masquerade
  /** Of both links, but not of one that is impaired: there trains are always cut up. */
  readonly offloads?: Offloads
  /** The router's timeouts of TCP entries in seconds by state, as in nf_conntrack_tcp_timeout_*: `{ established: 60 }`. */
  readonly timeouts?: Readonly<Record<string, number>>
  /** This link is an impaired one; its `a` is the end on the client's side. */
  readonly impaired?: { readonly link: 'inside' | 'outside' } & ImpairmentOptions
}

export interface Invalid {
  /** Packets that the rule in FORWARD has dropped. */
  readonly rule: number
  /**
   * What `conntrack -S` calls invalid, of all CPUs: packets that tracking refused, in either direction. What comes from the server goes to the
   * router's own address and never reaches FORWARD when it is invalid, since it is not translated.
   */
  readonly tracker: number
}

export interface Routed extends AsyncDisposable {
  readonly network: Network
  readonly client: Host
  readonly router: Host
  readonly server: Host
  /** The router's interfaces. */
  readonly inside: Interface
  readonly outside: Interface
  /** Of the impaired link. */
  readonly link: Impairment | undefined
  invalid(): Promise<Invalid>
  /** The router's entries of TCP connections to this port, one line each, without what changes by itself. */
  entries(port: number): Promise<string[]>
}

export async function createRouted({
  masquerade = 'nftables',
  offloads = {},
  timeouts = {},
  impaired,
}: RoutedOptions = {}): Promise<Routed> {
  const network = await createNetwork()
  try {
    const [client, router, server] = [await network.addHost('client'), await network.addHost('router'), await network.addHost('server')]
    let link: Impairment | undefined
    const join = async (which: 'inside' | 'outside', a: Host, b: Host) => {
      if (impaired?.link !== which) return network.link(a, b, { offloads })
      link = await impairedLink(network, a, b, impaired)
      return link.ends
    }
    const [, inside] = await join('inside', client, router)
    const [outside] = await join('outside', router, server)
    await client.output('ip', ['-4', 'route', 'add', 'default', 'via', inside.address4])
    await client.output('ip', ['-6', 'route', 'add', 'default', 'via', inside.address6])
    await rules[masquerade].set(router, outside.name)
    // A new namespace takes both from the machine's own.
    const settings = { 'net.netfilter.nf_conntrack_tcp_be_liberal': 0, 'net.netfilter.nf_conntrack_checksum': 1 }
    for (const [name, value] of Object.entries({ ...settings, ...FORWARDING })) await sysctl(router, name, value)
    for (const [state, seconds] of Object.entries(timeouts))
      await sysctl(router, `net.netfilter.nf_conntrack_tcp_timeout_${state}`, seconds)
    return {
      ...{ network, client, router, server, inside, outside, link },
      invalid: async () => ({ rule: await rules[masquerade].dropped(router), tracker: await trackedInvalid(router) }),
      entries: (port) => entries(router, port),
      [Symbol.asyncDispose]: () => network.remove(),
    }
  } catch (error) {
    await network.remove()
    throw error
  }
}

const FORWARDING = { 'net.ipv4.ip_forward': 1, 'net.ipv6.conf.all.forwarding': 1 }

interface Rules {
  /** Loads connection tracking into the host as well. */
  set(router: Host, outside: string): Promise<void>
  /** Packets dropped as invalid, of both families. */
  dropped(router: Host): Promise<number>
}

const rules: Record<Masquerade, Rules> = {
  nftables: {
    async set(router, outside) {
      await router.output(
        'nft',
        ['-f', '-'],
        `table inet nat {
           counter invalid {}
           chain forward { type filter hook forward priority 0; ct state invalid counter name invalid drop; }
           chain post { type nat hook postrouting priority 100; oifname ${outside} masquerade; }
         }`,
      )
    },
    async dropped(router) {
      return Number(/packets (\d+)/.exec(await router.output('nft', ['list', 'counter', 'inet', 'nat', 'invalid']))![1])
    },
  },
  iptables: {
    async set(router, outside) {
      for (const command of LEGACY) {
        await router.output(command, ['-w', '-A', 'FORWARD', '-m', 'conntrack', '--ctstate', 'INVALID', '-j', 'DROP'])
        await router.output(command, ['-w', '-t', 'nat', '-A', 'POSTROUTING', '-o', outside, '-j', 'MASQUERADE'])
      }
    },
    async dropped(router) {
      const lists = await Promise.all(LEGACY.map((command) => router.output(command, ['-w', '-vxnL', 'FORWARD'])))
      return lists.reduce((sum, list) => sum + Number(/^ *(\d+) +\d+ +DROP .*INVALID/m.exec(list)![1]), 0)
    },
  },
}

const LEGACY = ['iptables-legacy', 'ip6tables-legacy']

async function trackedInvalid(router: Host): Promise<number> {
  const text = await router.output('conntrack', ['-S'])
  return [...text.matchAll(/ invalid=(\d+)/g)].reduce((sum, [, count]) => sum + Number(count), 0)
}

async function entries(router: Host, port: number): Promise<string[]> {
  const lists = await Promise.all(
    ['ipv4', 'ipv6'].map((family) => router.output('conntrack', ['-L', '-f', family, '-p', 'tcp', '--orig-port-dst', String(port)])),
  )
  const lines = lists.flatMap((list) => list.split('\n')).filter(Boolean)
  // "tcp      6 431999 ESTABLISHED src=...": the third word is the time that is left.
  return lines.map((line) => line.replace(/^(\S+ +\S+) +\d+/, '$1')).sort()
}

async function sysctl(host: Host, name: string, value: number): Promise<void> {
  await host.output('sysctl', ['-q', '-w', `${name}=${value}`])
}

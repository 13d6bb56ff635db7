// Capture programs against two referees on the same packets: libpcap (tcpdump with the same condition as an expression) and the Linux kernel
// (packets injected into a namespace of the test's own). All verdicts must be equal, packet by packet.
import { beforeAll, describe, expect, it } from 'vitest'
import { type CaptureProgramOptions, captureProgram } from '../../lib/wire/programs.ts'
import { runProgram } from './fixtures/interpreter.ts'
import { ETH_P_ALL, ETH_P_IP, ETH_P_IPV6, type FilteredSocket, injectInKernel } from './fixtures/kernel.ts'
import {
  concat,
  distinct,
  ethernet,
  frame,
  ipPacket,
  LINK_HEADER_BYTES,
  macText,
  mutations,
  type PacketSpec,
  RIGHT_MAC,
  seeded,
  words,
} from './fixtures/packets.ts'
import { LINKTYPE_ETHERNET, LINKTYPE_RAW, libpcapVerdicts } from './fixtures/pcap.ts'

const TCP_OPTIONS = Uint8Array.of(1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2)
const BROADCAST = new Uint8Array(6).fill(0xff)

const common: Omit<PacketSpec, 'family'>[] = [
  {},
  { flags: 0x02, tcpOptions: Uint8Array.of(2, 4, 5, 0xb4) },
  { payload: new Uint8Array(1400).fill(7), flags: 0x18 },
  { tcpOptions: TCP_OPTIONS, payload: Uint8Array.of(1, 2, 3) },
  { destinationPort: 9190 },
  { destinationPort: 9192 },
  { destinationPort: 0 },
  { destinationPort: 65_535 },
  { destinationPort: 40_000, sourcePort: 9191 },
  { protocol: 17 },
  { protocol: 58 },
  { destinationMac: BROADCAST },
  { destinationMac: Uint8Array.of(2, 0, 0, 0, 0, 0x0c) },
  { destinationMac: Uint8Array.of(1, 0, 0x5e, 0, 0, 1) },
]

const ipv4: PacketSpec[] = [
  ...common,
  { protocol: 1 },
  { ipOptions: Uint8Array.of(1, 1, 1, 1) },
  { ipOptions: new Uint8Array(40).fill(1), tcpOptions: TCP_OPTIONS },
  { ipOptions: new Uint8Array(8).fill(1), destinationPort: 80 },
  { moreFragments: true },
  { moreFragments: true, fragmentOffset: 1 },
  { fragmentOffset: 0x1fff },
  { destination: '10.0.0.3' },
  { destination: '11.0.0.1' },
  { source: '10.0.0.1', destination: '10.0.0.2' },
  { source: '10.0.0.77', sourcePort: 1234 },
  { source: '10.0.0.77', sourcePort: 1235 },
].map((spec) => ({ family: 4, ...spec }))

const [HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, OPTIONS] = [0, 43, 44, 51, 60]
const chains = [
  [{ type: HOP_BY_HOP }],
  [{ type: ROUTING, units: 2 }],
  [{ type: OPTIONS, units: 1 }],
  [{ type: FRAGMENT }],
  [{ type: AUTHENTICATION, units: 4 }],
  [{ type: HOP_BY_HOP }, { type: OPTIONS, units: 3 }],
  [{ type: HOP_BY_HOP }, { type: FRAGMENT }],
  [{ type: HOP_BY_HOP }, { type: OPTIONS }, { type: ROUTING, units: 4 }],
  [{ type: HOP_BY_HOP, units: 1 }, { type: OPTIONS, units: 5 }, { type: ROUTING }, { type: OPTIONS }],
  [{ type: HOP_BY_HOP }, { type: OPTIONS }, { type: OPTIONS }, { type: ROUTING }, { type: OPTIONS }],
]
const ipv6: PacketSpec[] = [
  ...common,
  ...chains.flatMap((extensions) => [
    { extensions },
    { extensions, destinationPort: 80 },
    { extensions, protocol: 17 },
    { extensions, destination: 'fd00::3', payload: new Uint8Array(300).fill(9) },
  ]),
  { destination: 'fd00::3' },
  { destination: 'fd00:0:0:1::1' },
  { source: 'fd00::77', sourcePort: 1234 },
  { source: 'fd00::77', sourcePort: 1235 },
  { source: 'fd01::77', sourcePort: 1234 },
].map((spec) => ({ family: 6, ...spec }))

/** ARP, a tagged frame, bare headers. */
const foreign = [
  ethernet(0x0806, new Uint8Array(28).fill(6)),
  ethernet(0x8100, concat(Uint8Array.of(0, 5, 8, 0), ipPacket({ family: 4, sequence: 5 }))),
  ethernet(0x88b5, ipPacket({ family: 4 })),
  ethernet(0x0800, new Uint8Array(0)),
  ethernet(0x86dd, new Uint8Array(0)),
]

const frames4 = ipv4.map(frame)
const frames6 = ipv6.map(frame)
const random = seeded(20_260_101)
const all = distinct([...frames4, ...frames6, ...foreign, ...mutations(frames4, 700, random), ...mutations(frames6, 1000, random)])

/** libpcap's own `tcp dst port` does not walk extension headers and its `protochain` stops at a protocol, so the walk is spelt out. */
function ipv6Tcp(condition: (offset: string) => string, rounds = 4, type = 'ip6[6]', offset = '40'): string {
  const here = `(${type} = 6 and ${condition(offset)})`
  if (rounds === 0) return here
  const next = `${offset} + 8 * ip6[${offset} + 1] + 8`
  const walked = [HOP_BY_HOP, ROUTING, OPTIONS].map((each) => `${type} = ${each}`).join(' or ')
  return `(${here} or ((${walked}) and ${ipv6Tcp(condition, rounds - 1, `ip6[${offset}]`, next)}))`
}

const forUs = `(ether dst ${macText(RIGHT_MAC)} or ether multicast)`
const cases: [string, Omit<CaptureProgramOptions, 'link'>, string][] = [
  ['a port', { family: 4, ports: [9191] }, 'ip and tcp dst port 9191'],
  ['any port', { family: 4, ports: { min: 0, max: 65_535 } }, 'ip and tcp and ip[6:2] & 0x1fff = 0 and tcp[2:2] >= 0'],
  ['several ports', { family: 4, ports: [80, 9191, 65_535] }, 'ip and tcp and (dst port 80 or dst port 9191 or dst port 65535)'],
  ['a range', { family: 4, ports: { min: 9000, max: 9191 } }, 'ip and tcp dst portrange 9000-9191'],
  ['an address', { family: 4, ports: [9191], addresses: [words('10.0.0.1')] }, 'ip and tcp dst port 9191 and dst host 10.0.0.1'],
  [
    'one of two addresses, the other family left out',
    { family: 4, ports: [9191], addresses: [words('10.0.0.3'), words('fd00::1'), words('11.0.0.1')] },
    'ip and tcp dst port 9191 and (dst host 10.0.0.3 or dst host 11.0.0.1)',
  ],
  [
    'a peer',
    { family: 4, ports: [9191], addresses: [words('10.0.0.1')], remote: { address: words('10.0.0.77'), port: 1234 } },
    'ip and tcp dst port 9191 and dst host 10.0.0.1 and src host 10.0.0.77 and tcp src port 1234',
  ],
  ['a port', { family: 6, ports: [9191] }, `ip6 and ${ipv6Tcp((at) => `ip6[${at} + 2 : 2] = 9191`)}`],
  ['a range', { family: 6, ports: { min: 9191, max: 9192 } }, `ip6 and ${ipv6Tcp((at) => `ip6[${at} + 2 : 2] - 9191 <= 1`)}`],
  [
    'one of two addresses',
    { family: 6, ports: [9191], addresses: [words('fd00::3'), words('fd00:0:0:1::1')] },
    `(ip6 dst host fd00::3 or ip6 dst host fd00:0:0:1::1) and ${ipv6Tcp((at) => `ip6[${at} + 2 : 2] = 9191`)}`,
  ],
  [
    'a peer',
    { family: 6, ports: [9191], addresses: [words('fd00::1')], remote: { address: words('fd00::77'), port: 1234 } },
    `ip6 dst host fd00::1 and ip6 src host fd00::77 and ${ipv6Tcp((at) => `ip6[${at} : 4] = ${1234 * 65_536 + 9191}`)}`,
  ],
]

const nothing = captureProgram({ link: 'packet', family: 4, ports: [] })

function packetSocket(options: Omit<CaptureProgramOptions, 'link'>): FilteredSocket {
  const program = captureProgram({ link: 'packet', ...options })
  return { kind: 'packet', device: 'right', protocol: options.family === 4 ? ETH_P_IP : ETH_P_IPV6, program }
}

const sorted = (indexes: Iterable<number>): number[] => [...indexes].sort((a, b) => a - b)

describe('a packet capture on a device with link header', () => {
  const outgoing = captureProgram({ link: 'packet', family: 4, ports: { min: 0, max: 65_535 } })
  let passed: Set<number>[]
  beforeAll(() => {
    passed = injectInKernel({
      device: 'veth',
      packets: all,
      sockets: [
        ...cases.map(([, options]) => packetSocket(options)),
        { kind: 'packet', device: 'right', protocol: ETH_P_IP, program: nothing },
        { kind: 'packet', device: 'left', protocol: ETH_P_ALL, program: null },
        { kind: 'packet', device: 'left', protocol: ETH_P_ALL, program: outgoing },
      ],
    })
  })

  it.each(cases.map(([name, options, expression], i) => ({ name, options, expression, i })))(
    'keeps what libpcap keeps: IPv$options.family, $name',
    ({ options, expression, i }) => {
      const expected = libpcapVerdicts(LINKTYPE_ETHERNET, all, `${forUs} and ${expression}`)
      expect(sorted(passed[i])).toEqual(sorted(expected))
      expect(expected.size).toBeGreaterThan(0)
      expect(expected.size).toBeLessThan(all.length - 100)

      // The interpreter, which the property test relies on, agrees as well. Other hosts' frames are told by the link address here.
      const ethertype = options.family === 4 ? 0x08 : 0x86
      const program = captureProgram({ link: 'packet', ...options })
      const interpreted = all.flatMap((packet, index) => {
        const type = packet[0] & 1 || Buffer.from(packet.subarray(0, 6)).equals(RIGHT_MAC) ? 0 : 3
        const verdict = runProgram(program, { data: packet, network: packet.subarray(LINK_HEADER_BYTES), type })
        return packet[12] === ethertype && verdict ? [index] : []
      })
      expect(interpreted).toEqual(sorted(expected))
    },
  )

  it('agrees with expectations written by hand', () => {
    const at = (spec: PacketSpec): number => all.findIndex((packet) => Buffer.from(packet).equals(frame(spec)))
    const keeps4 = (spec: Omit<PacketSpec, 'family'>): boolean => passed[0].has(at({ family: 4, ...spec }))
    const keeps6 = (spec: Omit<PacketSpec, 'family'>): boolean => passed[7].has(at({ family: 6, ...spec }))
    expect(keeps4({})).toBe(true)
    expect(keeps4({ ipOptions: new Uint8Array(40).fill(1), tcpOptions: TCP_OPTIONS })).toBe(true)
    expect(keeps4({ moreFragments: true })).toBe(true)
    expect(keeps4({ fragmentOffset: 0x1fff })).toBe(false)
    expect(keeps4({ protocol: 17 })).toBe(false)
    expect(keeps4({ destinationMac: Uint8Array.of(2, 0, 0, 0, 0, 0x0c) })).toBe(false)
    const kept = chains.map((extensions) => keeps6({ extensions }))
    // Fragments, authentication headers and the fifth extension header are given up.
    expect(kept).toEqual([true, true, true, false, false, true, false, true, true, false])
    for (const extensions of chains) expect(keeps6({ extensions, protocol: 17 }) || keeps6({ extensions, destinationPort: 80 })).toBe(false)
  })

  it('keeps nothing for an empty set of ports', () => {
    expect(passed[cases.length].size).toBe(0)
  })

  it('drops our own outgoing packets even on a socket that would be given them', () => {
    expect(passed[cases.length + 1].size).toBe(all.length)
    expect(passed[cases.length + 2].size).toBe(0)
  })

  it('keeps trains and jumbo packets whose payload is not in the linear part', () => {
    const train = (family: 4 | 6, payload: number): Uint8Array => frame({ family, payload: new Uint8Array(payload).fill(1) })
    // struct virtio_net_hdr: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset; hdr_len as our sender gives it.
    const header = (family: 4 | 6, gso: boolean): Uint8Array => {
      const transport = LINK_HEADER_BYTES + (family === 4 ? 20 : 40)
      const bytes = new Uint8Array(10)
      const fields = new Uint16Array(bytes.buffer)
      fields.set([transport + 20, gso ? 1400 : 0, transport, 16], 1)
      bytes[0] = 1
      if (gso) bytes[1] = family === 4 ? 1 : 4
      return bytes
    }
    const packets = [train(4, 42_000), train(6, 42_000), train(4, 20_000), train(6, 20_000)]
    const vnet = { 0: header(4, true), 1: header(6, true), 2: header(4, false), 3: header(6, false) }
    const sockets = [packetSocket({ family: 4, ports: [9191] }), packetSocket({ family: 6, ports: [9191] })]
    expect(injectInKernel({ device: 'veth', packets, vnet, sockets }).map(sorted)).toEqual([
      [0, 2],
      [1, 3],
    ])
  })
})

describe('a packet capture on a device without link header', () => {
  // A TUN device takes the protocol from the version nibble and refuses to be written what is neither 4 nor 6.
  const packets = distinct(
    all.filter((packet) => packet[12] === 0x08 || packet[12] === 0x86).map((packet) => packet.subarray(LINK_HEADER_BYTES)),
  ).filter((packet) => packet[0] >> 4 === 4 || packet[0] >> 4 === 6)
  let passed: Set<number>[]
  beforeAll(() => {
    passed = injectInKernel({ device: 'tun', packets, sockets: cases.map(([, options]) => packetSocket(options)) })
  })

  it.each(cases.map(([name, options, expression], i) => ({ name, options, expression, i })))(
    'keeps what libpcap keeps: IPv$options.family, $name',
    ({ expression, i }) => {
      const expected = libpcapVerdicts(LINKTYPE_RAW, packets, expression)
      expect(sorted(passed[i])).toEqual(sorted(expected))
      expect(expected.size).toBeGreaterThan(0)
    },
  )
})

describe('a raw capture', () => {
  const addresses = ['10.0.0.1/24', '10.0.0.3/24', 'fd00::1/64 nodad', 'fd00::3/64 nodad']

  /** Injects the packets that the specs describe and compares each socket's verdict with one over the specs. Returns what the kernel took for TCP. */
  function compare(family: 4 | 6, specs: readonly PacketSpec[], options: Omit<CaptureProgramOptions, 'link' | 'family'>[]): PacketSpec[] {
    // Numbered by sequence number: IPv4 fragments come back reassembled and IPv6 packets without their IP header.
    const numbered = specs.map((spec, i) => ({ sequence: i + 1000, ...spec }))
    const [delivered, ...passed] = injectInKernel({
      device: 'tun',
      addresses,
      packets: numbered.map(ipPacket),
      sockets: [null, ...options].map((each) => ({
        kind: 'raw',
        family,
        program: each && captureProgram({ link: 'raw', family, ...each }),
      })),
    })
    const tcp = numbered.filter(({ sequence }) => delivered.has(sequence))
    expect(tcp.length).toBeGreaterThan(10)
    for (const [i, { ports, addresses, remote }] of options.entries()) {
      const expected = tcp.filter(({ destinationPort = 9191, sourcePort = 40_000, ...spec }) => {
        const destination = spec.destination ?? (family === 4 ? '10.0.0.1' : 'fd00::1')
        const source = spec.source ?? (family === 4 ? '10.0.0.2' : 'fd00::2')
        const toPort = 'min' in ports ? destinationPort >= ports.min && destinationPort <= ports.max : ports.includes(destinationPort)
        const toAddress = !addresses || addresses.some((address) => String(address) === String(words(destination)))
        const fromPeer = !remote || (remote.port === sourcePort && String(remote.address) === String(words(source)))
        return toPort && toAddress && fromPeer
      })
      expect(sorted(passed[i])).toEqual(sorted(expected.map(({ sequence }) => sequence)))
      expect(expected.length).toBeGreaterThan(0)
      expect(expected.length).toBeLessThan(tcp.length)
    }
    return tcp
  }

  it('finds ports and addresses behind the IPv4 header, with options and reassembled', () => {
    const fragments: PacketSpec[] = [
      { family: 4, identification: 7, moreFragments: true, payload: new Uint8Array(44), sequence: 7, destinationPort: 9191 },
      // Its "TCP header" is payload of the packet above.
      { family: 4, identification: 7, fragmentOffset: 8, sequence: 8, destinationPort: 80 },
    ]
    const delivered = compare(
      4,
      [...ipv4.filter((spec) => !spec.moreFragments && !spec.fragmentOffset), ...fragments],
      [
        { ports: [9191] },
        { ports: { min: 0, max: 9191 }, addresses: [words('10.0.0.1')] },
        { ports: [9191], addresses: [words('10.0.0.3'), words('10.0.0.9')] },
        { ports: [9191], remote: { address: words('10.0.0.77'), port: 1234 } },
      ],
    )
    expect(delivered.filter(({ moreFragments, ipOptions }) => moreFragments || ipOptions)).toHaveLength(4)
  })

  it('finds ports at offset 0 and addresses in the IPv6 header that the kernel took off, extension headers or not', () => {
    const delivered = compare(6, ipv6, [
      { ports: [9191] },
      { ports: { min: 0, max: 9191 }, addresses: [words('fd00::1')] },
      { ports: [9191], addresses: [words('fd00::3'), words('fd00::9')] },
      { ports: [9191], remote: { address: words('fd00::77'), port: 1234 } },
    ])
    expect(delivered.filter(({ extensions }) => extensions).length).toBeGreaterThan(10)
  })
})

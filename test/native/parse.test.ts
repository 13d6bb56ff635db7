// What the parser makes of packets, by running it outside of Node under AddressSanitizer (native/test/parse_tool.cc).
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import {
  ACK,
  D_ACK,
  D_FLAGS,
  D_LENGTH,
  D_MSS,
  D_OFFSET,
  D_SEGMENT,
  D_SEQ,
  D_TSECR,
  D_TSVAL,
  D_TTL,
  D_WINDOW,
  HAS_SACK,
  HAS_SCALE,
  HAS_TIMESTAMPS,
  KEY_LOCAL,
  KEY_PORTS,
  KEY_REMOTE,
  PSH,
  SCALE_SHIFT,
  SYN,
} from '../../lib/native/layout.ts'
import { compile, type Helper } from './compile.ts'
import { addressWords, type PacketOptions, packet, tcpSegment, withHeaderChecksum } from './packets.ts'

const V4 = { source: '10.0.0.1', destination: '10.0.0.2' }
const V6 = { source: 'fd00::1', destination: 'fd00::2' }
/** Where parse_tool says that the IP header stands. */
const OFFSET = 1000
const HOP_BY_HOP = 0
const ROUTING = 43
const FRAGMENT = 44
const DESTINATION_OPTIONS = 60
const PADDING_8 = [0, 0, 1, 4, 0, 0, 0, 0]

let tool: Helper

beforeAll(() => {
  tool = compile(['test/parse_tool.cc', 'parse.cc', 'coalesce.cc'], { sanitize: true })
})
afterAll(() => tool?.[Symbol.dispose]())

interface How {
  readonly kind?: string
  readonly checksum?: 'good' | 'verify' | 'partial'
  readonly gso?: number
}

function parseAll(packets: readonly Buffer[], { kind, checksum = 'verify', gso = 0 }: How = {}) {
  const lines = packets.map((bytes) => `${kind ?? bytes[0] >> 4} ${checksum} ${gso} ${bytes.toString('hex')}\n`)
  const { stdout, stderr, status } = tool.run(['describe'], lines.join(''))
  if (status !== 0) throw new Error(stderr)
  return stdout
    .trim()
    .split('\n')
    .map((line) => {
      const [verdict, ...words] = line.split(' ')
      return { verdict, words: words.map(Number) }
    })
}

const parse = (bytes: Buffer, how?: How) => parseAll([bytes], how)[0]
const verdictOf = (options: PacketOptions, how?: How) => parse(packet(options), how).verdict
/** The packet with one byte changed, its IPv4 header checksum made right again. */
function changed(options: PacketOptions, change: (bytes: Buffer) => void): Buffer {
  const bytes = packet(options)
  change(bytes)
  return bytes[0] >> 4 === 4 ? Buffer.concat([withHeaderChecksum(bytes.subarray(0, 20)), bytes.subarray(20)]) : bytes
}

describe.each([
  ['IPv4', V4, 20],
  ['IPv6', V6, 40],
] as const)('%s', (_name, addresses, header) => {
  it('becomes a descriptor with the flow key, sequence numbers, window, flags, TTL and the place of the payload', () => {
    const options = { ...addresses, seq: 0xfffffff0, ack: 0x80000001, window: 65535, flags: ACK | PSH, payload: 'hello', ttl: 3, tos: 0x2e }
    const { verdict, words } = parse(packet({ ...options, sourcePort: 65535, destinationPort: 443 }))
    expect(verdict).toBe('accepted')
    expect(words.slice(KEY_REMOTE, KEY_REMOTE + 4)).toEqual(addressWords(addresses.source))
    expect(words.slice(KEY_LOCAL, KEY_LOCAL + 4)).toEqual(addressWords(addresses.destination))
    expect(words[KEY_PORTS] >>> 0).toBe(65535 * 65536 + 443)
    expect([words[D_SEQ] >>> 0, words[D_ACK] >>> 0, words[D_WINDOW]]).toEqual([0xfffffff0, 0x80000001, 65535])
    expect([words[D_FLAGS], words[D_TTL]]).toEqual([ACK | PSH, 0x2e03])
    expect([words[D_OFFSET], words[D_LENGTH], words[D_SEGMENT]]).toEqual([OFFSET + header + 20, 5, 5])
  })

  it('reads MSS, window scale, SACK-permitted and timestamps of a SYN', () => {
    const options = [2, 4, 0x05, 0xb4, 4, 2, 8, 10, 0, 0, 0, 7, 0, 0, 0, 9, 1, 3, 3, 7]
    const { words } = parse(packet({ ...addresses, flags: SYN, options }))
    expect(words[D_FLAGS]).toBe(SYN | HAS_TIMESTAMPS | HAS_SACK | HAS_SCALE | (7 << SCALE_SHIFT))
    expect([words[D_MSS], words[D_TSVAL], words[D_TSECR]]).toEqual([1460, 7, 9])
  })

  it('takes a window scale above 14 as 14 (RFC 7323, 2.3)', () => {
    const { words } = parse(packet({ ...addresses, flags: SYN, options: [3, 3, 200] }))
    expect(words[D_FLAGS] >>> SCALE_SHIFT).toBe(14)
  })

  it('reads of the handshake options only timestamps where there is no SYN', () => {
    const { words } = parse(packet({ ...addresses, flags: ACK, options: [2, 4, 5, 180, 1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 3, 3, 5, 0] }))
    expect([words[D_FLAGS], words[D_MSS], words[D_TSVAL]]).toEqual([ACK | HAS_TIMESTAMPS, 0, 1])
  })

  it('ends the options at kind 0 and skips unknown ones', () => {
    expect(verdictOf({ ...addresses, options: [0, 99, 99, 99] })).toBe('accepted')
    expect(verdictOf({ ...addresses, options: [254, 6, 1, 2, 3, 4, 1, 1] })).toBe('accepted')
  })

  it.each([
    ['a length of 0', [8, 0, 1, 1]],
    ['a length of 1', [30, 1, 1, 1]],
    ['a length beyond the header', [8, 10, 0, 0]],
    ['a kind without a length', [1, 1, 1, 8]],
    ['a timestamps option of 8 bytes', [8, 8, 0, 0, 0, 0, 0, 0]],
    ['an MSS option of 3 bytes', [2, 3, 5, 1]],
    ['a window scale option of 4 bytes', [3, 4, 5, 5]],
    ['a SACK-permitted option of 3 bytes', [4, 3, 5, 1]],
  ])('is refused for an option with %s', (_what, options) => {
    expect(verdictOf({ ...addresses, options })).toBe('header')
  })

  it('is refused for a TCP header shorter than 20 bytes or longer than the packet', () => {
    for (const words of [0, 4, 15]) {
      expect(parse(changed(addresses, (bytes) => bytes.writeUInt8(words << 4, header + 12))).verdict).toBe('header')
    }
  })

  it('is refused for a wrong TCP checksum unless the kernel vouches for it', () => {
    expect(verdictOf({ ...addresses, payload: 'x', checksum: 'wrong' })).toBe('checksum')
    expect(verdictOf({ ...addresses, payload: 'x', checksum: 'wrong' }, { checksum: 'good' })).toBe('accepted')
  })

  it('is verified at every payload length around the word size', () => {
    const of = (checksum: 'right' | 'wrong') =>
      Array.from({ length: 70 }, (_, length) => packet({ ...addresses, payload: Buffer.alloc(length, 0xab), checksum }))
    expect(new Set(parseAll(of('right')).map(({ verdict }) => verdict))).toEqual(new Set(['accepted']))
    expect(new Set(parseAll(of('wrong')).map(({ verdict }) => verdict))).toEqual(new Set(['checksum']))
  })

  it('may carry an unfinished checksum only where an IP raw socket cannot know', () => {
    const options = { ...addresses, payload: 'offloaded', checksum: 'partial' } as const
    expect(verdictOf(options)).toBe('checksum')
    expect(verdictOf(options, { checksum: 'partial' })).toBe('accepted')
    expect(verdictOf({ ...options, checksum: 'wrong' }, { checksum: 'partial' })).toBe('checksum')
  })

  it('loses Ethernet padding behind its end', () => {
    const { verdict, words } = parse(Buffer.concat([packet({ ...addresses, payload: 'a' }), Buffer.alloc(9, 0xee)]))
    expect([verdict, words[D_LENGTH]]).toEqual(['accepted', 1])
  })

  it('is truncated when it is shorter than it says, at every length', () => {
    const bytes = packet({ ...addresses, payload: 'abc' })
    const prefixes = Array.from({ length: bytes.length - 1 }, (_, i) => bytes.subarray(0, i + 1))
    expect(new Set(parseAll(prefixes).map(({ verdict }) => verdict))).toEqual(new Set(['truncated']))
  })

  it('is cut at the segment size that GSO or GRO reports', () => {
    const bytes = packet({ ...addresses, payload: Buffer.alloc(3500), checksum: 'partial' })
    const { words } = parse(bytes, { checksum: 'good', gso: 1400 })
    expect([words[D_LENGTH], words[D_SEGMENT]]).toEqual([3500, 1400])
    expect(parse(packet({ ...addresses, payload: 'abc' }), { gso: 1400 }).words[D_SEGMENT]).toBe(3)
  })

  it('has no segment size without payload', () => {
    const { words } = parse(packet(addresses), { gso: 1400 })
    expect([words[D_LENGTH], words[D_SEGMENT]]).toEqual([0, 0])
  })

  it('of BIG TCP has a length field of 0 and ends where it ends', () => {
    const big = packet({ ...addresses, payload: Buffer.alloc(65500), checksum: 'partial' })
    const bytes = header === 20 ? bigIpv4(big) : bigIpv6(big)
    expect(parse(bytes, { checksum: 'good', gso: 1400 }).words[D_LENGTH]).toBe(65500)
    expect(parse(bytes, { checksum: 'good' }).verdict).not.toBe('accepted')
  })

  it('of another protocol is foreign', () => {
    expect(verdictOf({ ...addresses, protocol: 17 })).toBe('foreign')
  })

  it('of the other IP version is refused', () => {
    expect(parse(packet(addresses), { kind: header === 20 ? '6' : '4' }).verdict).toBe('header')
  })
})

function bigIpv4(bytes: Buffer): Buffer {
  const header = Buffer.from(bytes.subarray(0, 20))
  header.writeUInt16BE(0, 2)
  return Buffer.concat([withHeaderChecksum(header), bytes.subarray(20)])
}

function bigIpv6(bytes: Buffer): Buffer {
  const out = Buffer.from(bytes)
  out.writeUInt16BE(0, 4)
  return out
}

describe('IPv4', () => {
  it('may carry IP options', () => {
    const { verdict, words } = parse(packet({ ...V4, ipOptions: [1, 1, 1, 0], payload: 'z' }))
    expect([verdict, words[D_OFFSET]]).toEqual(['accepted', OFFSET + 44])
  })

  it('is refused for a wrong header checksum', () => {
    const bytes = packet(V4)
    bytes[8] ^= 1
    expect(parse(bytes).verdict).toBe('checksum')
  })

  it('is refused as a fragment: more fragments, or an offset', () => {
    expect(verdictOf({ ...V4, fragment: 0x2000 })).toBe('fragment')
    expect(verdictOf({ ...V4, fragment: 0x0001 })).toBe('fragment')
    expect(verdictOf({ ...V4, fragment: 0x0000 })).toBe('accepted')
  })

  it('is refused for a header of less than 20 bytes and a total length shorter than the header', () => {
    expect(parse(changed(V4, (bytes) => bytes.writeUInt8(0x44, 0))).verdict).toBe('header')
    expect(parse(changed(V4, (bytes) => bytes.writeUInt16BE(19, 2))).verdict).toBe('header')
  })
})

describe('IPv6', () => {
  it('is walked through hop-by-hop, routing and destination options', () => {
    const extensions = [
      [HOP_BY_HOP, PADDING_8],
      [DESTINATION_OPTIONS, PADDING_8],
      [ROUTING, [0, 0, 4, 0, 0, 0, 0, 0]],
      [DESTINATION_OPTIONS, [0, 1, 1, 12, ...Array<number>(12).fill(0)]],
    ] as const
    const { verdict, words } = parse(packet({ ...V6, extensions, payload: 'deep' }))
    expect([verdict, words[D_OFFSET], words[D_LENGTH]]).toEqual(['accepted', OFFSET + 40 + 24 + 16 + 20, 4])
  })

  it('is refused behind more extension headers than RFC 8200 knows', () => {
    const extensions = Array.from({ length: 9 }, () => [DESTINATION_OPTIONS, PADDING_8] as const)
    expect(verdictOf({ ...V6, extensions })).toBe('header')
  })

  it('is refused for an extension header that leads out of the packet', () => {
    expect(verdictOf({ ...V6, extensions: [[HOP_BY_HOP, [0, 200, 1, 4, 0, 0, 0, 0]]] })).toBe('header')
  })

  it('is foreign on its way to another address (routing header with segments left)', () => {
    expect(verdictOf({ ...V6, extensions: [[ROUTING, [0, 0, 4, 1, 0, 0, 0, 0]]] })).toBe('foreign')
  })

  it('is refused as a fragment', () => {
    expect(verdictOf({ ...V6, extensions: [[FRAGMENT, [0, 0, 0, 1, 0, 0, 0, 1]]] })).toBe('fragment')
  })

  it('is foreign with an IPv4-mapped address on either side: it would stand for an IPv4 flow', () => {
    expect(verdictOf({ ...V6, source: '::ffff:10.0.0.1' })).toBe('foreign')
    expect(verdictOf({ ...V6, destination: '::ffff:10.0.0.1' })).toBe('foreign')
  })
})

it('takes a TCP segment whose IP header the kernel kept', () => {
  const { verdict, words } = parse(tcpSegment({ source: '::', destination: '::', payload: 'bare' }), { kind: 'tcp6' })
  expect([verdict, words[D_OFFSET], words[D_LENGTH]]).toEqual(['accepted', OFFSET + 20, 4])
})

it.each([1, 2, 3, 4])('survives 150 000 mutated packets without reading out of bounds (seed %i)', (seed) => {
  const seeds = [
    packet({ ...V4, payload: 'seed', options: [8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 1, 1] }),
    packet({ ...V4, flags: SYN, options: [2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7] }),
    packet({ ...V4, ipOptions: [7, 4, 4, 0], payload: Buffer.alloc(200, 1) }),
    packet({ ...V6, payload: 'seed', options: [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2] }),
    packet({
      ...V6,
      extensions: [
        [HOP_BY_HOP, PADDING_8],
        [ROUTING, [0, 0, 4, 0, 0, 0, 0, 0]],
      ],
      payload: 'deep',
    }),
    packet({ ...V6, extensions: [[FRAGMENT, [0, 0, 0, 0, 0, 0, 0, 1]]], payload: 'part' }),
  ]
  const { status, stdout, stderr } = tool.run(['fuzz', String(seed), '150000', ...seeds.map((bytes) => bytes.toString('hex'))])
  expect(stderr).toBe('')
  expect([status, stdout]).toEqual([0, expect.stringMatching(/^accepted [1-9]/)])
  // Every way out of the parser is taken, or the mutations have lost their bite.
  for (const verdict of ['truncated', 'header', 'checksum', 'fragment', 'foreign']) expect(stdout).toMatch(new RegExp(`${verdict} [1-9]`))
})

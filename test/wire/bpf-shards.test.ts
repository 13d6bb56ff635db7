// The hash that divides a port among shards: the programs against the model in JavaScript, with libpcap and the kernel as referees, and how evenly
// it divides what clients really use.
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { captureProgram, MAX_PORTS, steeringProgram } from '../../lib/wire/programs.ts'
import { MAX_EXCEPTIONS, type RemoteEnd, shardOf } from '../../lib/wire/shards.ts'
import { runProgram } from './fixtures/interpreter.ts'
import { ETH_P_IP, ETH_P_IPV6, injectInKernel } from './fixtures/kernel.ts'
import { frame, ipPacket, type PacketSpec, seeded, words } from './fixtures/packets.ts'
import { LINKTYPE_ETHERNET, libpcapVerdicts } from './fixtures/pcap.ts'

type Words = [number, number, number, number]

const shardOfEnd = (address: Words, port: number, count: number): number =>
  shardOf(Int32Array.from([...address, 0, 0, 0xffff, 1, (port << 16) | 9191]), 0, count)

const word = fc.oneof(fc.integer({ min: -0x80000000, max: 0x7fffffff }), fc.integer({ min: 0, max: 3 }))
const address4 = word.map((last): Words => [0, 0, 0xffff, last])
const address6 = fc.tuple(fc.constantFrom(0x20010db8, -0x2000000), word, word, word)
const port = fc.integer({ min: 0, max: 65_535 })
const shard = fc.integer({ min: 1, max: 64 }).chain((count) => fc.record({ count: fc.constant(count), index: fc.nat(count - 1) }))

/** A packet of the family with this source, and where its parts are. */
function packetFrom(address: Words, sourcePort: number, spec: Partial<PacketSpec> = {}) {
  const family = address[0] === 0 ? 4 : 6
  const network = ipPacket({ family, sourcePort, ...spec })
  const view = new DataView(network.buffer, network.byteOffset)
  if (family === 4) view.setInt32(12, address[3])
  else for (const [i, each] of address.entries()) view.setInt32(8 + i * 4, each)
  return { family, network } as const
}

/** What the kernel counts: the length after its translation (bpf_convert_filter), where a load from the packet is a call with its arguments and a check. */
function kernelBytes(program: Uint8Array): number {
  const halves = new Uint16Array(program.buffer, program.byteOffset, program.length / 2)
  const codes = halves.filter((_, i) => i % 4 === 0)
  const [LD, MODE, ABS, IND] = [0x00, 0xe0, 0x20, 0x40]
  return codes.reduce((bytes, code) => bytes + 8 * ((code & 7) === LD && ((code & MODE) === ABS || (code & MODE) === IND) ? 9 : 1), 0)
}

describe('a capture of one shard', () => {
  it('keeps what the model gives it, in both families and on both links', () => {
    fc.assert(
      fc.property(
        fc.oneof(address4, address6),
        port,
        fc.constantFrom('packet', 'raw'),
        shard,
        (address, source, link, { index, count }) => {
          const { family, network } = packetFrom(address, source)
          const data = link === 'raw' && family === 6 ? network.subarray(40) : network
          const options = { link, family, ports: [9191] } as const
          const program = captureProgram({ ...options, shard: { index, count, exceptions: [], wholeShards: [] } })
          expect(runProgram(program, { data, network }) > 0).toBe(shardOfEnd(address, source, count) === index)
        },
      ),
      { numRuns: 500, seed: 9191 },
    )
  })

  it('keeps its exceptions and the shards it was given as a whole besides, and nothing else of the others', () => {
    const end = fc.record({ address: fc.oneof(address4, address6), port: fc.oneof(port, fc.integer({ min: 4000, max: 4010 })) })
    fc.assert(
      fc.property(
        fc.array(end, { maxLength: MAX_EXCEPTIONS, size: 'max' }),
        fc.array(end, { maxLength: 20 }),
        shard,
        fc.array(fc.nat(63), { maxLength: 3 }),
        fc.constantFrom('packet', 'raw'),
        (exceptions, others, { index, count }, wholeShards, link) => {
          const name = (one: RemoteEnd) => `${one.address} ${one.port}`
          const excepted = new Set(exceptions.map(name))
          const filter = { index, count, exceptions, wholeShards }
          const programs = {
            4: captureProgram({ link, family: 4, ports: [9191], shard: filter }),
            6: captureProgram({ link, family: 6, ports: [9191], shard: filter }),
          }
          const near = exceptions.map(({ address, port }) => ({ address, port: (port + 1) & 0xffff }))
          for (const one of [...exceptions, ...near, ...others]) {
            const { family, network } = packetFrom(one.address, one.port)
            const data = link === 'raw' && family === 6 ? network.subarray(40) : network
            const place = shardOfEnd(one.address, one.port, count)
            const expected = place === index || wholeShards.includes(place) || excepted.has(name(one))
            if (runProgram(programs[family], { data, network }) > 0 !== expected) throw new Error(`wrong verdict for ${name(one)}`)
          }
        },
      ),
      { numRuns: 100, seed: 9191 },
    )
  })

  it('still asks for the port and the address', () => {
    const filter = { index: 0, count: 1, exceptions: [{ address: words('10.0.0.2'), port: 40_000 }], wholeShards: [] }
    const program = captureProgram({ link: 'packet', family: 4, ports: [9191], addresses: [words('10.0.0.1')], shard: filter })
    const verdict = (spec: Partial<PacketSpec>) => {
      const network = ipPacket({ family: 4, ...spec })
      return runProgram(program, { data: network, network }) > 0
    }
    expect([verdict({}), verdict({ destinationPort: 9192 }), verdict({ destination: '10.0.0.3' })]).toEqual([true, false, false])
  })

  it('is what libpcap and the kernel say as well, packet by packet', () => {
    const random = seeded(4)
    const specs = Array.from({ length: 600 }, (_, i): PacketSpec => {
      const sourcePort = Math.floor(random() * 65_536)
      const host = Math.floor(random() * 250) + 3
      const options = i % 5 === 0 ? { ipOptions: new Uint8Array(8).fill(1), extensions: [{ type: 60, units: 1 }] } : {}
      return i % 2 === 0
        ? { family: 4, source: `10.0.${i % 7}.${host}`, sourcePort, ...options }
        : { family: 6, source: `fd00:0:${i % 7}:${i % 3}::${host.toString(16)}`, sourcePort, ...options }
    })
    const packets = specs.map(frame)
    const count = 4
    const filter = (index: number) => ({ index, count, exceptions: [], wholeShards: [] })
    const passed = injectInKernel({
      device: 'veth',
      packets,
      sockets: ([4, 6] as const).flatMap((family) =>
        [0, 1, 2, 3].map((index) => ({
          kind: 'packet' as const,
          device: 'right' as const,
          protocol: family === 4 ? ETH_P_IP : ETH_P_IPV6,
          program: captureProgram({ link: 'packet', family, ports: [9191], shard: filter(index) }),
        })),
      ),
    })
    const expected = [4, 6].flatMap((family) =>
      [0, 1, 2, 3].map((index) =>
        specs.flatMap((spec, i) =>
          spec.family === family && shardOfEnd(words(spec.source as string), spec.sourcePort as number, count) === index ? [i] : [],
        ),
      ),
    )
    expect(passed.map((indexes) => [...indexes].sort((a, b) => a - b))).toEqual(expected)
    // libpcap has the same arithmetic, without loops or variables.
    const mix = (hash: string, multiplier: number, shift: number) => `((${hash} * ${multiplier}) ^ ((${hash} * ${multiplier}) >> ${shift}))`
    const step = (hash: string) => mix(hash, 0x7feb352d, 15)
    const hash = mix(step(`(${step('ip[12:4]')} ^ tcp[0:2])`), 0x846ca68b, 16)
    for (const index of [0, 1, 2, 3]) {
      expect([...libpcapVerdicts(LINKTYPE_ETHERNET, packets, `ip and tcp dst port 9191 and ${hash} % 4 = ${index}`)]).toEqual(
        expected[index],
      )
    }
  })

  it('stays small enough to be replaced in place, with as many exceptions as it may have', () => {
    const exceptions = Array.from({ length: MAX_EXCEPTIONS }, (_, i) => ({ address: words(`fd00:${i}::${i + 1}`), port: i }))
    const shard = { index: 0, count: 64, exceptions, wholeShards: [1, 2, 3] }
    const program = captureProgram({ link: 'packet', family: 6, ports: [9191], addresses: [words('fd00::1')], shard })
    // net.core.optmem_max was 20 KiB before Linux 6.7. Old and new program count together while one replaces the other.
    expect(kernelBytes(program)).toBeLessThan(20_480 / 2)
    const ports = Array.from({ length: MAX_PORTS }, (_, i) => i * 127)
    expect(kernelBytes(captureProgram({ link: 'packet', family: 6, ports }))).toBeLessThan(20_480 / 2)
    const more = { ...shard, exceptions: [...exceptions, { address: words('fd00::ffff'), port: 1 }] }
    expect(() => captureProgram({ link: 'packet', family: 6, ports: [9191], shard: more })).toThrow(/65 exceptions, expected at most 64/)
  })
})

describe('the steering program', () => {
  it("returns the model's shard, by the packet's own version of IP, with options and extension headers", () => {
    fc.assert(
      fc.property(fc.oneof(address4, address6), port, fc.integer({ min: 1, max: 64 }), fc.boolean(), (address, source, count, longer) => {
        const spec = longer ? { ipOptions: new Uint8Array(12).fill(1), extensions: [{ type: 0 }, { type: 60, units: 2 }] } : {}
        const { network } = packetFrom(address, source, spec)
        // In the kernel's call the data begins behind the TCP header; nothing of it may be used.
        expect(runProgram(steeringProgram(count), { data: new Uint8Array(0), network })).toBe(shardOfEnd(address, source, count))
      }),
      { numRuns: 500, seed: 9191 },
    )
  })

  it('names no shard for what it cannot read', () => {
    const network = ipPacket({ family: 6, extensions: [{ type: 51, units: 4 }] })
    expect(runProgram(steeringProgram(4), { data: network, network })).toBe(0xffffffff)
  })
})

describe('1 000 flows over the shards', () => {
  const ends: Array<[string, (i: number) => [Words, number]]> = [
    ['even ports of one IPv4 client', (i) => [words('10.77.0.1'), 32_768 + i * 2]],
    ['odd ports of one IPv4 client', (i) => [words('192.168.1.77'), 32_769 + i * 2]],
    ['even ports of one IPv6 client', (i) => [words('fd00:77::1'), 40_000 + i * 2]],
    ['one port of many neighbouring addresses', (i) => [words(`10.1.${i >> 8}.${i & 255}`), 40_000]],
    ['one port of many IPv6 addresses', (i) => [words(`2001:db8:0:${i.toString(16)}::1`), 40_000]],
  ]
  it.each(ends)('%s are within 25 %% of even', (_name, end) => {
    for (const count of [2, 3, 4, 5, 8]) {
      const shares = new Array<number>(count).fill(0)
      for (let i = 0; i < 1000; i++) shares[shardOfEnd(...end(i), count)]++
      const even = 1000 / count
      expect(Math.min(...shares)).toBeGreaterThan(even * 0.75)
      expect(Math.max(...shares)).toBeLessThan(even * 1.25)
    }
  })
})

// Sets of ports and addresses: for any set, the program's verdict is membership. The interpreter in fixtures runs many, the kernel some.
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { captureProgram, MAX_PORTS } from '../../lib/wire/programs.ts'
import { runProgram } from './fixtures/interpreter.ts'
import { ETH_P_IP, injectInKernel } from './fixtures/kernel.ts'
import { frame, ipPacket, seeded } from './fixtures/packets.ts'

const port = fc.integer({ min: 0, max: 65_535 })
/** Scattered ports, runs of neighbours, and the ends of the range. */
const ports = fc.oneof(
  fc.array(port, { minLength: 1, maxLength: MAX_PORTS, size: 'max' }),
  fc.array(port, { minLength: 1, maxLength: 20 }),
  fc
    .array(fc.tuple(port, fc.integer({ min: 1, max: 25 })), { minLength: 1, maxLength: 20 })
    .map((runs) => runs.flatMap(([first, length]) => Array.from({ length }, (_, i) => Math.min(first + i, 65_535))).slice(0, MAX_PORTS)),
  fc.array(
    fc.integer({ min: 0, max: 1 }).map((end) => end * 65_535),
    { minLength: 1 },
  ),
)
const link = fc.constantFrom('packet', 'raw')

/** Every port of the set with its neighbours, and some others. */
function probes(set: readonly number[], others: readonly number[]): number[] {
  return [...new Set([...set.flatMap((each) => [each - 1, each, each + 1]), ...others])].filter((each) => each >= 0 && each <= 65_535)
}

describe('a set of ports', () => {
  it('keeps exactly its members, in both families and on both links', () => {
    const packets = { 4: ipPacket({ family: 4 }), 6: ipPacket({ family: 6 }) }
    fc.assert(
      fc.property(ports, fc.array(port, { maxLength: 50 }), link, fc.constantFrom(4, 6), (set, others, link, family) => {
        const program = captureProgram({ link, family, ports: set })
        const members = new Set(set)
        const network = packets[family]
        const header = family === 4 ? 20 : 40
        const view = new DataView(network.buffer, network.byteOffset)
        const data = link === 'raw' && family === 6 ? network.subarray(header) : network
        for (const each of probes(set, others)) {
          view.setUint16(header + 2, each)
          if (runProgram(program, { data, network }) > 0 !== members.has(each)) throw new Error(`wrong verdict for port ${each}`)
        }
      }),
      { numRuns: 150, seed: 9191 },
    )
  })

  it('keeps exactly its members in the kernel', () => {
    const random = seeded(7)
    const sets = [1, 2, 7, 8, 9, 16, 17, 64, 129, 300, 511, 512].map((size) =>
      Array.from({ length: size }, () => Math.floor(random() * 65_536)),
    )
    sets.push(Array.from({ length: MAX_PORTS }, (_, i) => i * 2))
    // 12 members of each set at most, with their neighbours.
    const tried = probes(
      sets.flatMap((set) => set.filter((_, i) => i % Math.ceil(set.length / 12) === 0)),
      [0, 65_535],
    )
    const passed = injectInKernel({
      device: 'veth',
      packets: tried.map((destinationPort) => frame({ family: 4, destinationPort })),
      sockets: sets.map((set) => ({
        kind: 'packet',
        device: 'right',
        protocol: ETH_P_IP,
        program: captureProgram({ link: 'packet', family: 4, ports: set }),
      })),
    })
    for (const [i, set] of sets.entries()) {
      const members = new Set(set)
      expect(new Set([...passed[i]].map((index) => tried[index]))).toEqual(new Set(tried.filter((each) => members.has(each))))
      expect(passed[i].size).toBeGreaterThan(0)
    }
  })
})

describe('a set of addresses', () => {
  const word = fc.oneof(fc.integer({ min: -0x80000000, max: 0x7fffffff }), fc.integer({ min: -2, max: 2 }))

  it('keeps exactly its members of the family', () => {
    const address4 = word.map((last): [number, number, number, number] => [0, 0, 0xffff, last])
    const address6 = fc.tuple(fc.constantFrom(0x20010db8, -0x2000000), word, word, word)
    fc.assert(
      fc.property(
        fc.array(fc.oneof(address4, address6), { minLength: 1, maxLength: 40 }),
        fc.array(fc.oneof(address4, address6), { maxLength: 20 }),
        link,
        fc.constantFrom(4, 6),
        (set, others, link, family) => {
          const program = captureProgram({
            link,
            family,
            ports: { min: 0, max: 65_535 },
            addresses: set.map((each) => Int32Array.from(each)),
          })
          const members = new Set(set.map(String))
          const network = ipPacket({ family })
          const data = link === 'raw' && family === 6 ? network.subarray(40) : network
          const view = new DataView(network.buffer, network.byteOffset)
          const near = set.map(([a, b, c, d]) => [a, b, c, (d + 1) | 0])
          for (const each of [...set, ...near, ...others].filter(([a, b, c]) => (a === 0 && b === 0 && c === 0xffff) === (family === 4))) {
            if (family === 4) view.setInt32(16, each[3])
            else for (const [i, word] of each.entries()) view.setInt32(24 + i * 4, word)
            if (runProgram(program, { data, network }) > 0 !== members.has(String(each))) throw new Error(`wrong verdict for ${each}`)
          }
        },
      ),
      { numRuns: 150, seed: 9191 },
    )
  })
})

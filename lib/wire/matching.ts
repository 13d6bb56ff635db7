// What capture programs ask of a packet: where its TCP header is, and whether a port or an address is in a set. Emits instructions; knows no
// program as a whole.
import type { Assembler } from './bpf.ts'

/** Four words as in the flow key of layout.ts: 16 bytes, IPv4 mapped into IPv6. */
export type AddressWords = Int32Array | readonly [number, number, number, number]

export const IPPROTO_TCP = 6
const IPV6_HEADER_BYTES = 40
/** Extension headers followed before giving up: hop-by-hop, two of destination options and routing is all that RFC 8200, 4.1 knows. */
const MAX_EXTENSION_HEADERS = 4
/** Hop-by-hop options, routing, destination options. All three start with next header and length in units of 8 bytes beyond the first 8. */
const WALKED_HEADERS = [0, 43, 60] as const
/** Ranges compared one after the other at the leaves of the binary search; fewer instructions than a search down to single ports. */
const LEAF_RANGES = 8

export interface Range {
  readonly min: number
  readonly max: number
}

/** Loads from the TCP header, wherever `findTcp` found it. */
export interface TcpHeader {
  loadHalf(offset: number): Assembler
}

/** Emits the way from the start of the packet to its TCP header; what is not TCP goes to `drop`. Leaves X to the header it found. */
export function findTcp(program: Assembler, link: 'packet' | 'raw', family: 4 | 6, ip: number): TcpHeader {
  if (family === 6 && link === 'raw') return { loadHalf: (offset) => program.load('half', offset) }
  if (family === 4) {
    program.load('byte', ip + 9).jump('eq', IPPROTO_TCP, { no: 'drop' })
    program.load('half', ip + 6).jump('set', 0x1fff, { yes: 'drop' })
    program.setIndexHeaderLength(ip)
  } else {
    program.setIndex(IPV6_HEADER_BYTES).load('byte', ip + 6)
    // No loops in classic BPF. On entry of each round A is the type of the header that X points to.
    for (let round = 0; round < MAX_EXTENSION_HEADERS; round++) {
      const walk = `extension ${round}`
      program.jump('eq', IPPROTO_TCP, { yes: 'tcp' })
      for (const [i, type] of WALKED_HEADERS.entries()) {
        program.jump('eq', type, i < WALKED_HEADERS.length - 1 ? { yes: walk } : { no: 'drop' })
      }
      program.label(walk)
      program.loadIndexed('byte', ip).store(0)
      program
        .loadIndexed('byte', ip + 1)
        .alu('add', 1)
        .alu('lsh', 3)
        .alu('add', 'x')
        .copyToIndex()
      program.loadScratch(0)
    }
    program.jump('eq', IPPROTO_TCP, { no: 'drop' }).label('tcp')
  }
  return { loadHalf: (offset) => program.loadIndexed('half', ip + offset) }
}

/** Jumps to `hit` if A lies in one of the ascending ranges, else to `drop`. */
export function matchRanges(program: Assembler, name: string, ranges: readonly Range[], hit: string): void {
  let count = 0
  const search = (part: readonly Range[]): void => {
    const middle = part.length >> 1
    if (part.length > LEAF_RANGES) {
      const upper = `${name} ${count++}`
      program.jump('ge', part[middle].min, { yes: upper })
      search(part.slice(0, middle))
      program.label(upper)
      search(part.slice(middle))
      return
    }
    // One BPF_JA to each far end for the whole leaf, rather than one for each comparison.
    const leaf = `${name} ${count++}`
    const far = ranges.length > LEAF_RANGES
    const yes = far ? `${leaf} yes` : hit
    const no = far ? `${leaf} no` : 'drop'
    for (const [i, range] of part.entries()) {
      const rest = i < part.length - 1 ? {} : { no }
      if (range.min === range.max) program.jump('eq', range.min, { yes, ...rest })
      else {
        const above = `${leaf} above ${i}`
        program.jump('ge', range.min, { no })
        program.jump('gt', range.max, i < part.length - 1 ? { yes: above, no: yes } : { yes: no, no: yes })
        if (i < part.length - 1) program.label(above)
      }
    }
    if (far) program.label(no).goto('drop').label(yes).goto(hit)
  }
  search(ranges)
}

/** Continues if the IPv6 address at `offset` is one of `addresses`, else drops. */
export function matchIPv6(program: Assembler, name: string, offset: number, addresses: readonly Words[]): void {
  for (const [i, address] of addresses.entries()) {
    const other = i < addresses.length - 1 ? `${name} ${i}` : 'drop'
    compareWords(program, address, (w) => program.load('word', offset + w * 4), { yes: `${name} matches`, no: other })
    if (other !== 'drop') program.label(other)
  }
  program.label(`${name} matches`)
}

/** Compares the words that `load` leaves in A. */
export function compareWords(program: Assembler, address: Words, load: (word: number) => void, arms: { yes?: string; no: string }): void {
  // The last word first: addresses of one host often share the rest.
  for (const w of [3, 2, 1, 0] as const) {
    load(w)
    program.jump('eq', address[w], w === 0 ? arms : { no: arms.no })
  }
}

export type Words = readonly [number, number, number, number]

export function unsignedWords(address: AddressWords): Words {
  const [a, b, c, d, ...more] = address
  if (a === undefined || b === undefined || c === undefined || d === undefined || more.length > 0) {
    throw new RangeError(`an address has four words, this one ${address.length}`)
  }
  return [a >>> 0, b >>> 0, c >>> 0, d >>> 0]
}

export function isIPv4(words: Words): boolean {
  return words[0] === 0 && words[1] === 0 && words[2] === 0xffff
}

/** Ascending ranges that hold exactly `values`; neighbours are merged. */
export function mergeRanges(values: readonly number[]): Range[] {
  const ranges: { min: number; max: number }[] = []
  for (const value of [...values].sort((a, b) => a - b)) {
    const last = ranges.at(-1)
    if (last && value <= last.max + 1) last.max = value
    else ranges.push({ min: value, max: value })
  }
  return ranges
}

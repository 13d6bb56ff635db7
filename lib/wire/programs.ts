// The classic BPF programs of faketcp: what a capture socket keeps, and what a carrier's kernel socket may see.
// Pure functions from a description to bytes; attaching them is native's part.

import { ACK, FIN, PSH, RST, SYN } from '../native/layout.ts'
import { Assembler, SKF_AD_OFF, SKF_AD_PKTTYPE, SKF_NET_OFF } from './bpf.ts'

/** Four words as in the flow key of layout.ts: 16 bytes, IPv4 mapped into IPv6. */
export type AddressWords = Int32Array | readonly [number, number, number, number]

export interface CaptureProgramOptions {
  /** `packet` for AF_PACKET SOCK_RAW sockets, `raw` for IP raw sockets of protocol TCP. */
  readonly link: 'packet' | 'raw'
  readonly family: 4 | 6
  /** Destination ports; at most {@link MAX_PORTS}, for more use a range (both ends included). An empty list keeps nothing. */
  readonly ports: readonly number[] | { readonly min: number; readonly max: number }
  /** Destination addresses; left out: any. Those of the other family never match, so a list of only those keeps nothing. */
  readonly addresses?: readonly AddressWords[] | undefined
  /** The only source to be heard; left out: any. */
  readonly remote?: { readonly address: AddressWords; readonly port: number } | undefined
}

/** More ports than this would leave little of net.core.optmem_max (20 KiB before Linux 6.7) for replacing the filter in place. */
export const MAX_PORTS = 512

/** Keep the whole packet. */
const WHOLE = 0xffffffff
const DROP = 0

const PACKET_OTHERHOST = 3
const IPPROTO_TCP = 6
const URG = 0x20
const IPV6_HEADER_BYTES = 40
/** Extension headers followed before giving up: hop-by-hop, two of destination options and routing is all that RFC 8200, 4.1 knows. */
const MAX_EXTENSION_HEADERS = 4
/** Hop-by-hop options, routing, destination options. All three start with next header and length in units of 8 bytes beyond the first 8. */
const WALKED_HEADERS = [0, 43, 60] as const
/** Ranges compared one after the other at the leaves of the binary search; fewer instructions than a search down to single ports. */
const LEAF_RANGES = 8

interface Range {
  readonly min: number
  readonly max: number
}

/**
 * Keeps whole TCP packets to one of the ports (and addresses). Everything that only a parser can judge (checksums, lengths, header
 * versions) is left to it; a first IPv4 fragment passes, later ones and every IPv6 fragment do not.
 *
 * `packet`: loads are relative to the network header, so that devices with and without a link header take the same program. Packets for
 * other hosts (promiscuous mode, bridges) and our own outgoing ones are dropped first.
 * `raw`: an IPv4 raw socket sees the IP header at offset 0 (raw_rcv). For IPv6 the kernel has taken off the IP header and all extension
 * headers (ip6_protocol_deliver_rcu): TCP is at offset 0, the addresses are behind SKF_NET_OFF.
 *
 * @throws RangeError for a port outside 0–65535, more than {@link MAX_PORTS} ports, or an address of other than four words.
 */
export function captureProgram(options: CaptureProgramOptions): Uint8Array {
  const { link, family } = options
  const ports = portRanges(options.ports)
  const addresses = options.addresses?.map(unsignedWords).filter((words) => isIPv4(words) === (family === 4))
  const remote = options.remote && { words: unsignedWords(options.remote.address), port: checkedPort(options.remote.port) }
  if (ports.length === 0 || addresses?.length === 0 || (remote && isIPv4(remote.words) !== (family === 4))) return muteProgram()

  const program = new Assembler()
  if (link === 'packet') {
    // PACKET_HOST, _BROADCAST and _MULTICAST are below OTHERHOST; OUTGOING and the kernel's own types above.
    program.load('byte', SKF_AD_OFF + SKF_AD_PKTTYPE).jump('ge', PACKET_OTHERHOST, { yes: 'drop' })
  }
  const ip = link === 'raw' && family === 4 ? 0 : SKF_NET_OFF
  const tcp = findTcp(program, link, family, ip)

  tcp.loadHalf(2)
  matchRanges(program, 'port', ports, 'port matches')
  program.label('port matches')
  if (remote) tcp.loadHalf(0).jump('eq', remote.port, { no: 'drop' })
  if (family === 4) {
    if (addresses) {
      program.load('word', ip + 16)
      matchRanges(program, 'address', mergeRanges(addresses.map((words) => words[3])), 'address matches')
      program.label('address matches')
    }
    if (remote) program.load('word', ip + 12).jump('eq', remote.words[3], { no: 'drop' })
  } else {
    if (addresses) matchIPv6(program, 'address', ip + 24, addresses)
    if (remote) matchIPv6(program, 'remote', ip + 8, [remote.words])
  }
  return program.ret(WHOLE).label('drop').ret(DROP).assemble()
}

/**
 * For the listening carrier: passes a SYN, with payload or not, and an ACK that carries neither payload nor another flag (ECN's CWR and ECE
 * do not count), which is what completes a handshake. Accepted sockets inherit it (sk_clone_lock). `skb->data` is at the TCP header
 * (tcp_v4_rcv and tcp_v6_rcv call tcp_filter after the IP header was pulled), and trailing padding has been trimmed, so BPF_LEN is TCP
 * header and payload.
 */
export function listenerProgram(): Uint8Array {
  return new Assembler()
    .load('byte', 12)
    .alu('and', 0xf0)
    .alu('rsh', 2)
    .copyToIndex()
    .load('byte', 13)
    .alu('and', FIN | SYN | RST | PSH | ACK | URG)
    .jump('eq', ACK, { no: 'handshake' })
    .loadLength()
    .jump('eq', 'x', { yes: 'keep', no: 'drop' })
    .label('handshake')
    .alu('and', FIN | SYN | RST | ACK)
    .jump('eq', SYN, { yes: 'keep', no: 'drop' })
    .label('keep')
    .ret(WHOLE)
    .label('drop')
    .ret(DROP)
    .assemble()
}

/**
 * For a dialling carrier, attached before connect: passes SYN+ACK, and RST+ACK so that a refused connection is seen. In SYN-SENT the kernel
 * ignores a RST without ACK anyway (tcp_rcv_synsent_state_process).
 */
export function diallerProgram(): Uint8Array {
  return new Assembler()
    .load('byte', 13)
    .alu('and', FIN | SYN | RST | ACK)
    .jump('eq', SYN | ACK, { yes: 'keep' })
    .jump('eq', RST | ACK, { yes: 'keep', no: 'drop' })
    .label('keep')
    .ret(WHOLE)
    .label('drop')
    .ret(DROP)
    .assemble()
}

/** Passes nothing: the kernel socket neither answers nor delivers from here on. */
export function muteProgram(): Uint8Array {
  return new Assembler().ret(DROP).assemble()
}

/** Loads from the TCP header, wherever `findTcp` found it. */
interface TcpHeader {
  loadHalf(offset: number): Assembler
}

/** Emits the way from the start of the packet to its TCP header; what is not TCP goes to `drop`. Leaves X to the header it found. */
function findTcp(program: Assembler, link: 'packet' | 'raw', family: 4 | 6, ip: number): TcpHeader {
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
function matchRanges(program: Assembler, name: string, ranges: readonly Range[], hit: string): void {
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

/** Continues if the IPv6 address at `offset` is one of `addresses`, else goes to `drop`. */
function matchIPv6(program: Assembler, name: string, offset: number, addresses: readonly Words[]): void {
  for (const [i, address] of addresses.entries()) {
    const other = i < addresses.length - 1 ? `${name} ${i}` : 'drop'
    // The last word first: addresses of one host often share the rest.
    for (const w of [3, 2, 1, 0] as const) {
      program.load('word', offset + w * 4)
      program.jump('eq', address[w], w === 0 ? { yes: `${name} matches`, no: other } : { no: other })
    }
    if (other !== 'drop') program.label(other)
  }
  program.label(`${name} matches`)
}

type Words = readonly [number, number, number, number]

function unsignedWords(address: AddressWords): Words {
  const [a, b, c, d, ...more] = address
  if (a === undefined || b === undefined || c === undefined || d === undefined || more.length > 0) {
    throw new RangeError(`an address has four words, this one ${address.length}`)
  }
  return [a >>> 0, b >>> 0, c >>> 0, d >>> 0]
}

function isIPv4(words: Words): boolean {
  return words[0] === 0 && words[1] === 0 && words[2] === 0xffff
}

function checkedPort(port: number): number {
  if (!Number.isInteger(port) || port < 0 || port > 0xffff) throw new RangeError(`port ${port}, expected an integer from 0 to 65535`)
  return port
}

function portRanges(ports: CaptureProgramOptions['ports']): Range[] {
  if ('min' in ports) {
    const range = { min: checkedPort(ports.min), max: checkedPort(ports.max) }
    if (range.min > range.max) throw new RangeError(`port range from ${range.min} down to ${range.max}`)
    return [range]
  }
  const distinct = new Set(ports.map(checkedPort))
  if (distinct.size > MAX_PORTS) throw new RangeError(`${distinct.size} ports, expected at most ${MAX_PORTS}; pass { min, max } for more`)
  return mergeRanges([...distinct])
}

/** Ascending ranges that hold exactly `values`; neighbours are merged. */
function mergeRanges(values: readonly number[]): Range[] {
  const ranges: { min: number; max: number }[] = []
  for (const value of [...values].sort((a, b) => a - b)) {
    const last = ranges.at(-1)
    if (last && value <= last.max + 1) last.max = value
    else ranges.push({ min: value, max: value })
  }
  return ranges
}

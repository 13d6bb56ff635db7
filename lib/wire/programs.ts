// The classic BPF programs of faketcp: what a capture socket keeps, and what a carrier's kernel socket may see.
// Pure functions from a description to bytes; attaching them is native's part.

import { ACK, FIN, PSH, RST, SYN } from '../native/layout.ts'
import { Assembler, SKF_AD_OFF, SKF_AD_PKTTYPE, SKF_NET_OFF } from './bpf.ts'
import {
  type AddressWords,
  findTcp,
  IPPROTO_TCP,
  isIPv4,
  matchIPv6,
  matchRanges,
  mergeRanges,
  type Range,
  unsignedWords,
} from './matching.ts'
import { loadShard, matchShard, PORT_SCRATCH, type ShardFilter } from './shards.ts'

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
  /** Of those, only what belongs to this shard; left out: all. */
  readonly shard?: ShardFilter | undefined
}

/** More ports than this would leave little of net.core.optmem_max (20 KiB before Linux 6.7) for replacing the filter in place. */
export const MAX_PORTS = 512

/** Keep the whole packet. */
const WHOLE = 0xffffffff
const DROP = 0
/** No group has as many listeners. */
const NO_SHARD = 0xffffffff

const PACKET_OTHERHOST = 3
const URG = 0x20

const ICMP_HEADER = 8
const IPV4_PROTOCOL = 9
const IPV6_NEXT_HEADER = 6

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
  if (options.shard) matchShard(program, tcp, family, ip, options.shard)
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

/**
 * For the listening carriers of a sharded port (SO_ATTACH_REUSEPORT_CBPF): the number of the shard that a SYN belongs to. The kernel takes it
 * for a place in the group of listeners, and decides by a hash of its own where there is no such place (reuseport_select_sock). `skb->data` is behind the
 * TCP header then (run_bpf_filter). One program serves both versions of IP, because a dual-stack listener gets both.
 */
export function steeringProgram(count: number): Uint8Array {
  const program = new Assembler()
  program.load('byte', SKF_NET_OFF).alu('rsh', 4).jump('eq', 6, { yes: 'IPv6' })
  for (const family of [4, 6] as const) {
    if (family === 6) program.label('IPv6')
    findTcp(program, 'packet', family, SKF_NET_OFF).loadHalf(0).store(PORT_SCRATCH)
    loadShard(program, family, SKF_NET_OFF, count).retAccumulator()
  }
  return program.label('drop').ret(NO_SHARD).assemble()
}

/**
 * For an ICMP raw socket: passes what says that a TCP packet was too long for its path (RFC 792 and 1191: type 3, code 4; RFC 4443: type 2). An IPv4
 * raw socket sees the IP header at offset 0, for IPv6 the ICMP message is there.
 */
export function pathReportProgram(family: 4 | 6): Uint8Array {
  const program = new Assembler()
  if (family === 4) {
    program.setIndexHeaderLength(0).loadIndexed('half', 0).jump('eq', 0x0304, { no: 'drop' })
    program.loadIndexed('byte', ICMP_HEADER + IPV4_PROTOCOL)
  } else
    program
      .load('half', 0)
      .jump('eq', 0x0200, { no: 'drop' })
      .load('byte', ICMP_HEADER + IPV6_NEXT_HEADER)
  return program.jump('eq', IPPROTO_TCP, { no: 'drop' }).ret(WHOLE).label('drop').ret(DROP).assemble()
}

/** Passes nothing: the kernel socket neither answers nor delivers from here on. */
export function muteProgram(): Uint8Array {
  return new Assembler().ret(DROP).assemble()
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

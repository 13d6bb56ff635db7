// One captured TCP/IP packet, with what a header can differ in. It knows tshark's names of fields, and nothing of who sent it.

export interface Packet {
  /** Sent by the end that dialled. */
  readonly dialled: boolean
  /** Seconds since the epoch. */
  readonly time: number
  readonly hops: number
  readonly trafficClass: number
  readonly headerBytes: number
  /** IPv4 only. */
  readonly dontFragment: boolean | undefined
  /** IPv4 only. */
  readonly id: number | undefined
  /** IPv6 only. */
  readonly flowLabel: number | undefined
  readonly flags: number
  readonly seq: number
  readonly ack: number
  readonly length: number
  readonly window: number
  readonly urgent: number
  /** Kinds of the options in their order, NOPs too. */
  readonly options: string
  readonly mss: number | undefined
  readonly scale: number | undefined
  readonly tsval: number | undefined
  readonly tsecr: number | undefined
  readonly checksumIsRight: boolean
  /** What Wireshark's analysis says of it. */
  readonly marks: readonly string[]
}

export const FLAGS = { FIN: 1, SYN: 2, RST: 4, PSH: 8, ACK: 16 } as const

/** Not the marks of a sender that fills its peer's window: whether one does, a kernel's too, is up to the scheduler. */
const MARKS = [
  'retransmission',
  'fast_retransmission',
  'spurious_retransmission',
  'out_of_order',
  'lost_segment',
  'ack_lost_segment',
  'duplicate_ack',
]

/** A TCP that misses something says so by SACK blocks (RFC 2018), kind 5. On a busy host, recordings of a kernel's TCP have had a wrong checksum in them, too. */
export const repairs = ({ options, marks, checksumIsRight }: Packet) =>
  options.split('|').includes('5') || marks.length > 0 || !checksumIsRight

export const COLUMNS = [
  ...[
    'frame.time_epoch',
    'ip.ttl',
    'ipv6.hlim',
    'ip.dsfield',
    'ipv6.tclass',
    'ip.hdr_len',
    'ip.flags.df',
    'ip.id',
    'ipv6.flow',
    'ipv6.nxt',
  ],
  ...['tcp.dstport', 'tcp.flags', 'tcp.seq_raw', 'tcp.ack_raw', 'tcp.len', 'tcp.window_size_value', 'tcp.urgent_pointer'],
  ...['tcp.option_kind', 'tcp.options.mss_val', 'tcp.options.wscale.shift', 'tcp.options.timestamp.tsval', 'tcp.options.timestamp.tsecr'],
  ...['tcp.checksum.status', ...MARKS.map((mark) => `tcp.analysis.${mark}`)],
]

const GOOD_CHECKSUM = '1'

export function readPacket(row: ReadonlyMap<string, string>, port: number): Packet {
  const text = (name: string) => row.get(name) ?? ''
  const number = (name: string) => Number(text(name))
  const optional = (name: string) => (text(name) === '' ? undefined : number(name))
  const v4 = text('ip.ttl') !== ''
  return {
    dialled: number('tcp.dstport') === port,
    time: number('frame.time_epoch'),
    hops: number(v4 ? 'ip.ttl' : 'ipv6.hlim'),
    trafficClass: number(v4 ? 'ip.dsfield' : 'ipv6.tclass'),
    headerBytes: v4 ? number('ip.hdr_len') : 40,
    dontFragment: v4 ? /^(1|True)$/.test(text('ip.flags.df')) : undefined,
    id: optional('ip.id'),
    flowLabel: optional('ipv6.flow'),
    flags: number('tcp.flags'),
    seq: number('tcp.seq_raw'),
    ack: number('tcp.ack_raw'),
    length: number('tcp.len'),
    window: number('tcp.window_size_value'),
    urgent: number('tcp.urgent_pointer'),
    options: text('tcp.option_kind'),
    mss: optional('tcp.options.mss_val'),
    scale: optional('tcp.options.wscale.shift'),
    tsval: optional('tcp.options.timestamp.tsval'),
    tsecr: optional('tcp.options.timestamp.tsecr'),
    checksumIsRight: text('tcp.checksum.status') === GOOD_CHECKSUM,
    marks: MARKS.filter((mark) => text(`tcp.analysis.${mark}`) !== ''),
  }
}

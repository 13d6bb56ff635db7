// Packets as the RFCs have them, built and taken apart by code that shares nothing with native/: what the addon is measured against.

export interface PacketOptions {
  readonly source: string
  readonly destination: string
  readonly sourcePort?: number
  readonly destinationPort?: number
  readonly seq?: number
  readonly ack?: number
  readonly flags?: number
  readonly window?: number
  readonly options?: readonly number[]
  readonly payload?: string | Buffer
  readonly ttl?: number
  readonly tos?: number
  /** IPv4 identification. */
  readonly id?: number
  /** IPv4 flags and fragment offset. */
  readonly fragment?: number
  /** IPv4 options, a multiple of four bytes. */
  readonly ipOptions?: readonly number[]
  /** IPv6 extension headers: type and bytes of each. */
  readonly extensions?: readonly (readonly [number, readonly number[]])[]
  /** `partial`: the pseudo-header sum alone, as offloading leaves it. */
  readonly checksum?: 'right' | 'wrong' | 'partial'
  readonly protocol?: number
}

const TCP = 6

/** RFC 1071, word by word. */
export function internetSum(bytes: Uint8Array): number {
  let sum = 0
  for (let i = 0; i < bytes.length; i++) {
    sum += i % 2 === 0 ? bytes[i] * 256 : bytes[i]
    if (sum > 0xffff) sum -= 0xffff
  }
  return sum
}

export function addressBytes(address: string): Buffer {
  if (!address.includes(':')) return Buffer.from(address.split('.').map(Number))
  const mapped = /^(.*:)(\d+\.\d+\.\d+\.\d+)$/.exec(address)
  const text = mapped ? `${mapped[1]}${addressBytes(mapped[2]).toString('hex').replace(/^..../, '$&:')}` : address
  const [head, tail = ''] = text.split('::')
  const groups = (part: string) => part.split(':').filter(Boolean)
  const missing = text.includes('::') ? 8 - groups(head).length - groups(tail).length : 0
  const all = [...groups(head), ...Array<string>(missing).fill('0'), ...groups(tail)]
  return Buffer.from(all.map((group) => group.padStart(4, '0')).join(''), 'hex')
}

/** The four key words of an address, as layout.ts has them. */
export function addressWords(address: string): number[] {
  const bytes = addressBytes(address)
  const wide = bytes.length === 4 ? Buffer.concat([Buffer.from('00000000000000000000ffff', 'hex'), bytes]) : bytes
  return [0, 4, 8, 12].map((at) => wide.readInt32BE(at))
}

function pseudoHeader(source: Buffer, destination: Buffer, length: number): Buffer {
  const tail = Buffer.alloc(8)
  tail.writeUInt32BE(length)
  tail[7] = TCP
  return Buffer.concat([source, destination, tail])
}

export function tcpSegment(options: PacketOptions): Buffer {
  const tcpOptions = Buffer.from(options.options ?? [])
  const header = Buffer.alloc(20 + Math.ceil(tcpOptions.length / 4) * 4)
  header.writeUInt16BE(options.sourcePort ?? 40000)
  header.writeUInt16BE(options.destinationPort ?? 9191, 2)
  header.writeUInt32BE(options.seq ?? 1, 4)
  header.writeUInt32BE(options.ack ?? 1, 8)
  header[12] = (header.length / 4) << 4
  header[13] = options.flags ?? 0x18
  header.writeUInt16BE(options.window ?? 1000, 14)
  tcpOptions.copy(header, 20)
  const segment = Buffer.concat([header, Buffer.from(options.payload ?? '')])
  const pseudo = pseudoHeader(addressBytes(options.source), addressBytes(options.destination), segment.length)
  const sums = {
    right: ~internetSum(Buffer.concat([pseudo, segment])) & 0xffff,
    wrong: (~internetSum(Buffer.concat([pseudo, segment])) & 0xffff) ^ 0x0100,
    partial: internetSum(pseudo),
  }
  segment.writeUInt16BE(sums[options.checksum ?? 'right'], 16)
  return segment
}

/** An IP packet of the family that its addresses have. */
export function packet(options: PacketOptions): Buffer {
  const segment = tcpSegment(options)
  return options.source.includes(':') ? ipv6(options, segment) : ipv4(options, segment)
}

function ipv4(options: PacketOptions, segment: Buffer): Buffer {
  const header = Buffer.alloc(20 + (options.ipOptions?.length ?? 0))
  header[0] = 0x40 | (header.length / 4)
  header[1] = options.tos ?? 0
  header.writeUInt16BE((header.length + segment.length) & 0xffff, 2)
  header.writeUInt16BE(options.id ?? 0, 4)
  header.writeUInt16BE(options.fragment ?? 0x4000, 6)
  header[8] = options.ttl ?? 64
  header[9] = options.protocol ?? TCP
  addressBytes(options.source).copy(header, 12)
  addressBytes(options.destination).copy(header, 16)
  Buffer.from(options.ipOptions ?? []).copy(header, 20)
  return Buffer.concat([withHeaderChecksum(header), segment])
}

export function withHeaderChecksum(header: Buffer): Buffer {
  const out = Buffer.from(header)
  out.writeUInt16BE(0, 10)
  out.writeUInt16BE(~internetSum(out) & 0xffff, 10)
  return out
}

function ipv6(options: PacketOptions, segment: Buffer): Buffer {
  const extensions = options.extensions ?? []
  const types = [...extensions.map(([type]) => type), options.protocol ?? TCP]
  const chain = extensions.map(([, bytes], i) => Buffer.from([types[i + 1], ...bytes.slice(1)]))
  const header = Buffer.alloc(40)
  header.writeUInt32BE((6 << 28) | ((options.tos ?? 0) << 20))
  const body = Buffer.concat([...chain, segment])
  header.writeUInt16BE(body.length & 0xffff, 4)
  header[6] = types[0]
  header[7] = options.ttl ?? 64
  addressBytes(options.source).copy(header, 8)
  addressBytes(options.destination).copy(header, 24)
  return Buffer.concat([header, body])
}

export function ethernetFrame(payload: Buffer, addresses: { source: string; destination: string; vlan?: number }): Buffer {
  const mac = (text: string) => Buffer.from(text.replaceAll(':', ''), 'hex')
  const type = payload[0] >> 4 === 6 ? [0x86, 0xdd] : [0x08, 0x00]
  const tag = addresses.vlan === undefined ? [] : [0x81, 0x00, addresses.vlan >> 8, addresses.vlan & 0xff]
  return Buffer.concat([mac(addresses.destination), mac(addresses.source), Buffer.from([...tag, ...type]), payload])
}

/** Whether the IPv4 header checksum (if there is one) and the TCP checksum of a packet without extension headers are right. */
export function checksumsHold(bytes: Uint8Array): boolean {
  const v6 = bytes[0] >> 4 === 6
  const header = v6 ? 40 : (bytes[0] & 15) * 4
  if (!v6 && internetSum(bytes.subarray(0, header)) !== 0xffff) return false
  const segment = bytes.subarray(header)
  const [source, destination] = v6 ? [bytes.subarray(8, 24), bytes.subarray(24, 40)] : [bytes.subarray(12, 16), bytes.subarray(16, 20)]
  const pseudo = pseudoHeader(Buffer.from(source), Buffer.from(destination), segment.length)
  return internetSum(Buffer.concat([pseudo, segment])) === 0xffff
}

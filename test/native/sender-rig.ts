// Senders as the tests use them, and the descriptors, buffers and hops that they are given. It knows nothing of who receives.
import type { NativeSender } from '../../lib/native/binding.ts'
import * as layout from '../../lib/native/layout.ts'
import { addressWords } from './packets.ts'
import { binding, type Family } from './rig.ts'

export interface SenderRig extends Disposable {
  readonly native: NativeSender
}

export function sender(family: Family, onWritable: () => void = () => {}, sendBufferBytes = 1 << 22): SenderRig {
  const native = new binding.RawSender({ family, sendBufferBytes, onWritable })
  return { native, [Symbol.dispose]: () => native.close() }
}

/** A row in the table of hops. */
export interface Hop {
  readonly ifindex: number
  /** Link header as it stands on the wire. */
  readonly header: Uint8Array
}

/** How packets leave by loopback, the only way out that every machine has: row 0 for IPv4, row 1 for IPv6. */
export const LOOPBACK_HOPS: readonly Hop[] = [0x0800, 0x86dd].map((type) => ({
  ifindex: 1,
  header: Uint8Array.from([...Array<number>(12).fill(0), type >> 8, type & 0xff]),
}))

export function describeHops(hops: readonly Hop[]): Int32Array {
  const table = new Int32Array(hops.length * layout.HOP_WORDS)
  for (const [i, { ifindex, header }] of hops.entries()) {
    const row = table.subarray(i * layout.HOP_WORDS)
    row[layout.HOP_IFINDEX] = ifindex
    row[layout.HOP_BYTES] = header.length
    new Uint8Array(row.buffer, row.byteOffset + layout.HOP_HEADER * 4).set(header)
  }
  return table
}

/** Sends by AF_PACKET over `hops`. */
export function packetSender(hops = describeHops(LOOPBACK_HOPS)): SenderRig {
  const own = new binding.PacketSender({ sendBufferBytes: 1 << 22, onWritable() {} })
  const native: NativeSender = {
    send: (descriptors, from, count, buffers) => own.send(descriptors, from, count, buffers, hops),
    get errno() {
      return own.errno
    },
    close: () => own.close(),
  }
  return { native, [Symbol.dispose]: () => own.close() }
}

export interface TrainToSend {
  readonly from: string
  readonly fromPort: number
  readonly to: string
  readonly toPort: number
  readonly seq?: number
  readonly ack?: number
  readonly flags?: number
  readonly window?: number
  readonly timestamps?: readonly [number, number]
  /** One SACK block. */
  readonly sack?: readonly [number, number]
  readonly ttl?: number
  readonly tos?: number
  /** IPv4 identification of the first segment. */
  readonly id?: number
  readonly skip?: number
  readonly segment?: number
  readonly buffers?: readonly (string | Uint8Array)[]
  /** Index of the first buffer, when it is not where it belongs. */
  readonly offset?: number
  readonly length?: number
  /** Row in the table of hops; that of the family in LOOPBACK_HOPS unless told. */
  readonly hop?: number
}

/** Descriptors and buffers for one `send`. */
export function describeTrains(trains: readonly TrainToSend[]): { descriptors: Int32Array; buffers: Uint8Array[] } {
  const descriptors = new Int32Array(trains.length * layout.D_WORDS)
  const buffers: Uint8Array[] = []
  for (const [i, train] of trains.entries()) {
    const d = descriptors.subarray(i * layout.D_WORDS)
    const own = (train.buffers ?? []).map((buffer) => (typeof buffer === 'string' ? Buffer.from(buffer) : buffer))
    d.set(addressWords(train.to), layout.KEY_REMOTE)
    d.set(addressWords(train.from), layout.KEY_LOCAL)
    d[layout.KEY_PORTS] = (train.toPort << 16) | train.fromPort
    d[layout.D_SEQ] = train.seq ?? 1000
    d[layout.D_ACK] = train.ack ?? 2000
    d[layout.D_FLAGS] = (train.flags ?? layout.ACK | layout.PSH) | (train.timestamps ? layout.HAS_TIMESTAMPS : 0)
    if (train.sack !== undefined) {
      d[layout.D_FLAGS] |= layout.HAS_SACK
      d[layout.D_SACK_FROM] = train.sack[0]
      d[layout.D_SACK_TO] = train.sack[1]
    }
    d[layout.D_WINDOW] = train.window ?? 500
    d[layout.D_TSVAL] = train.timestamps?.[0] ?? 0
    d[layout.D_TSECR] = train.timestamps?.[1] ?? 0
    d[layout.D_OFFSET] = train.offset ?? buffers.length
    d[layout.D_LENGTH] = train.length ?? own.length
    d[layout.D_SEGMENT] = train.segment ?? own[0]?.length ?? 0
    d[layout.D_SKIP] = train.skip ?? 0
    d[layout.D_TTL] = ((train.tos ?? 0) << 8) | (train.ttl ?? 0)
    d[layout.D_IP_ID] = train.id ?? 0
    d[layout.D_HOP] = train.hop ?? (train.from.includes(':') ? 1 : 0)
    buffers.push(...own)
  }
  return { descriptors, buffers }
}

export function sendTrains(native: NativeSender, trains: readonly TrainToSend[]): number {
  const { descriptors, buffers } = describeTrains(trains)
  return native.send(descriptors, 0, trains.length, buffers)
}

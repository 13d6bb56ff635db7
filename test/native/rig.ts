// Native objects as the tests use them: a capture that collects what it received, a sender, a pair of connected carriers. On loopback, where
// every packet of a test stays in its own process's ports.
import type { Binding, NativeCapture, NativeCarrier, NativeCarrierListener, NativeSender } from '../../lib/native/binding.ts'
import * as layout from '../../lib/native/layout.ts'
import { loadBinding } from '../../lib/native/loader.ts'
import { captureProgram, diallerProgram, listenerProgram, muteProgram } from '../../lib/wire/programs.ts'
import { addressWords } from './packets.ts'

export const binding: Binding = loadBinding()
export const MUTE = muteProgram()
export const SLOT_BYTES = 66_000
export const USER_TIMEOUT_MS = 3000

export type Family = 4 | 6
export const loopback = (family: Family) => (family === 4 ? '127.0.0.1' : '::1')

/** One received train, copied out of the slab. */
export interface Train {
  readonly key: number[]
  readonly remotePort: number
  readonly localPort: number
  readonly seq: number
  readonly ack: number
  readonly flags: number
  readonly window: number
  readonly tsval: number
  readonly tsecr: number
  readonly segment: number
  readonly mss: number
  readonly ifindex: number
  readonly ttl: number
  readonly macHigh: number
  readonly payload: Buffer
  /** The whole IP packet; an IPv6 raw capture has only the TCP segment. */
  readonly packet: Buffer
}

/** A message as the peer sent it, whatever it was put together with on its way. */
export interface Message {
  readonly seq: number
  readonly flags: number
  readonly payload: Buffer
}

/** What trains consist of: PSH and FIN of a train are its last segment's. */
export function messagesOf(trains: readonly Train[]): Message[] {
  return trains.flatMap(({ seq, flags, payload, segment }) => {
    const messages = [{ seq, flags, payload: payload.subarray(0, segment) }]
    for (let at = segment; at < payload.length; at += segment) {
      messages[messages.length - 1].flags &= ~(layout.PSH | layout.FIN)
      messages.push({ seq: (seq + at) >>> 0, flags, payload: payload.subarray(at, at + segment) })
    }
    return messages
  })
}

export interface CaptureRigOptions {
  readonly mode: 'packet' | 'raw'
  readonly family: Family
  readonly ports?: readonly number[]
  readonly program?: Uint8Array
  /** With 1, segments are seen as they came: only what one system call brings is put together. */
  readonly slots?: number
  readonly slotBytes?: number
  readonly receiveBufferBytes?: number
  readonly onBatch?: (count: number, rig: CaptureRig) => void
}

export class CaptureRig implements Disposable {
  readonly trains: Train[] = []
  readonly batches: number[] = []
  readonly counters = new Float64Array(layout.CAPTURE_COUNTERS)
  readonly slab: Uint8Array
  readonly descriptors: Int32Array
  readonly native: NativeCapture
  readonly #waiting = new Set<() => void>()
  /** Bytes of a slot before the IP header: the virtio and Ethernet headers. */
  readonly #front: number
  readonly #headers: number
  readonly #slotBytes: number

  constructor(options: CaptureRigOptions) {
    const { mode, family, ports = [], program, slots = 8, slotBytes = SLOT_BYTES, receiveBufferBytes = 1 << 22, onBatch } = options
    this.#slotBytes = slotBytes
    this.#front = mode === 'packet' ? 10 + 14 : 0
    this.#headers = mode === 'raw' && family === 6 ? 20 : family === 6 ? 60 : 40
    this.slab = new Uint8Array(slots * slotBytes)
    this.descriptors = new Int32Array(slots * layout.D_WORDS)
    this.native = new binding.Capture({
      mode,
      family,
      program: program ?? captureProgram({ link: mode, family, ports }),
      receiveBufferBytes,
      slab: this.slab,
      slots,
      slotBytes,
      descriptors: this.descriptors,
      counters: this.counters,
      onBatch: (count) => {
        this.batches.push(count)
        for (let i = 0; i < count; i++) this.trains.push(this.#read(this.descriptors.subarray(i * layout.D_WORDS)))
        onBatch?.(count, this)
        for (const check of [...this.#waiting]) check()
      },
    })
  }

  /** Resolves with all trains so far once there are `count`. */
  async received(count: number): Promise<Train[]> {
    await new Promise<void>((resolve) => {
      const check = () => {
        if (this.trains.length < count) return
        this.#waiting.delete(check)
        resolve()
      }
      this.#waiting.add(check)
      check()
    })
    return this.trains
  }

  /** Resolves with the messages of all trains so far once there are `count`. */
  async messages(count: number): Promise<Message[]> {
    while (messagesOf(this.trains).length < count) await this.received(this.trains.length + 1)
    return messagesOf(this.trains)
  }

  /** The trains once there are `count`, read without a turn of the event loop, so that nothing is read earlier than this asks for it. */
  drained(count: number): Train[] {
    // The softirq that delivers on loopback may be late by a moment.
    for (let i = 0; this.trains.length < count && i < 1e6; i++) this.native.drain()
    return this.trains
  }

  [Symbol.dispose](): void {
    this.native.close()
  }

  #read(d: Int32Array): Train {
    const start = d[layout.D_OFFSET]
    const payload = Buffer.from(this.slab.subarray(start, start + d[layout.D_LENGTH]))
    const slot = Math.floor(start / this.#slotBytes) * this.#slotBytes
    const ports = d[layout.KEY_PORTS] >>> 0
    return {
      key: [...d.subarray(0, layout.KEY_WORDS)],
      remotePort: ports >>> 16,
      localPort: ports & 0xffff,
      seq: d[layout.D_SEQ] >>> 0,
      ack: d[layout.D_ACK] >>> 0,
      flags: d[layout.D_FLAGS],
      window: d[layout.D_WINDOW],
      tsval: d[layout.D_TSVAL] >>> 0,
      tsecr: d[layout.D_TSECR] >>> 0,
      segment: d[layout.D_SEGMENT],
      mss: d[layout.D_MSS],
      ifindex: d[layout.D_IFINDEX],
      ttl: d[layout.D_TTL],
      macHigh: d[layout.D_MAC_HIGH],
      payload,
      packet: Buffer.from(this.slab.subarray(slot + this.#front, start + payload.length)),
    }
  }

  /** Bytes of IP and TCP header when there are no options. */
  get bareHeaders(): number {
    return this.#headers
  }
}

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
  readonly ttl?: number
  readonly tos?: number
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
    d[layout.D_WINDOW] = train.window ?? 500
    d[layout.D_TSVAL] = train.timestamps?.[0] ?? 0
    d[layout.D_TSECR] = train.timestamps?.[1] ?? 0
    d[layout.D_OFFSET] = train.offset ?? buffers.length
    d[layout.D_LENGTH] = train.length ?? own.length
    d[layout.D_SEGMENT] = train.segment ?? own[0]?.length ?? 0
    d[layout.D_SKIP] = train.skip ?? 0
    d[layout.D_TTL] = ((train.tos ?? 0) << 8) | (train.ttl ?? 0)
    d[layout.D_HOP] = train.hop ?? (train.from.includes(':') ? 1 : 0)
    buffers.push(...own)
  }
  return { descriptors, buffers }
}

export function sendTrains(native: NativeSender, trains: readonly TrainToSend[]): number {
  const { descriptors, buffers } = describeTrains(trains)
  return native.send(descriptors, 0, trains.length, buffers)
}

export function connect(carrier: NativeCarrier, address: string, port: number): Promise<number> {
  return new Promise((resolve) => carrier.connect(address, port, resolve))
}

export function dialler(family: Family, { localPort = 0, localAddress = loopback(family) } = {}): NativeCarrier {
  return new binding.Carrier({ family, localAddress, localPort, filter: diallerProgram(), mute: MUTE, userTimeoutMs: USER_TIMEOUT_MS })
}

export interface ListenerRigOptions {
  readonly address?: string
  readonly port?: number
  readonly ipv6Only?: boolean
  readonly steering?: Uint8Array
}

/** A listener whose accepted carriers are awaited one by one. */
export class ListenerRig implements Disposable {
  readonly native: NativeCarrierListener
  readonly errors: number[] = []
  readonly #accepted: NativeCarrier[] = []
  readonly #waiting: ((carrier: NativeCarrier) => void)[] = []

  constructor(family: Family, { address = loopback(family), port = 0, ipv6Only = false, steering }: ListenerRigOptions = {}) {
    this.native = new binding.CarrierListener({
      family,
      address,
      port,
      backlog: 64,
      ipv6Only,
      steering,
      filter: listenerProgram(),
      mute: MUTE,
      userTimeoutMs: USER_TIMEOUT_MS,
      onAccept: (carriers, errno) => {
        if (errno !== 0) this.errors.push(errno)
        this.#accepted.push(...carriers)
        while (this.#accepted.length > 0 && this.#waiting.length > 0) this.#waiting.shift()?.(this.#accepted.shift() as NativeCarrier)
      },
    })
  }

  accepted(): Promise<NativeCarrier> {
    const waiting = this.#accepted.shift()
    return waiting ? Promise.resolve(waiting) : new Promise((resolve) => this.#waiting.push(resolve))
  }

  [Symbol.dispose](): void {
    this.native.close()
    for (const carrier of this.#accepted) carrier.end('silent')
  }
}

/** Two carriers, connected over loopback and muted. */
export async function carrierPair(family: Family): Promise<{ client: NativeCarrier; server: NativeCarrier } & Disposable> {
  using listener = new ListenerRig(family)
  const client = dialler(family)
  const errno = await connect(client, loopback(family), listener.native.localPort)
  if (errno !== 0) throw new Error(`connect settled with ${errno}`)
  const server = await listener.accepted()
  const end = () => [client, server].forEach((carrier) => void carrier.end('silent'))
  return { client, server, [Symbol.dispose]: end }
}

/** A port that nobody has on loopback, from outside the ephemeral range; two of them never collide within a process. */
let lastPort = 20_000 + (process.pid % 8000)
export const unusedPort = () => ++lastPort

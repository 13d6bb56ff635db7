// Native objects as the tests use them: a capture that collects what it received, a pair of connected carriers. On loopback, where every packet
// of a test stays in its own process's ports. Senders are in sender-rig.ts.
import type { Binding, NativeCapture, NativeCarrier, NativeCarrierListener } from '../../lib/native/binding.ts'
import * as layout from '../../lib/native/layout.ts'
import { loadBinding } from '../../lib/native/loader.ts'
import { captureProgram, diallerProgram, listenerProgram, muteProgram } from '../../lib/wire/programs.ts'

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
export function messagesOf(trains: readonly Pick<Train, 'seq' | 'flags' | 'payload' | 'segment'>[]): Message[] {
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

export function connect(carrier: NativeCarrier, address: string, port: number): Promise<number> {
  return new Promise((resolve) => carrier.connect(address, port, resolve))
}

export function dialler(family: Family, { localPort = 0, localAddress = loopback(family) } = {}): NativeCarrier {
  return new binding.Carrier({
    family,
    localAddress,
    localPort,
    filter: diallerProgram(),
    mute: MUTE,
    userTimeoutMs: USER_TIMEOUT_MS,
    tos: 0,
  })
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
      tos: 0,
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

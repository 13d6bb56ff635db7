// A kernel UDP socket for the rest of the library: its native half, the memory that all of a thread read into, its trains on their way out.
// It knows no peers, no connections and no tunnel: whoever opens it says what becomes of what arrives.
import { Outbox } from '../link/outbox.ts'
import type { Binding, NativeUdpSocket, UdpSocketOptions } from '../native/binding.ts'
import { CAPTURE_COUNTERS, COUNT_CALLS, COUNT_PACKETS, D_WORDS, REJECT_TRUNCATED } from '../native/layout.ts'

/** Where it is bound, and how much the kernel is to keep for it. */
export interface UdpSocketTarget
  extends Pick<UdpSocketOptions, 'family' | 'address' | 'port' | 'ipv6Only' | 'sharing' | 'tos' | 'dontFragment' | 'receiveBufferBytes'> {
  /** Trains that its outbox holds. Default 256; a socket of one peer needs fewer. */
  readonly outboxTrains?: number
}

/** Whoever opened the socket. Nothing of it is called within one of the socket's own methods but `drain`. */
export interface UdpSink {
  /** `count` trains have arrived: the descriptor of train i is at `socket.descriptors[i * D_WORDS]`, its bytes in `socket.slab`. Both are overwritten after the call. */
  onTrains(socket: UdpSocket, count: number): void
  /** The kernel takes trains again: the outbox is not blocked any more, and empty. */
  onRoom(socket: UdpSocket): void
  /**
   * A connected socket's datagrams did not arrive, or the path takes shorter ones only (EMSGSIZE; see `pathMtu`). Negative errno: ECONNREFUSED, EHOSTUNREACH, ... It can be
   * used as before.
   */
  onError(socket: UdpSocket, errno: number): void
}

/** Datagrams for one recvmmsg. */
const SLOTS = 64
/** The longest packet; not a power of two, so that the slots' beginnings do not compete for the same lines of the cache. */
const SLOT_BYTES = 66048
/** What the kernel is asked for; a burst of one tick fits. */
const SEND_BUFFER_BYTES = 4 << 20

/** What all sockets of this thread read into: it is used up before the next one reads. */
let memory: { readonly slab: Uint8Array; readonly descriptors: Int32Array } | undefined

export class UdpSocket {
  readonly slab: Uint8Array
  readonly descriptors: Int32Array
  /** Trains to be sent; whoever has filled it calls `transmit` and `settle`. Only D_KEY and D_IFINDEX of a descriptor are to be filled, and nothing once connected. */
  readonly outbox: Outbox
  readonly localPort: number
  /** What the kernel granted: twice what was asked for, or less (net.core.rmem_max). */
  readonly receiveBufferBytes: number
  /** Who is told; may be somebody else from some time on. */
  sink: UdpSink
  /** As last read by `sample`. */
  kernelDrops = 0
  readonly #counters = new Float64Array(CAPTURE_COUNTERS)
  readonly #native: NativeUdpSocket
  #closed = false

  /** @throws as the system calls do: `EADDRINUSE`, `EADDRNOTAVAIL`, `EACCES`, ... */
  constructor(binding: Binding, target: UdpSocketTarget, sink: UdpSink) {
    const { outboxTrains, ...options } = target
    this.sink = sink
    memory ??= { slab: new Uint8Array(SLOTS * SLOT_BYTES), descriptors: new Int32Array(SLOTS * D_WORDS) }
    this.slab = memory.slab
    this.descriptors = memory.descriptors
    let native: NativeUdpSocket | undefined
    const open = (onWritable: () => void): NativeUdpSocket => {
      native = new binding.UdpSocket({
        ...options,
        ...(memory as NonNullable<typeof memory>),
        sendBufferBytes: SEND_BUFFER_BYTES,
        slots: SLOTS,
        slotBytes: SLOT_BYTES,
        counters: this.#counters,
        onBatch: (count) => this.sink.onTrains(this, count),
        onWritable,
        // It may come while the outbox is sending.
        onError: (errno) => process.nextTick(() => this.#closed || this.sink.onError(this, errno)),
      })
      return native
    }
    this.outbox = new Outbox(open, () => this.sink.onRoom(this), undefined, outboxTrains)
    this.#native = native as unknown as NativeUdpSocket
    this.localPort = this.#native.localPort
    this.receiveBufferBytes = this.#native.receiveBufferBytes
  }

  /** From here on it hears this peer only. What had arrived before, of whomever, still comes, with its true source. */
  connect(address: string, port: number): void {
    this.#native.connect(address, port)
  }

  /** Fills the nine key words; the remote end is 0 unless connected. */
  key(out: Int32Array): void {
    this.#native.key(out)
  }

  /** Of a connected socket: bytes of the longest IP packet that the path is known to take. One system call. */
  pathMtu(): number {
    return this.#native.pathMtu()
  }

  /** Handles at once what has arrived. Not within `onTrains` of any socket: they share their memory. */
  drain(): void {
    this.#native.drain()
  }

  /** Asks the kernel for its drop counter: one system call. */
  sample(): void {
    this.kernelDrops = this.#native.kernelDrops()
  }

  /** Datagrams that came, what the kernel had merged counted once. */
  get packets(): number {
    return this.#counters[COUNT_PACKETS]
  }
  /** System calls that read. */
  get reads(): number {
    return this.#counters[COUNT_CALLS]
  }
  /** Datagrams longer than a slot: there are none, unless the kernel merges more than fits an IP packet. */
  get truncated(): number {
    return this.#counters[REJECT_TRUNCATED]
  }

  ref(): void {
    this.#native.ref()
  }

  unref(): void {
    this.#native.unref()
  }

  /** Idempotent. The sink is not called afterwards; what waits in the outbox is not sent. */
  close(): void {
    this.#closed = true
    this.outbox.close()
  }
}

// What a stateful router thinks of a TCP connection: the window tracking of Linux (nf_conntrack_proto_tcp.c, tcp_in_window) told again in our own
// words, as a judge for simulations. Real routers judge in test/e2e/nat*. It knows nothing of the library.

export interface TrackedSegment {
  readonly seq: number
  readonly ack: number
  readonly length: number
  /** As it stands in the header. */
  readonly window: number
  readonly syn?: boolean
  readonly fin?: boolean
  readonly rst?: boolean
}

/**
 * `overshot`: beyond what the receiver allows. `overAck`: acknowledges what was never sent. `under`, `underAck`: so old that kernels before 6.1 call it
 * invalid, newer ones look away. `rst`: a reset below what was acknowledged. `expired`: the entry's timeout was over.
 */
export type Fault = 'overshot' | 'overAck' | 'under' | 'underAck' | 'rst' | 'expired'

interface Side {
  /** One past the highest sequence number that it has sent. */
  end: number
  /** One past the highest that the other side allows it. */
  maxEnd: number
  /** Largest window that it has offered. */
  maxWindow: number
  scale: number
  maxAck: number | undefined
}

/** MAXACKWINCONST */
const MAX_ACK_WINDOW = 66000

const after = (a: number, b: number) => ((a - b) | 0) > 0

/** One connection, from its SYN on. */
export class TcpTracker {
  readonly #sides: [Side, Side]
  readonly faults = new Map<Fault, number>()
  readonly #timeoutMs: number
  #lastMs: number

  /** @param timeoutMs of an established connection without traffic */
  constructor(syn: TrackedSegment, synAck: TrackedSegment, scales: readonly [number, number], timeoutMs: number, nowMs: number) {
    const client = { end: syn.seq + 1, maxEnd: synAck.ack + synAck.window, maxWindow: syn.window, scale: scales[0], maxAck: undefined }
    const server = {
      end: synAck.seq + 1,
      maxEnd: synAck.seq + 1 + syn.window,
      maxWindow: synAck.window,
      scale: scales[1],
      maxAck: undefined,
    }
    this.#sides = [client, server]
    this.#timeoutMs = timeoutMs
    this.#lastMs = nowMs
  }

  /** @param from 0: the side that made the connection. @returns what is wrong with it; undefined: it passes */
  see(from: 0 | 1, { seq, ack, length, window, fin = false, rst = false }: TrackedSegment, nowMs: number): Fault | undefined {
    if (nowMs - this.#lastMs > this.#timeoutMs) return this.#fault('expired')
    this.#lastMs = nowMs
    const [sender, receiver] = [this.#sides[from], this.#sides[1 - from]]
    const end = (seq + length + (fin ? 1 : 0)) | 0
    if (rst && receiver.maxAck !== undefined && after(receiver.maxAck, seq)) return this.#fault('rst')
    if (after(seq, sender.maxEnd)) return this.#fault('overshot')
    if (after(ack, receiver.end)) return this.#fault('overAck')
    if (!after(end, sender.end - receiver.maxWindow - 1)) return this.#fault('under')
    if (!after(ack, receiver.end - Math.max(sender.maxWindow, MAX_ACK_WINDOW) - 1)) return this.#fault('underAck')
    const offered = window << sender.scale
    sender.maxWindow = Math.max(sender.maxWindow, offered)
    if (after(end, sender.end)) sender.end = end
    if (sender.maxAck === undefined || after(ack, sender.maxAck)) sender.maxAck = ack
    if (after(end, sender.maxEnd)) receiver.maxWindow += end - sender.maxEnd
    if (after(ack + offered, receiver.maxEnd - 1)) receiver.maxEnd = (ack + offered + (offered === 0 ? 1 : 0)) | 0
    return undefined
  }

  #fault(fault: Fault): Fault {
    this.faults.set(fault, (this.faults.get(fault) ?? 0) + 1)
    return fault
  }
}

// Captured packets whose handshake has not completed: a small bounded side table, so that data which overtakes accept() is not lost and
// a flood of strangers costs next to nothing. It knows no flow, no socket.
import {
  ACK,
  D_ACK,
  D_FLAGS,
  D_IFINDEX,
  D_KEY,
  D_LENGTH,
  D_MSS,
  D_OFFSET,
  D_SEQ,
  D_TSVAL,
  D_WORDS,
  FIN,
  KEY_WORDS,
  SYN,
} from '../native/layout.ts'

/** A captured train with a payload of its own, so that it can be replayed once its flow exists. */
export interface KeptTrain {
  readonly descriptor: Int32Array
  readonly payload: Uint8Array
}

/** What is known of a peer before its handshake has completed here. */
export interface Orphan {
  readonly key: Int32Array
  /** When it was first heard; later, once it has had to wait. */
  sinceMs: number
  /** Initial sequence number of the peer, once a SYN, or else its first ACK, was captured. */
  irs: number | undefined
  /** Ours, once an ACK of the peer was captured that agrees with `irs`. */
  isn: number | undefined
  /** The peer's maximum segment size option; 0 when its SYN had none, undefined when that was not seen. */
  readonly mss: number | undefined
  /** The interface that it was first heard on. */
  readonly ifindex: number
  /** The peer's clock (TSval) when it was first heard. */
  readonly tsval: number
  /** The newest acknowledgement of a data segment: what a reset for it would carry. */
  ack: number
  /** Whether it has sent data. */
  talks: boolean
  /** Pure ACKs seen. */
  acks: number
  readonly trains: KeptTrain[]
  bytes: number
}

/** Early messages kept for one peer; the sender holds back as much until the first acknowledgement. */
export const EARLY_BYTES = 65536
/** Those whose turn has not come when their time is over wait so much longer. */
const WAIT_MS = 1000
/** A lost third ACK is answered within the SYN-ACK's second repeat (1 s + 2 s), so that much patience suffices. */
export const ORPHAN_MS = 5000

const MAX_ORPHANS = 4096
const MAX_BYTES = 16 << 20
/** What a kept train costs beside its payload, for MAX_BYTES. */
const TRAIN_COST = 512
/** Early messages of one peer, however short. */
export const EARLY_TRAINS = 8192
/** Pure ACKs are kept too, for the third ACK tells the peer's window, but no more than a few. */
const MAX_ACKS = 4

/**
 * Keyed by 4-tuple, oldest first. Peers of which only a SYN was seen are kept apart, so that a SYN flood pushes out only its own kind:
 * without its SYN a peer can still be learned from its ACK.
 */
export class Orphans {
  readonly #silent = new Map<string, Orphan>()
  readonly #talking = new Map<string, Orphan>()
  readonly #onLost: (trains: number) => void
  #bytes = 0

  /** @param onLost told of trains that were not kept, or kept and never claimed */
  constructor(onLost: (trains: number) => void) {
    this.#onLost = onLost
  }

  get size(): number {
    return this.#silent.size + this.#talking.size
  }

  /** When the next one expires; Infinity without any. */
  get nextMs(): number {
    const a = this.#silent.values().next().value?.sinceMs ?? Number.POSITIVE_INFINITY
    const b = this.#talking.values().next().value?.sinceMs ?? Number.POSITIVE_INFINITY
    return Math.min(a, b) + ORPHAN_MS
  }

  /** Notes a captured segment that belongs to no flow. A RST is the caller's to ignore. */
  note(d: Int32Array, at: number, memory: Uint8Array, nowMs: number): void {
    const name = nameOf(d, at + D_KEY)
    const flags = d[at + D_FLAGS]
    if ((flags & SYN) !== 0) {
      const known = this.#silent.get(name) ?? this.#talking.get(name)
      if (known?.irs === d[at + D_SEQ]) return // repeated
      this.#forget(name)
      bound(this.#silent, (oldest) => this.#forget(oldest))
      this.#silent.set(name, makeOrphan(d, at, nowMs, d[at + D_SEQ]))
      return
    }
    if ((flags & ACK) === 0) {
      this.#onLost(1)
      return
    }
    let orphan = this.#talking.get(name)
    if (orphan === undefined) {
      orphan = this.#silent.get(name) ?? makeOrphan(d, at, nowMs, undefined)
      this.#silent.delete(name)
      bound(this.#talking, (oldest) => this.#forget(oldest))
      this.#talking.set(name, orphan)
    }
    const seq = d[at + D_SEQ]
    // The third ACK and a dialler's hello stand exactly behind the SYN. Without a SYN the first segment is taken at its word.
    if (orphan.isn === undefined && (orphan.irs === undefined || seq === ((orphan.irs + 1) | 0))) {
      orphan.irs ??= (seq - 1) | 0
      orphan.isn = (d[at + D_ACK] - 1) | 0
    }
    const length = d[at + D_LENGTH]
    if (length > 0) orphan.talks = true
    else if ((flags & FIN) === 0 && ++orphan.acks > MAX_ACKS) return
    orphan.ack = d[at + D_ACK]
    const cost = length + TRAIN_COST
    if (orphan.bytes + length > EARLY_BYTES || orphan.trains.length >= EARLY_TRAINS || this.#bytes + cost > MAX_BYTES) {
      this.#onLost(1)
      return
    }
    orphan.bytes += length
    this.#bytes += cost
    orphan.trains.push(keep(d, at, memory))
  }

  /** Gives up the orphan of a key, if there is one. */
  claim(key: Int32Array, at: number): Orphan | undefined {
    const name = nameOf(key, at)
    const orphan = this.#silent.get(name) ?? this.#talking.get(name)
    if (orphan !== undefined) this.#remove(name, orphan)
    return orphan
  }

  /**
   * Removes what nobody claimed in time.
   *
   * @param unclaimed gets those that had sent data; false when it can do nothing for this one and those behind it just now
   */
  expire(nowMs: number, unclaimed: (orphan: Orphan) => boolean): void {
    for (const map of [this.#silent, this.#talking]) {
      for (const [name, orphan] of map) {
        if (orphan.sinceMs + ORPHAN_MS > nowMs) break
        if (orphan.talks && !unclaimed(orphan)) {
          orphan.sinceMs = nowMs - ORPHAN_MS + WAIT_MS
          break
        }
        this.#remove(name, orphan)
        this.#onLost(orphan.trains.length)
      }
    }
  }

  #forget(name: string): void {
    const orphan = this.#silent.get(name) ?? this.#talking.get(name)
    if (orphan === undefined) return
    this.#remove(name, orphan)
    this.#onLost(orphan.trains.length)
  }

  #remove(name: string, orphan: Orphan): void {
    this.#silent.delete(name)
    this.#talking.delete(name)
    this.#bytes -= orphan.bytes + orphan.trains.length * TRAIN_COST
  }
}

/** Copies a captured train out of memory that is about to be overwritten. */
export function keep(d: Int32Array, at: number, memory: Uint8Array): KeptTrain {
  const descriptor = d.slice(at, at + D_WORDS)
  const payload = memory.slice(d[at + D_OFFSET], d[at + D_OFFSET] + d[at + D_LENGTH])
  descriptor[D_OFFSET] = 0
  return { descriptor, payload }
}

function makeOrphan(d: Int32Array, at: number, sinceMs: number, irs: number | undefined): Orphan {
  return {
    key: d.slice(at + D_KEY, at + D_KEY + KEY_WORDS),
    sinceMs,
    irs,
    mss: irs === undefined ? undefined : d[at + D_MSS],
    isn: undefined,
    ifindex: d[at + D_IFINDEX],
    tsval: d[at + D_TSVAL],
    ack: 0,
    talks: false,
    acks: 0,
    trains: [],
    bytes: 0,
  }
}

function nameOf(words: Int32Array, at: number): string {
  return String.fromCharCode(...Array.from({ length: KEY_WORDS * 2 }, (_, i) => (words[at + (i >> 1)] >>> (i & 1 ? 16 : 0)) & 0xffff))
}

function bound(map: Map<string, Orphan>, forget: (oldest: string) => void): void {
  if (map.size < MAX_ORPHANS) return
  const oldest = map.keys().next()
  if (!oldest.done) forget(oldest.value)
}

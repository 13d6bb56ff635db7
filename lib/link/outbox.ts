// Trains on their way to the kernel by one link: filled by flows, sent in one native call, resumed after a full socket buffer.
import { EAGAIN, EINVAL, ENOBUFS, rethrowLater } from '../errors.ts'
import { D_LENGTH, D_OFFSET, D_SEGMENT, D_SKIP, D_WORDS } from '../native/layout.ts'
import type { Sender } from './sender.ts'

/** Whoever has trains in an outbox. */
export interface TrainOwner {
  /** One train with payload is with the kernel (or was refused, segment by segment). */
  trainDone(): void
  /** The kernel refused a segment of `size` payload bytes for good. */
  segmentRefused(errno: number, size: number): void
}

/** What is asked about the train at `at` of `words`. */
export interface Hops {
  /** It has waited: its D_HOP is to be what it would be now. */
  renew(words: Int32Array, at: number): void
  /** The kernel refuses it: another link's outbox, which has room for it, or undefined. */
  divert(errno: number, words: Int32Array, at: number): Outbox | undefined
}

/** What an owner is still to be told. */
type News = { owner: TrainOwner; errno: number; size: number }

const CAPACITY = 256
/** A full queue of the network device (ENOBUFS) tells nobody when it has room again. */
const DEVICE_RETRY_MS = 1
/** A device that took nothing in so many of them in a row will not: what waits for it is refused. */
const DEVICE_RETRIES = 250
/** `errno` of a train that went well. */
const SENT = 0

/**
 * Owners run the application's callbacks, which may come back here. So sending (`transmit`) and telling (`settle`) are two steps: nobody is told
 * anything before the outbox is in order, and never while a flow is filling it.
 */
export class Outbox {
  /** The descriptor at the result of `control` and `train` is the caller's to fill, except D_OFFSET, D_LENGTH, D_SEGMENT and D_SKIP. */
  readonly words: Int32Array
  readonly #capacity: number
  readonly #owners: Array<TrainOwner | undefined>
  /** Segments of each train, counted once when it is added. */
  readonly #segments: Int32Array
  readonly #buffers: Uint8Array[] = []
  readonly #sender: Sender
  readonly #onRoom: () => void
  readonly #hops: Hops | undefined
  #news: News[] = []
  #from = 0
  #count = 0
  #total = 0
  #blocked = false
  #deviceRetries = 0
  #closed = false

  /**
   * @param onRoom called when a blocked outbox is empty again
   * @param hops for a link that sends by hops; see {@link Hops}
   * @param capacity trains that it holds; one of a single connection needs fewer
   */
  constructor(open: (onWritable: () => void) => Sender, onRoom: () => void, hops?: Hops, capacity = CAPACITY) {
    this.words = new Int32Array(capacity * D_WORDS)
    this.#capacity = capacity
    this.#owners = new Array(capacity).fill(undefined)
    this.#segments = new Int32Array(capacity)
    this.#onRoom = onRoom
    this.#hops = hops
    this.#sender = open(() => this.#retry())
  }

  /** True while the kernel takes nothing: the caller keeps its messages. */
  get blocked(): boolean {
    return this.#blocked
  }

  /** True when owners wait for `settle`. */
  get unsettled(): boolean {
    return this.#news.length > 0
  }

  /** Sends what is there if need be; false when nothing can be added now. Tells nobody anything. */
  makeRoom(): boolean {
    if (this.#count === this.#capacity) this.transmit()
    return !this.#blocked && !this.#closed
  }

  /** Adds a segment without payload, which is nobody's loss; the caller fills the descriptor at the returned word. */
  control(): number {
    return this.open(undefined, 1, 0)
  }

  /**
   * Adds a train of `segments` messages, each `segment` bytes long, the last at most that; the caller fills the descriptor at the returned word,
   * and adds the buffers that the messages lie in before anything else is opened. A train without owner is nobody's loss.
   */
  open(owner: TrainOwner | undefined, segments: number, segment: number): number {
    const index = this.#count++
    const at = index * D_WORDS
    this.#owners[index] = owner
    this.#segments[index] = segments
    this.#total += segments
    this.words[at + D_OFFSET] = this.#buffers.length
    this.words[at + D_LENGTH] = 0
    this.words[at + D_SEGMENT] = segment
    this.words[at + D_SKIP] = 0
    return at
  }

  /** Adds a buffer of whole messages to the train that was opened last. */
  add(buffer: Uint8Array): void {
    this.#buffers.push(buffer)
    this.words[(this.#count - 1) * D_WORDS + D_LENGTH]++
  }

  /** Sends what was added. When the kernel's buffer is full the rest stays and `blocked` is true. */
  transmit(): void {
    if (this.#blocked || this.#closed) return
    while (this.#total > 0) {
      const asked = this.#total
      const sent = this.#send()
      this.#advance(sent)
      if (sent > 0) this.#deviceRetries = 0
      if (sent === asked) break
      if (this.#total < asked - sent) continue // some were taken out
      const errno = this.#sender.errno
      if (errno === EAGAIN || (errno === ENOBUFS && this.#deviceRetries < DEVICE_RETRIES)) {
        this.#blocked = true
        if (errno === EAGAIN) return
        this.#deviceRetries++
        setTimeout(() => this.#retry(), DEVICE_RETRY_MS)
        return
      }
      this.#refuse(errno)
    }
    this.#from = 0
    this.#count = 0
    this.#buffers.length = 0
  }

  #send(): number {
    try {
      return this.#sender.send(this.words, this.#from, this.#count - this.#from, this.#buffers)
    } catch (error) {
      // Nothing was sent. Buffers that their owners have detached since they were written have no bytes left: what they belong to is lost.
      if (this.#strike()) return 0
      rethrowLater(error)
      return this.#total
    }
  }

  /** Takes out the trains with a buffer that is empty. @returns false when there is none */
  #strike(): boolean {
    let found = false
    for (let i = this.#from; i < this.#count; i++) {
      const at = i * D_WORDS
      const first = this.words[at + D_OFFSET]
      const end = first + this.words[at + D_LENGTH]
      if (!this.#buffers.slice(first, end).some(({ length }) => length === 0)) continue
      found = true
      const owner = this.#owners[i]
      if (owner !== undefined) this.#news.push({ owner, errno: EINVAL, size: this.words[at + D_SEGMENT] }, { owner, errno: SENT, size: 0 })
      this.#owners[i] = undefined
      this.#total -= this.#segments[i] - this.words[at + D_SKIP]
      // One segment without payload, which has gone already.
      this.#segments[i] = 1
      this.words[at + D_LENGTH] = 0
      this.words[at + D_SKIP] = 1
    }
    return found
  }

  /** Tells the owners what has become of their trains. */
  settle(): void {
    if (this.#news.length === 0) return
    const news = this.#news
    this.#news = []
    for (const { owner, errno, size } of news) {
      if (errno === SENT) owner.trainDone()
      else owner.segmentRefused(errno, size)
    }
  }

  /** What a blocked outbox has kept will not be sent: its owners are told that each segment was refused, by `settle`. Their bytes are free at once. */
  discard(): void {
    while (this.#total > 0) {
      const owner = this.#owners[this.#from]
      if (owner !== undefined) this.#news.push({ owner, errno: EAGAIN, size: this.#sizeOfFront() })
      this.#advance(1)
    }
    this.#from = 0
    this.#count = 0
    this.#buffers.length = 0
  }

  close(): void {
    this.#closed = true
    this.#sender.close()
  }

  #retry(): void {
    if (!this.#blocked || this.#closed) return
    this.#blocked = false
    // What was true of the hop when the train was added may not be any more.
    for (let i = this.#from; i < this.#count; i++) this.#hops?.renew(this.words, i * D_WORDS)
    this.transmit()
    if (!this.#blocked) this.#onRoom()
  }

  /** Counts `segments` as gone, from the first train on. */
  #advance(segments: number): void {
    this.#total -= segments
    let left = segments
    while (this.#from < this.#count) {
      const skip = this.#from * D_WORDS + D_SKIP
      const rest = this.#segments[this.#from] - this.words[skip]
      if (left < rest) {
        this.words[skip] += left
        return
      }
      left -= rest
      const owner = this.#owners[this.#from]
      this.#owners[this.#from] = undefined
      this.#from++
      if (owner !== undefined) this.#news.push({ owner, errno: SENT, size: 0 })
    }
  }

  /** The segment at the front will never be taken here: another link takes the rest of its train, or its loss is told, and the others go on. */
  #refuse(errno: number): void {
    const index = this.#from
    const at = index * D_WORDS
    const other = this.#hops?.divert(errno, this.words, at)
    if (other !== undefined) {
      other.#adopt(this, index)
      this.#owners[index] = undefined
      this.#advance(this.#segments[index] - this.words[at + D_SKIP])
      return
    }
    const owner = this.#owners[index]
    if (owner !== undefined) this.#news.push({ owner, errno, size: this.#sizeOfFront() })
    this.#advance(1)
  }

  #adopt(from: Outbox, index: number): void {
    const source = index * D_WORDS
    const first = from.words[source + D_OFFSET]
    const at = this.open(from.#owners[index], from.#segments[index], 0)
    const offset = this.words[at + D_OFFSET]
    this.words.set(from.words.subarray(source, source + D_WORDS), at)
    this.words[at + D_OFFSET] = offset
    this.words[at + D_LENGTH] = 0
    this.#total -= from.words[source + D_SKIP]
    for (let i = 0; i < from.words[source + D_LENGTH]; i++) this.add(from.#buffers[first + i])
  }

  /** Payload bytes of the first segment that has not gone. */
  #sizeOfFront(): number {
    const at = this.#from * D_WORDS
    const segment = this.words[at + D_SEGMENT]
    let skip = this.words[at + D_SKIP]
    if (this.words[at + D_LENGTH] === 0) return 0
    for (let i = this.words[at + D_OFFSET]; ; i++) {
      const { length } = this.#buffers[i]
      const segments = Math.ceil(length / segment)
      if (skip < segments) return Math.min(segment, length - skip * segment)
      skip -= segments
    }
  }
}

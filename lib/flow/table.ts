// The flow table: find, insert and remove flows by their whole 4-tuple, from any thread that has the buffer. What a slot's words mean,
// the lock order and what happens when a thread dies are in layout.ts. It knows no packets, no timers and no sockets.

import { randomFillSync } from 'node:crypto'
import { KEY_WORDS } from '../native/layout.ts'
import { enter, hasRoom, leave, probe } from './buckets.ts'
import { type FlowEntry, readEntry } from './entry.ts'
import { hashKey } from './hash.ts'
import {
  BUCKET_WORDS,
  FREE,
  type Geometry,
  geometry,
  H_CAPACITY,
  H_LAYOUT_VERSION,
  H_MAGIC,
  H_RECOVERIES,
  H_SEED,
  H_SHARDS,
  HEADER_WORDS,
  LAYOUT_VERSION,
  LOCK_OWNER,
  LOCK_SEQUENCE,
  MAGIC,
  OPENING,
  S_HASH,
  S_KEY,
  S_OWNER,
  S_SND_NXT,
  S_STATE,
  S_VERSION,
  SLOT_WORDS,
} from './layout.ts'
import { beginWrite, endWrite, release, validate } from './locks.ts'
import { fillPool, Pool } from './pool.ts'
import { Registry } from './registry.ts'
import { Shards } from './shards.ts'

export type { FlowEntry }

/** `insert`: no slot is free. */
export const FULL = -1
/** `insert`: the key is in the table. */
export const EXISTS = -2

const DEFAULT_CAPACITY = 65_536
const MAX_CAPACITY = 1 << 20
const DEFAULT_SHARDS = 16
const MAX_SHARDS = 256
// A reader that met this many changes in a row asks for the lock instead.
const READ_TRIES = 64
/** Owner number of a FlowTable whose thread is not registered; no slot bears it. */
const UNREGISTERED = -2

export interface FlowTableOptions {
  /** Most flows at a time, 1 to 1 048 576; each takes about 280 bytes. Default 65 536. */
  capacity?: number
  /** Parts with a lock of their own, a power of two from 1 to 256. Default 16. */
  shards?: number
}

/** What `postMessage` and `workerData` carry to another thread, for `FlowTable.attach`. */
export interface FlowTableHandle {
  readonly buffer: SharedArrayBuffer
}

/** One thread's view of a table. Every thread makes its own with `attach`. */
export class FlowTable {
  readonly handle: FlowTableHandle
  /** The whole buffer, see layout.ts for who may write what. */
  readonly words: Int32Array
  /** The same memory as doubles, for the counters. */
  readonly floats: Float64Array
  readonly capacity: number
  readonly #layout: Geometry
  readonly #registry: Registry
  readonly #pool: Pool
  readonly #shards: Shards
  readonly #seed0: number
  readonly #seed1: number
  readonly #shardMask: number
  readonly #buckets: number
  readonly #index: number
  readonly #slots: number
  #owner = UNREGISTERED

  private constructor(buffer: SharedArrayBuffer, words: Int32Array, layout: Geometry) {
    this.handle = { buffer }
    this.words = words
    this.floats = new Float64Array(buffer)
    this.capacity = layout.capacity
    this.#layout = layout
    this.#registry = new Registry(words, layout.registry)
    this.#pool = new Pool(words, layout, this.#registry)
    this.#shards = new Shards(words, layout, this.#registry, this.#pool)
    this.#seed0 = words[H_SEED]
    this.#seed1 = words[H_SEED + 1]
    this.#shardMask = layout.shards - 1
    this.#buckets = layout.buckets
    this.#index = layout.index
    this.#slots = layout.slots
  }

  /** Makes an empty table. @throws RangeError if an option is out of range */
  static create(options: FlowTableOptions = {}): FlowTable {
    const { capacity = DEFAULT_CAPACITY, shards = DEFAULT_SHARDS } = options
    if (!Number.isInteger(capacity) || capacity < 1 || capacity > MAX_CAPACITY) {
      throw new RangeError(`capacity: an integer from 1 to ${MAX_CAPACITY} is expected, got ${capacity}`)
    }
    if (!isShardCount(shards)) throw new RangeError(`shards: a power of two from 1 to ${MAX_SHARDS} is expected, got ${shards}`)
    const layout = geometry(capacity, shards)
    const buffer = new SharedArrayBuffer(layout.words * Int32Array.BYTES_PER_ELEMENT)
    const words = new Int32Array(buffer)
    words[H_CAPACITY] = capacity
    words[H_SHARDS] = shards
    words.set(randomFillSync(new Int32Array(2)), H_SEED)
    fillPool(words, layout)
    words[H_LAYOUT_VERSION] = LAYOUT_VERSION
    words[H_MAGIC] = MAGIC
    return new FlowTable(buffer, words, layout)
  }

  /** Opens a table that another thread made. @throws TypeError if the handle is not one of this version's tables */
  static attach(handle: FlowTableHandle): FlowTable {
    const buffer: unknown = handle?.buffer
    if (!(buffer instanceof SharedArrayBuffer)) throw new TypeError('the handle of a flow table is expected')
    if (buffer.byteLength < HEADER_WORDS * 4 || buffer.byteLength % 8 !== 0) throw new TypeError('the buffer is not a flow table')
    const words = new Int32Array(buffer)
    if (words[H_MAGIC] !== MAGIC) throw new TypeError('the buffer is not a flow table')
    if (words[H_LAYOUT_VERSION] !== LAYOUT_VERSION) {
      throw new TypeError(`a flow table of layout ${LAYOUT_VERSION} is expected, got layout ${words[H_LAYOUT_VERSION]}`)
    }
    const capacity = words[H_CAPACITY]
    const shards = words[H_SHARDS]
    if (capacity < 1 || !isShardCount(shards) || geometry(capacity, shards).words !== words.length) {
      throw new TypeError('the flow table is damaged: its size does not fit its header')
    }
    return new FlowTable(buffer, words, geometry(capacity, shards))
  }

  /**
   * Enters the calling thread among the table's threads; the same number however often it is called.
   * @returns the owner number for `insert` and `remove`
   * @throws RangeError if 256 living threads use the table
   */
  register(): number {
    if (this.#owner === UNREGISTERED) this.#owner = this.#registry.register()
    return this.#owner
  }

  /** Word offset of a slot; its counters start at `base(slot) >> 1` of `floats`. */
  base(slot: number): number {
    return this.#slots + slot * SLOT_WORDS
  }

  /** Flows now. */
  get size(): number {
    return this.capacity - this.#pool.free
  }

  /** Locks of dead threads that were broken, and what they guarded rebuilt, since the table was made. */
  get recoveries(): number {
    return Atomics.load(this.words, H_RECOVERIES)
  }

  /**
   * Looks a flow up, without a lock. A flow of the calling thread stays where it is until this thread removes it; another thread's may be
   * gone at any time, so compare S_VERSION before and after reading it. Fastest for a thread that has called `register`.
   *
   * @param at - index of the key's first word
   * @returns the slot, or -1
   */
  find(key: Int32Array, at: number): number {
    const hash = hashKey(key, at, this.#seed0, this.#seed1)
    const shard = (hash >>> 24) & this.#shardMask
    const index = this.#index + shard * this.#buckets * BUCKET_WORDS
    const slot = probe(this.words, index, this.#buckets, this.#slots, hash, key, at)
    if (slot >= 0 && this.words[this.#slots + slot * SLOT_WORDS + S_OWNER] === this.#owner) return slot
    return this.#findValidated(shard, hash, key, at)
  }

  /**
   * Enters a flow. Its state is OPENING and every word but the key is 0.
   *
   * @param at - index of the key's first word
   * @param owner - what `register` returned in this thread
   * @returns the slot, FULL or EXISTS
   * @throws RangeError if `owner` is not this thread's number or the key does not fit its array
   */
  insert(key: Int32Array, at: number, owner: number): number {
    this.#check(owner)
    if (!(at >= 0 && at + KEY_WORDS <= key.length))
      throw new RangeError(`a key of ${KEY_WORDS} words is expected at ${at} of ${key.length}`)
    const { words } = this
    const hash = hashKey(key, at, this.#seed0, this.#seed1)
    const shard = this.#shards.of(hash)
    const lock = this.#shards.lock(shard, this.#owner)
    const slot = this.#claim(shard, hash, key, at)
    if (slot >= 0) {
      const base = this.base(slot)
      Atomics.store(words, base + S_OWNER, owner)
      for (let i = 0; i < KEY_WORDS; i++) Atomics.store(words, base + S_KEY + i, key[at + i])
      words.fill(0, base + S_SND_NXT, base + SLOT_WORDS)
      Atomics.store(words, base + S_STATE, OPENING)
      beginWrite(words, lock)
      enter(words, this.#shards.index(shard), this.#buckets, hash, slot)
      this.#turnVersion(base)
      endWrite(words, lock)
    }
    release(words, lock)
    return slot
  }

  /**
   * Removes a flow of this thread; the slot is free at once.
   *
   * @param owner - what `register` returned in this thread
   * @returns false if the slot does not hold a flow of this owner
   * @throws RangeError if `owner` is not this thread's number
   */
  remove(slot: number, owner: number): boolean {
    this.#check(owner)
    const base = this.base(slot)
    // A slot that bears this thread's number is changed by no other thread, so no lock is needed to look.
    if (!(slot >= 0 && slot < this.capacity) || this.words[base + S_OWNER] !== owner) return false
    if (this.words[base + S_STATE] === FREE) return false
    return this.#removeOf(slot, owner)
  }

  /**
   * Every flow, each consistent in itself; a flow that is being inserted or removed meanwhile is left out. Runs over all slots, for
   * statistics and tools.
   */
  *entries(): Generator<FlowEntry, void, void> {
    for (let slot = 0; slot < this.capacity; slot++) {
      const entry = readEntry(this.words, this.floats, slot, this.base(slot))
      if (entry !== undefined) yield entry
    }
  }

  /**
   * Removes the flows of threads that have ended, and breaks and repairs what they held (and what an exception made this thread leave).
   * Registers the calling thread.
   * @returns how many flows it removed
   */
  reap(): number {
    const owner = this.register()
    const { words } = this
    const alive = new Map<number, boolean>([[owner, true]])
    const isDead = (other: number): boolean => {
      let known = alive.get(other)
      if (known === undefined) {
        known = this.#registry.isAlive(other)
        alive.set(other, known)
      }
      return !known
    }
    for (let shard = 0; shard <= this.#shardMask; shard++) {
      const holder = Atomics.load(words, this.#shards.lockWord(shard) + LOCK_OWNER)
      if (holder !== 0 && (holder - 1 === owner || isDead(holder - 1))) release(words, this.#shards.lock(shard, this.#owner))
    }
    const holder = Atomics.load(words, this.#layout.poolLock + LOCK_OWNER)
    if (holder !== 0 && (holder - 1 === owner || isDead(holder - 1))) {
      this.#pool.lock(this.#owner)
      this.#pool.unlock()
    }
    let removed = 0
    for (let slot = 0; slot < this.capacity; slot++) {
      const base = this.base(slot)
      if ((Atomics.load(words, base + S_VERSION) & 1) !== 0 || Atomics.load(words, base + S_STATE) === FREE) continue
      const other = Atomics.load(words, base + S_OWNER)
      // A slot that was freed since bears NO_OWNER, which is nobody's, dead or alive.
      if (other >= 0 && isDead(other) && this.#removeOf(slot, other)) removed++
    }
    return removed
  }

  #findValidated(shard: number, hash: number, key: Int32Array, at: number): number {
    const { words } = this
    const index = this.#shards.index(shard)
    const sequence = this.#shards.lockWord(shard) + LOCK_SEQUENCE
    for (let tries = 0; tries < READ_TRIES; tries++) {
      const before = Atomics.load(words, sequence)
      if ((before & 1) !== 0) continue
      const slot = probe(words, index, this.#buckets, this.#slots, hash, key, at)
      if (validate(words, sequence) === before) return slot
    }
    this.register()
    const lock = this.#shards.lock(shard, this.#owner)
    const slot = probe(words, index, this.#buckets, this.#slots, hash, key, at)
    release(words, lock)
    return slot
  }

  /** Under the shard's lock: a slot for the key, half written, or why not. */
  #claim(shard: number, hash: number, key: Int32Array, at: number): number {
    const index = this.#shards.index(shard)
    if (probe(this.words, index, this.#buckets, this.#slots, hash, key, at) >= 0) return EXISTS
    if (!hasRoom(this.words, index, this.#buckets, hash)) return FULL
    this.#pool.lock(this.#owner)
    const slot = this.#pool.take(hash)
    this.#pool.unlock()
    return slot < 0 ? FULL : slot
  }

  /** Removes a flow of `owner`: this thread, or a dead one. False if the slot no longer holds one. */
  #removeOf(slot: number, owner: number): boolean {
    const { words } = this
    const base = this.base(slot)
    const hash = Atomics.load(words, base + S_HASH)
    const shard = this.#shards.of(hash)
    const lock = this.#shards.lock(shard, this.#owner)
    // While we waited another thread may have reaped the slot, or even filled it anew.
    const still = words[base + S_OWNER] === owner && (words[base + S_VERSION] & 1) === 0
    if (still) {
      this.#pool.lock(this.#owner)
      this.#turnVersion(base)
      beginWrite(words, lock)
      leave(words, this.#shards.index(shard), this.#buckets, hash, slot)
      endWrite(words, lock)
      this.#pool.give(slot)
      this.#pool.unlock()
    }
    release(words, lock)
    return still
  }

  #turnVersion(base: number): void {
    Atomics.store(this.words, base + S_VERSION, (this.words[base + S_VERSION] + 1) | 0)
  }

  #check(owner: number): void {
    if (owner !== this.#owner || owner === UNREGISTERED) {
      throw new RangeError(`the owner number that register() returned in this thread is expected, got ${owner}`)
    }
  }
}

function isShardCount(shards: number): boolean {
  return Number.isInteger(shards) && shards >= 1 && shards <= MAX_SHARDS && (shards & (shards - 1)) === 0
}

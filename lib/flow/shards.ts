// A shard's lock, and the repair of what it guards: the index is made anew from the slots. Lock order and death windows are in layout.ts.

import { clear, enter } from './buckets.ts'
import { BUCKET_WORDS, FREE, type Geometry, H_RECOVERIES, LOCK_WORDS, S_HASH, S_STATE, S_VERSION, SLOT_WORDS } from './layout.ts'
import { acquire, beginWrite, endWrite } from './locks.ts'
import type { Pool } from './pool.ts'
import type { Registry } from './registry.ts'

export class Shards {
  readonly #words: Int32Array
  readonly #layout: Geometry
  readonly #registry: Registry
  readonly #pool: Pool

  constructor(words: Int32Array, layout: Geometry, registry: Registry, pool: Pool) {
    this.#words = words
    this.#layout = layout
    this.#registry = registry
    this.#pool = pool
  }

  /** The shard of a hash: bits of it that the buckets of a shard do not use. */
  of(hash: number): number {
    return (hash >>> 24) & (this.#layout.shards - 1)
  }

  /** Word offset of a shard's first bucket. */
  index(shard: number): number {
    return this.#layout.index + shard * this.#layout.buckets * BUCKET_WORDS
  }

  /** Word offset of a shard's lock. */
  lockWord(shard: number): number {
    return this.#layout.locks + shard * LOCK_WORDS
  }

  /** Takes a shard's lock and, if it was a dead thread's, repairs the shard. @returns the lock's word offset. Throws as `acquire`. */
  lock(shard: number, owner: number): number {
    const lock = this.lockWord(shard)
    if (acquire(this.#words, lock, owner, this.#registry)) {
      Atomics.add(this.#words, H_RECOVERIES, 1)
      this.#rebuild(shard, lock, owner)
    }
    return lock
  }

  #rebuild(shard: number, lock: number, owner: number): void {
    const words = this.#words
    const { buckets, capacity, slots } = this.#layout
    const index = this.index(shard)
    beginWrite(words, lock)
    this.#pool.lock(owner)
    for (let slot = 0; slot < capacity; slot++) {
      const base = slots + slot * SLOT_WORDS
      // The version before the hash: another shard's slot gets its hash before it turns odd.
      if ((Atomics.load(words, base + S_VERSION) & 1) === 0) continue
      if (this.of(Atomics.load(words, base + S_HASH)) === shard) this.#pool.give(slot)
    }
    this.#pool.unlock()
    clear(words, index, buckets)
    for (let slot = 0; slot < capacity; slot++) {
      const base = slots + slot * SLOT_WORDS
      // Version, state, hash: a slot that turns into another shard's flow meanwhile has that shard's hash before its state.
      if ((Atomics.load(words, base + S_VERSION) & 1) !== 0 || Atomics.load(words, base + S_STATE) === FREE) continue
      const hash = Atomics.load(words, base + S_HASH)
      if (this.of(hash) === shard) enter(words, index, buckets, hash, slot)
    }
    endWrite(words, lock)
  }
}

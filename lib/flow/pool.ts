// The free slots of all shards: a stack under one lock. Lock order and the death windows (b, c, j, k) are in layout.ts.

import { FREE, type Geometry, H_RECOVERIES, NO_OWNER, POOL_FREE, S_HASH, S_OWNER, S_STATE, S_VERSION, SLOT_WORDS } from './layout.ts'
import { acquire, release } from './locks.ts'
import type { Registry } from './registry.ts'

/** Fills the stack of a new table: slot 0 is on top. */
export function fillPool(words: Int32Array, { capacity, poolLock, stack }: Geometry): void {
  for (let i = 0; i < capacity; i++) words[stack + i] = capacity - 1 - i
  words[poolLock + POOL_FREE] = capacity
}

export class Pool {
  readonly #words: Int32Array
  readonly #layout: Geometry
  readonly #registry: Registry

  constructor(words: Int32Array, layout: Geometry, registry: Registry) {
    this.#words = words
    this.#layout = layout
    this.#registry = registry
  }

  /** Free slots now; read without the lock. */
  get free(): number {
    return Atomics.load(this.#words, this.#layout.poolLock + POOL_FREE)
  }

  /** Takes the pool's lock and rebuilds the stack if it was a dead thread's. Throws as `acquire`. */
  lock(owner: number): void {
    if (!acquire(this.#words, this.#layout.poolLock, owner, this.#registry)) return
    Atomics.add(this.#words, H_RECOVERIES, 1)
    this.#rebuild()
  }

  unlock(): void {
    release(this.#words, this.#layout.poolLock)
  }

  /**
   * Takes a slot and marks it half written, in the shard that `hash` names. Under the pool's lock and that shard's.
   * @returns the slot, -1 if none is free
   */
  take(hash: number): number {
    const words = this.#words
    const { poolLock, slots, stack } = this.#layout
    const free = words[poolLock + POOL_FREE]
    if (free === 0) return -1
    const slot = words[stack + free - 1]
    const base = slots + slot * SLOT_WORDS
    // The hash first: a rebuild that finds the version odd must know which shard the slot belongs to.
    Atomics.store(words, base + S_HASH, hash)
    Atomics.store(words, base + S_VERSION, (words[base + S_VERSION] + 1) | 0)
    Atomics.store(words, poolLock + POOL_FREE, free - 1)
    return slot
  }

  /** Frees a half-written slot that no bucket names. Under the pool's lock and the shard's. */
  give(slot: number): void {
    const words = this.#words
    const { poolLock, slots, stack } = this.#layout
    const base = slots + slot * SLOT_WORDS
    const free = words[poolLock + POOL_FREE]
    Atomics.store(words, base + S_OWNER, NO_OWNER)
    Atomics.store(words, base + S_STATE, FREE)
    Atomics.store(words, base + S_VERSION, (words[base + S_VERSION] + 1) | 0)
    Atomics.store(words, stack + free, slot)
    Atomics.store(words, poolLock + POOL_FREE, free + 1)
  }

  #rebuild(): void {
    const words = this.#words
    const { capacity, poolLock, slots, stack } = this.#layout
    let free = 0
    for (let slot = capacity - 1; slot >= 0; slot--) {
      const base = slots + slot * SLOT_WORDS
      // The version first: a slot that is being published, by a living thread under its shard's lock, gets its state before it turns even.
      if ((Atomics.load(words, base + S_VERSION) & 1) !== 0) continue
      if (Atomics.load(words, base + S_STATE) === FREE) Atomics.store(words, stack + free++, slot)
    }
    Atomics.store(words, poolLock + POOL_FREE, free)
  }
}

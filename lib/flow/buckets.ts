// One shard's index: open addressing with linear probing and removal by backward shift, so that there are no tombstones. Buckets hold
// the full hash and the slot; `buckets` is always a power of two. Callers hold the shard's lock, or validate what they read (`probe`).

import { BUCKET_HASH, BUCKET_SLOT, BUCKET_WORDS, S_KEY, SLOT_WORDS } from './layout.ts'

/**
 * The slot that holds the key, or -1. Touches no slot but those whose hash matches in all 32 bits.
 *
 * @param index - word offset of the shard's first bucket
 * @param slots - word offset of slot 0
 */
export function probe(words: Int32Array, index: number, buckets: number, slots: number, hash: number, key: Int32Array, at: number): number {
  const mask = buckets - 1
  let bucket = hash & mask
  // Bounded, because a reader without the lock may see the buckets while they change.
  for (let left = buckets; left > 0; left--) {
    const word = index + bucket * BUCKET_WORDS
    const slot = words[word + BUCKET_SLOT] - 1
    if (slot < 0) return -1
    if (words[word + BUCKET_HASH] === hash) {
      const own = slots + slot * SLOT_WORDS + S_KEY
      // Written out: a loop over the nine words makes the whole look-up a quarter slower.
      if (
        words[own] === key[at] &&
        words[own + 1] === key[at + 1] &&
        words[own + 2] === key[at + 2] &&
        words[own + 3] === key[at + 3] &&
        words[own + 4] === key[at + 4] &&
        words[own + 5] === key[at + 5] &&
        words[own + 6] === key[at + 6] &&
        words[own + 7] === key[at + 7] &&
        words[own + 8] === key[at + 8]
      ) {
        return slot
      }
    }
    bucket = (bucket + 1) & mask
  }
  return -1
}

/** Enters a slot. False, and nothing changed, if no bucket is empty (layout.ts makes that a matter of theory). */
export function enter(words: Int32Array, index: number, buckets: number, hash: number, slot: number): boolean {
  const bucket = firstEmpty(words, index, buckets, hash)
  if (bucket < 0) return false
  Atomics.store(words, index + bucket * BUCKET_WORDS + BUCKET_HASH, hash)
  Atomics.store(words, index + bucket * BUCKET_WORDS + BUCKET_SLOT, slot + 1)
  return true
}

/** Whether `enter` would succeed. */
export function hasRoom(words: Int32Array, index: number, buckets: number, hash: number): boolean {
  return firstEmpty(words, index, buckets, hash) >= 0
}

function firstEmpty(words: Int32Array, index: number, buckets: number, hash: number): number {
  const mask = buckets - 1
  for (let step = 0; step < buckets; step++) {
    const bucket = (hash + step) & mask
    if (words[index + bucket * BUCKET_WORDS + BUCKET_SLOT] === 0) return bucket
  }
  return -1
}

/** Takes a slot out and closes the gap (Knuth, volume 3, 6.4, algorithm R). */
export function leave(words: Int32Array, index: number, buckets: number, hash: number, slot: number): void {
  const mask = buckets - 1
  let hole = hash & mask
  for (let left = buckets; words[index + hole * BUCKET_WORDS + BUCKET_SLOT] !== slot + 1; hole = (hole + 1) & mask) {
    if (left-- === 0) return
  }
  for (let step = 1, from = (hole + 1) & mask; step < buckets; step++, from = (from + 1) & mask) {
    const word = index + from * BUCKET_WORDS
    const moved = words[word + BUCKET_SLOT]
    if (moved === 0) break
    const movedHash = words[word + BUCKET_HASH]
    // It may move into the hole only if the hole lies between its home and where it is now.
    if (((from - movedHash) & mask) < ((from - hole) & mask)) continue
    Atomics.store(words, index + hole * BUCKET_WORDS + BUCKET_HASH, movedHash)
    Atomics.store(words, index + hole * BUCKET_WORDS + BUCKET_SLOT, moved)
    hole = from
  }
  Atomics.store(words, index + hole * BUCKET_WORDS + BUCKET_SLOT, 0)
}

/** Empties a shard's buckets, for a rebuild. */
export function clear(words: Int32Array, index: number, buckets: number): void {
  for (let bucket = 0; bucket < buckets; bucket++) Atomics.store(words, index + bucket * BUCKET_WORDS + BUCKET_SLOT, 0)
}

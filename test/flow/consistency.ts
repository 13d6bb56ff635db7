// What must be true of a table's memory whenever no thread is inside: read from the layout, not through the table's own methods.

import {
  BUCKET_HASH,
  BUCKET_SLOT,
  BUCKET_WORDS,
  FREE,
  type Geometry,
  geometry,
  H_CAPACITY,
  H_SHARDS,
  LOCK_OWNER,
  LOCK_SEQUENCE,
  LOCK_WORDS,
  POOL_FREE,
  S_HASH,
  S_KEY,
  S_STATE,
  S_VERSION,
  SLOT_WORDS,
} from '../../lib/flow/layout.ts'
import type { FlowTable } from '../../lib/flow/table.ts'
import { KEY_WORDS } from '../../lib/native/layout.ts'

export function layoutOf(table: FlowTable): Geometry {
  return geometry(table.words[H_CAPACITY], table.words[H_SHARDS])
}

/** Every way in which the table is damaged, in words; empty if it is sound. */
export function damage(table: FlowTable): string[] {
  const { words } = table
  const layout = layoutOf(table)
  const faults: string[] = []

  for (let lock = layout.locks; lock <= layout.poolLock; lock += LOCK_WORDS) {
    if (words[lock + LOCK_OWNER] !== 0) faults.push(`the lock at ${lock} is held by ${words[lock + LOCK_OWNER] - 1}`)
    if ((words[lock + LOCK_SEQUENCE] & 1) !== 0) faults.push(`the sequence of the lock at ${lock} is odd`)
  }

  const stacked = new Set<number>()
  const free = words[layout.poolLock + POOL_FREE]
  for (let i = 0; i < free; i++) stacked.add(words[layout.stack + i])
  if (stacked.size !== free) faults.push(`the stack of ${free} holds ${stacked.size} different slots`)

  const indexed = new Map<number, number>()
  for (let shard = 0; shard < layout.shards; shard++) {
    for (let bucket = 0; bucket < layout.buckets; bucket++) {
      const word = layout.index + (shard * layout.buckets + bucket) * BUCKET_WORDS
      const slot = words[word + BUCKET_SLOT] - 1
      if (slot < 0) continue
      if (indexed.has(slot)) faults.push(`slot ${slot} is in the index twice`)
      indexed.set(slot, shard)
      if (words[word + BUCKET_HASH] !== words[table.base(slot) + S_HASH]) faults.push(`the bucket of slot ${slot} has another hash`)
    }
  }

  for (let slot = 0; slot < layout.capacity; slot++) {
    const base = layout.slots + slot * SLOT_WORDS
    if ((words[base + S_VERSION] & 1) !== 0) faults.push(`slot ${slot} is half written`)
    const isFree = words[base + S_STATE] === FREE
    if (isFree !== stacked.has(slot)) faults.push(`slot ${slot} is ${isFree ? 'free but not' : 'used but'} on the stack`)
    if (isFree === indexed.has(slot)) faults.push(`slot ${slot} is ${isFree ? 'free but' : 'used but not'} in the index`)
    if (isFree) continue
    const found = table.find(words.slice(base + S_KEY, base + S_KEY + KEY_WORDS), 0)
    if (found !== slot) faults.push(`the key of slot ${slot} is found at ${found}`)
  }
  return faults
}

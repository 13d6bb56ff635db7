// The lock word: taken by compare-and-swap, bearing its holder's owner number, broken when the holder is dead. Order, and what each lock
// guards, are in layout.ts. Knows nothing of flows.

import { isMainThread } from 'node:worker_threads'
import { LOCK_OWNER, LOCK_SEQUENCE, LOCK_WAITING } from './layout.ts'
import type { Registry } from './registry.ts'

// A holder is inside for about a microsecond. A worker sleeps after some 10 µs of trying; the main thread must not sleep (Node's whole
// event loop hangs on it), so it goes on trying for some 300 µs before it asks whether the holder still lives.
const SPINS = isMainThread ? 20_000 : 500
const SLEEP_MS = 2
// About 10 s in rounds of spinning and sleeping, not by a clock: a process that was stopped and continued must not conclude that time has
// run out.
const MAX_ROUNDS = isMainThread ? 30_000 : 5_000

/**
 * Takes the lock at word `at`, waiting for a living holder and breaking the lock of a dead one.
 *
 * A thread is never inside twice. If the lock bears its own number, an earlier call was cut off by an exception (a stack overflow, the
 * `timeout` of node:vm), and it is treated like a dead holder's.
 *
 * @returns true if the lock was broken: the caller must rebuild what it guards before anything else
 * @throws Error if a living holder has not let go for seconds (it is paused in a debugger, or in a bug)
 */
export function acquire(words: Int32Array, at: number, owner: number, registry: Registry): boolean {
  if (Atomics.compareExchange(words, at + LOCK_OWNER, 0, owner + 1) === 0) return false
  return acquireContended(words, at, owner, registry)
}

function acquireContended(words: Int32Array, at: number, owner: number, registry: Registry): boolean {
  const lock = at + LOCK_OWNER
  const mine = owner + 1
  for (let round = 0; round < MAX_ROUNDS; ) {
    let seen = 0
    for (let spin = 0; spin < SPINS; spin++) {
      seen = Atomics.load(words, lock)
      if (seen === mine) return true
      if (seen === 0 && Atomics.compareExchange(words, lock, 0, mine) === 0) return false
    }
    if (seen === 0) continue
    if (!isMainThread) {
      Atomics.store(words, at + LOCK_WAITING, 1)
      // The timeout also covers a wake-up that another sleeper's flag has used up.
      if (Atomics.wait(words, lock, seen, SLEEP_MS) !== 'timed-out') continue
    }
    round++
    // A dead thread's number is never given out again, so this swap cannot hit a later holder.
    if (!registry.isAlive(seen - 1) && Atomics.compareExchange(words, lock, seen, mine) === seen) return true
  }
  throw new Error(`the flow table's lock at word ${at} stays with owner ${Atomics.load(words, lock) - 1}, whose thread is alive`)
}

/** Gives the lock back. Only its holder may call it. */
export function release(words: Int32Array, at: number): void {
  Atomics.store(words, at + LOCK_OWNER, 0)
  if (Atomics.load(words, at + LOCK_WAITING) === 0) return
  Atomics.store(words, at + LOCK_WAITING, 0)
  Atomics.notify(words, at + LOCK_OWNER)
}

/** The holder is about to change what readers read without the lock. The sequence may be odd already, left so by a dead holder. */
export function beginWrite(words: Int32Array, at: number): void {
  Atomics.store(words, at + LOCK_SEQUENCE, Atomics.load(words, at + LOCK_SEQUENCE) | 1)
}

export function endWrite(words: Int32Array, at: number): void {
  Atomics.store(words, at + LOCK_SEQUENCE, (Atomics.load(words, at + LOCK_SEQUENCE) + 1) | 0)
}

const ORDERED_LOADS = process.arch === 'x64' || process.arch === 'ia32'

/**
 * Reads a sequence or version word after the plain reads that it is to validate. An atomic load does not keep earlier plain loads from
 * being done after it, except on x86; elsewhere adding nothing does, because its write may not overtake them.
 */
export function validate(words: Int32Array, word: number): number {
  return ORDERED_LOADS ? Atomics.load(words, word) : Atomics.add(words, word, 0)
}

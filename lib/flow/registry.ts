// Which threads use a table, and which of them are dead. Knows locks and flows only as owner numbers.
//
// An owner number is `generation << OWNER_BITS | entry`. An entry of a dead thread is taken over by compare-and-swap on ENTRY_THREAD, then
// its generation is raised; so locks and flows that still bear the old number are known to be a dead thread's, and nothing has to be
// cleaned up before an entry is used again. While the entry is being taken its thread id is negated and its start time not compared: a
// thread that dies there leaves an entry that the next one takes over.

import { readFileSync, readlinkSync } from 'node:fs'
import {
  ENTRY_GENERATION,
  ENTRY_START,
  ENTRY_THREAD,
  ENTRY_WORDS,
  GENERATION_MASK,
  MAX_OWNERS,
  NO_THREAD_ID,
  OWNER_BITS,
} from './layout.ts'

const OWNER_MASK = MAX_OWNERS - 1

/** The start time of a thread of this process in clock ticks since boot (low 32 bits), or undefined if there is no such thread. */
function startOf(thread: number | 'self'): number | undefined {
  const path = thread === 'self' ? '/proc/thread-self/stat' : `/proc/self/task/${thread}/stat`
  try {
    const stat = readFileSync(path, 'latin1')
    // Field 2 is the thread's name in parentheses and may hold anything; the state after it is field 3, the start time field 22.
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]) | 0
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ESRCH') return undefined
    throw error
  }
}

/** The kernel's id of this thread (proc(5), thread-self), or undefined where there is no /proc. */
function currentThread(): number | undefined {
  try {
    const id = Number(readlinkSync('/proc/thread-self').split('/')[2])
    return Number.isInteger(id) && id > 0 ? id : undefined
  } catch {
    return undefined
  }
}

/** Whether the thread exists. False only on good evidence: a failed read for any other reason (EMFILE, /proc unmounted) means yes. */
function exists(thread: number, start: number | undefined): boolean {
  try {
    const found = startOf(thread)
    if (found === undefined) return startOf('self') === undefined
    return start === undefined || found === start
  } catch {
    return true
  }
}

export class Registry {
  readonly #words: Int32Array
  readonly #at: number

  /** @param at - word offset of the first entry */
  constructor(words: Int32Array, at: number) {
    this.#words = words
    this.#at = at
  }

  /**
   * Enters the calling thread, or finds the entry it has.
   * @returns its owner number; 0 for the first thread of a new table
   * @throws RangeError if every entry belongs to a living thread
   */
  register(): number {
    const thread = currentThread()
    const start = thread === undefined ? undefined : startOf('self')
    if (thread === undefined || start === undefined) return this.#claimFirst(NO_THREAD_ID, 0, false)
    for (let entry = 0; entry < MAX_OWNERS; entry++) {
      const at = this.#at + entry * ENTRY_WORDS
      if (Atomics.load(this.#words, at + ENTRY_THREAD) !== thread) continue
      if (Atomics.load(this.#words, at + ENTRY_START) === start) return this.#number(entry)
    }
    return this.#claimFirst(thread, start, true)
  }

  /** Whether the thread that was given this number still runs. Costs a read in /proc. */
  isAlive(owner: number): boolean {
    const words = this.#words
    const entry = owner & OWNER_MASK
    const at = this.#at + entry * ENTRY_WORDS
    const thread = Atomics.load(words, at + ENTRY_THREAD)
    if (thread === 0 || this.#number(entry) !== owner) return false
    if (thread === NO_THREAD_ID) return true
    const alive = exists(Math.abs(thread), thread > 0 ? Atomics.load(words, at + ENTRY_START) : undefined)
    // A successor may have moved in between the reads; then what was found out is about the successor.
    return alive && this.#number(entry) === owner
  }

  #number(entry: number): number {
    return (Atomics.load(this.#words, this.#at + entry * ENTRY_WORDS + ENTRY_GENERATION) << OWNER_BITS) | entry
  }

  /** Takes the first unused entry, else the first of a dead thread. */
  #claimFirst(thread: number, start: number, canTell: boolean): number {
    for (let entry = 0; entry < MAX_OWNERS; entry++) {
      if (this.#claim(entry, 0, thread, start)) return this.#number(entry)
    }
    for (let entry = 0; canTell && entry < MAX_OWNERS; entry++) {
      const at = this.#at + entry * ENTRY_WORDS
      const previous = Atomics.load(this.#words, at + ENTRY_THREAD)
      if (previous === NO_THREAD_ID) continue
      const previousStart = previous > 0 ? Atomics.load(this.#words, at + ENTRY_START) : undefined
      // An entry half taken under this thread's own id was left by a dead namesake.
      if (previous !== -thread && exists(Math.abs(previous), previousStart)) continue
      if (this.#claim(entry, previous, thread, start)) return this.#number(entry)
    }
    throw new RangeError(`all ${MAX_OWNERS} thread entries of the flow table belong to living threads`)
  }

  #claim(entry: number, previous: number, thread: number, start: number): boolean {
    const words = this.#words
    const at = this.#at + entry * ENTRY_WORDS
    if (Atomics.compareExchange(words, at + ENTRY_THREAD, previous, -thread) !== previous) return false
    if (previous !== 0) {
      const generation = Atomics.load(words, at + ENTRY_GENERATION)
      Atomics.store(words, at + ENTRY_GENERATION, (generation + 1) & GENERATION_MASK)
    }
    Atomics.store(words, at + ENTRY_START, start)
    Atomics.store(words, at + ENTRY_THREAD, thread)
    return true
  }
}

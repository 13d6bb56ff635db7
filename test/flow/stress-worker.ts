// The worker side of stress.test.ts and registry.test.ts: one thread that uses a table as its role says.
import { parentPort, workerData } from 'node:worker_threads'
import { F_MESSAGES_IN, geometry, H_CAPACITY, H_SHARDS, LOCK_WORDS, OPEN, S_KEY, S_STATE, S_VERSION } from '../../lib/flow/layout.ts'
import { acquire, beginWrite } from '../../lib/flow/locks.ts'
import { Registry } from '../../lib/flow/registry.ts'
import { FlowTable, type FlowTableHandle } from '../../lib/flow/table.ts'
import { KEY_PORTS, KEY_WORDS } from '../../lib/native/layout.ts'
import { checkedKey, isWholeKey } from './stress-keys.ts'

export interface StressJob {
  handle: FlowTableHandle
  /** Word 0: readers are to stop. Word 1: readers that run. Word 2: odd while the shifter's flows are all in the table. */
  signals: Int32Array
  role: 'writer' | 'reader' | 'shifter' | 'holder' | 'idle'
  /** Distinguishes this worker's keys. */
  id: number
  rounds: number
  /** Shifter: keys of one chain. */
  chain?: Int32Array[]
  /** Holder: which lock (the number of shards: the pool's), and whether the sequence is left odd. */
  lock?: number
  odd?: boolean
}

export interface StressReport {
  owner: number
  faults: string[]
  rounds: number
  /** Keys of the flows that a writer leaves, with what it counted for each. */
  left: { slot: number; count: number }[]
}

const job = workerData as StressJob
const table = FlowTable.attach(job.handle)
const owner = table.register()
const faults: string[] = []

const report = (rounds: number, left: StressReport['left'] = []): void => {
  parentPort?.postMessage({ owner, faults, rounds, left } satisfies StressReport)
}

if (job.role === 'writer') write()
else if (job.role === 'reader') read()
else if (job.role === 'shifter') shift(job.chain ?? [])
else if (job.role === 'holder') hold()
else {
  table.insert(checkedKey(job.id, 0), 0, owner)
  report(0)
  parentPort?.on('message', () => {})
}

/** Keeps up to 40 flows: inserts, finds all it has again and again, counts in them, removes, and compares what it counted. */
function write(): void {
  const own: { n: number; slot: number; count: number; key: Int32Array }[] = []
  let random = job.id + 1
  for (let round = 0, n = 0; round < job.rounds && faults.length < 10; round++) {
    random = (Math.imul(random, 1664525) + 1013904223) >>> 0
    if (own.length < 40 && random % 3 !== 0) {
      const key = checkedKey(job.id, n)
      const slot = table.insert(key, 0, owner)
      if (slot >= 0) {
        table.words[table.base(slot) + S_STATE] = OPEN
        own.push({ n, slot, count: 0, key })
      }
      n++
    } else if (own.length > 0) {
      const [{ slot, count, key }] = own.splice(random % own.length, 1)
      const counted = table.floats[(table.base(slot) >> 1) + F_MESSAGES_IN]
      if (counted !== count) faults.push(`slot ${slot} has counted ${counted} of ${count}`)
      if (!table.remove(slot, owner)) faults.push(`own flow in slot ${slot} could not be removed`)
      if (table.find(key, 0) >= 0) faults.push(`removed flow of slot ${slot} was found`)
    }
    for (const flow of own) {
      const found = table.find(flow.key, 0)
      if (found !== flow.slot) faults.push(`own flow ${flow.n} in slot ${flow.slot} was found at ${found}`)
      table.floats[(table.base(flow.slot) >> 1) + F_MESSAGES_IN]++
      flow.count++
    }
  }
  report(
    job.rounds,
    own.map(({ slot, count }) => ({ slot, count })),
  )
  // A thread that ended would be a dead one.
  parentPort?.on('message', () => {})
}

/** Looks up other threads' flows, and none, until told to stop; whatever is found must be whole. */
function read(): void {
  const { words } = table
  Atomics.add(job.signals, 1, 1)
  let rounds = 0
  const found = new Int32Array(KEY_WORDS)
  for (let n = 0; Atomics.load(job.signals, 0) === 0; n = (n + 1) & 0x3ff, rounds++) {
    const key = checkedKey(rounds & 3, n)
    const slot = table.find(key, 0)
    if (slot >= 0) {
      const base = table.base(slot)
      const version = Atomics.load(words, base + S_VERSION)
      for (let i = 0; i < KEY_WORDS; i++) found[i] = Atomics.load(words, base + S_KEY + i)
      if ((version & 1) === 0 && Atomics.load(words, base + S_VERSION) === version && !isWholeKey(found)) {
        faults.push(`slot ${slot} bears the torn key ${found.join()}`)
      }
    }
    key[KEY_PORTS] ^= 1
    if (table.find(key, 0) >= 0) faults.push('a key that nobody has inserted was found')
    if (rounds % 500 === 0) for (const entry of table.entries()) if (!isWholeKey(entry.key)) faults.push(`torn entry ${entry.key.join()}`)
    if (faults.length >= 10) break
  }
  report(rounds)
}

/** Makes all flows of a chain but the first move, by removing the first, again and again. */
function shift(chain: Int32Array[]): void {
  const [first, ...others] = chain
  for (let round = 0; round < job.rounds; round++) {
    const blocking = table.insert(first, 0, owner)
    const slots = others.map((key) => table.insert(key, 0, owner))
    Atomics.add(job.signals, 2, 1)
    table.remove(blocking, owner)
    Atomics.add(job.signals, 2, 1)
    for (const slot of slots) table.remove(slot, owner)
  }
  report(job.rounds)
  parentPort?.on('message', () => {})
}

/** Takes a lock, says so, and never gives it back. */
function hold(): void {
  const { words } = table
  const layout = geometry(words[H_CAPACITY], words[H_SHARDS])
  const lock = layout.locks + (job.lock ?? 0) * LOCK_WORDS
  acquire(words, lock, owner, new Registry(words, layout.registry))
  if (job.odd === true) beginWrite(words, lock)
  report(0)
  for (;;) Atomics.wait(job.signals, 0, 0, 1_000)
}

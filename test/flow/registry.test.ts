// Real threads: which number they get, and that the table learns of their death.
import { once } from 'node:events'
import type { Worker } from 'node:worker_threads'
import { describe, expect, it } from 'vitest'
import { ENTRY_GENERATION, ENTRY_START, ENTRY_THREAD, ENTRY_WORDS, MAX_OWNERS, OWNER_BITS } from '../../lib/flow/layout.ts'
import { Registry } from '../../lib/flow/registry.ts'
import { FlowTable } from '../../lib/flow/table.ts'
import { damage, layoutOf } from './consistency.ts'
import { checkedKey } from './stress-keys.ts'
import type { StressJob, StressReport } from './stress-worker.ts'
import { startWorker } from './worker-bundle.ts'

async function idleWorker(table: FlowTable, id: number): Promise<{ worker: Worker; owner: number }> {
  const signals = new Int32Array(new SharedArrayBuffer(12))
  const job: StressJob = { handle: table.handle, signals, role: 'idle', id, rounds: 0 }
  const worker = await startWorker(new URL('./stress-worker.ts', import.meta.url), job)
  const [report] = (await once(worker, 'message')) as [StressReport]
  return { worker, owner: report.owner }
}

describe('the registry', () => {
  it('gives every thread a number of its own, and knows which of them have ended', async () => {
    const table = FlowTable.create({ capacity: 8 })
    const registry = new Registry(table.words, layoutOf(table).registry)
    const owner = table.register()
    const workers = await Promise.all([1, 2, 3].map((id) => idleWorker(table, id)))
    expect(new Set([owner, ...workers.map((other) => other.owner)]).size).toBe(4)
    for (const other of workers) expect(registry.isAlive(other.owner)).toBe(true)
    expect(table.reap()).toBe(0)
    await workers[1].worker.terminate()
    expect(workers.map((other) => registry.isAlive(other.owner))).toEqual([true, false, true])
    expect(table.reap()).toBe(1)
    expect(table.find(checkedKey(2, 0), 0)).toBe(-1)
    expect(table.find(checkedKey(1, 0), 0)).toBeGreaterThanOrEqual(0)
    await Promise.all([workers[0].worker.terminate(), workers[2].worker.terminate()])
    expect(table.reap()).toBe(2)
    expect(damage(table)).toEqual([])
  })

  it('gives the entry of a dead thread to another under a new number, and still takes the dead one’s flows for a dead thread’s', async () => {
    const table = FlowTable.create({ capacity: 8 })
    const { words } = table
    const { registry: at } = layoutOf(table)
    const registry = new Registry(words, at)
    table.register()
    const first = await idleWorker(table, 1)
    await first.worker.terminate()
    // Every other entry belongs to a living thread: this one.
    for (let entry = 2; entry < MAX_OWNERS; entry++) {
      words[at + entry * ENTRY_WORDS + ENTRY_THREAD] = words[at + ENTRY_THREAD]
      words[at + entry * ENTRY_WORDS + ENTRY_START] = words[at + ENTRY_START]
    }
    const second = await idleWorker(table, 2)
    expect(second.owner).toBe(first.owner + (1 << OWNER_BITS))
    expect([first, second].map((other) => registry.isAlive(other.owner))).toEqual([false, true])
    expect(table.reap()).toBe(1)
    expect([...table.entries()].map((entry) => entry.owner)).toEqual([second.owner])
    // Now all entries are taken.
    const third = await startWorker(new URL('./stress-worker.ts', import.meta.url), { handle: table.handle, role: 'idle' })
    const [error] = await once(third, 'error')
    expect(error).toBeInstanceOf(RangeError)
    await second.worker.terminate()
  })

  it('takes over an entry whose thread died while it was being entered', () => {
    const table = FlowTable.create({ capacity: 8 })
    const { words } = table
    const { registry: at } = layoutOf(table)
    const registry = new Registry(words, at)
    words.fill(-0x3fffffff, at, at + MAX_OWNERS * ENTRY_WORDS)
    for (let entry = 0; entry < MAX_OWNERS; entry++) words[at + entry * ENTRY_WORDS + ENTRY_GENERATION] = 0
    expect(registry.isAlive(5)).toBe(false)
    expect(table.register()).toBe(1 << OWNER_BITS)
    expect(registry.isAlive(0)).toBe(false)
    expect(registry.isAlive(1 << OWNER_BITS)).toBe(true)
  })

  it('lets the main thread break a lock although it never returned to its event loop while the holder was dying', async () => {
    const table = FlowTable.create({ capacity: 64, shards: 1 })
    const owner = table.register()
    const signals = new Int32Array(new SharedArrayBuffer(12))
    const job: StressJob = { handle: table.handle, signals, role: 'holder', id: 1, rounds: 0, lock: 0, odd: true }
    const worker = await startWorker(new URL('./stress-worker.ts', import.meta.url), job)
    await once(worker, 'message')
    const ended = worker.terminate()
    expect(table.insert(checkedKey(0, 1), 0, owner)).toBeGreaterThanOrEqual(0)
    expect(table.recoveries).toBe(1)
    expect(damage(table)).toEqual([])
    await ended
  })
})

// Threads that die at a chosen step, without threads: several views of one table in this thread, each with a registration of its own, and
// shared-memory operations that throw. What is left in memory is what worker.terminate() leaves.
import { ENTRY_START, ENTRY_THREAD, ENTRY_WORDS, MAX_OWNERS, OWNER_BITS } from '../../lib/flow/layout.ts'
import { FlowTable } from '../../lib/flow/table.ts'
import { layoutOf } from './consistency.ts'

class Death extends Error {}

const start = startOfThisThread()
const otherStart = start ^ 1

function startOfThisThread(): number {
  const table = FlowTable.create({ capacity: 1, shards: 1 })
  table.register()
  return table.words[layoutOf(table).registry + ENTRY_START]
}

export interface SimulatedThread {
  readonly view: FlowTable
  readonly owner: number
  /** From now on nobody finds this thread in /proc. */
  die(): void
}

/** A view of the table that the table takes for another thread. */
export function newThread(table: FlowTable): SimulatedThread {
  const view = FlowTable.attach(table.handle)
  const { words } = view
  const { registry } = layoutOf(view)
  // `register` knows its thread again by id and start time: for a moment, no entry has this one's.
  const hidden: number[] = []
  for (let entry = registry; entry < registry + MAX_OWNERS * ENTRY_WORDS; entry += ENTRY_WORDS) {
    if (words[entry + ENTRY_THREAD] !== 0 && words[entry + ENTRY_START] === start) hidden.push(entry)
  }
  for (const entry of hidden) words[entry + ENTRY_START] = otherStart
  const owner = view.register()
  for (const entry of hidden) words[entry + ENTRY_START] = start
  const own = registry + (owner & ((1 << OWNER_BITS) - 1)) * ENTRY_WORDS
  return {
    view,
    owner,
    die() {
      words[own + ENTRY_START] = otherStart
    },
  }
}

/**
 * Runs the action, but the shared-memory write (Atomics.store, add, compareExchange) with number `step`, counted from 0, is not done: the
 * thread is gone before it.
 * @returns whether it came to that
 */
export function diesAt(step: number, action: () => void): boolean {
  const { store, add, compareExchange } = Atomics
  let left = step
  const count = (): void => {
    if (left-- === 0) throw new Death()
  }
  Object.assign(Atomics, {
    store: (array: Int32Array, index: number, value: number) => {
      count()
      return store(array, index, value)
    },
    add: (array: Int32Array, index: number, value: number) => {
      count()
      return add(array, index, value)
    },
    compareExchange: (array: Int32Array, index: number, expected: number, value: number) => {
      count()
      return compareExchange(array, index, expected, value)
    },
  })
  try {
    action()
    return false
  } catch (error) {
    if (error instanceof Death) return true
    throw error
  } finally {
    Object.assign(Atomics, { store, add, compareExchange })
  }
}

/** Runs the action, and in the middle of it, right after its Atomics.load with number `step`, what another thread does meanwhile. */
export function interrupted<T>(step: number, action: () => T, meanwhile: () => void): T {
  const { load } = Atomics
  let left = step
  const restore = (): void => {
    Object.assign(Atomics, { load })
  }
  Object.assign(Atomics, {
    load: (array: Int32Array, index: number) => {
      const value = load(array, index)
      if (left-- === 0) {
        restore()
        meanwhile()
      }
      return value
    },
  })
  try {
    return action()
  } finally {
    restore()
  }
}

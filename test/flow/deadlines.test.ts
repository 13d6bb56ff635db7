// The heap of deadlines against a plain list.
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type Deadline, DeadlineHeap } from '../../lib/flow/deadlines.ts'

const deadline = (dueMs: number): Deadline => ({ dueMs, heapIndex: -1 })

const operations = fc.array(
  fc.oneof(
    fc.record({ is: fc.constant('add' as const), dueMs: fc.integer({ min: 0, max: 50 }) }),
    fc.record({ is: fc.constant('update' as const), which: fc.nat(), dueMs: fc.integer({ min: 0, max: 50 }) }),
    fc.record({ is: fc.constant('remove' as const), which: fc.nat() }),
  ),
  { maxLength: 200 },
)

describe('DeadlineHeap', () => {
  it('always shows the earliest deadline, however they are added, moved and removed', () => {
    fc.assert(
      fc.property(operations, (steps) => {
        const heap = new DeadlineHeap<Deadline>()
        const list: Deadline[] = []
        for (const step of steps) {
          if (step.is === 'add') {
            const item = deadline(step.dueMs)
            heap.add(item)
            list.push(item)
          } else if (list.length > 0) {
            const at = step.which % list.length
            if (step.is === 'update') heap.update(list[at], step.dueMs)
            else {
              const [item] = list.splice(at, 1)
              expect(heap.remove(item)).toBe(true)
              expect(item.heapIndex).toBe(-1)
            }
          }
          expect(heap.size).toBe(list.length)
          expect(heap.peek()?.dueMs).toBe(list.length === 0 ? undefined : Math.min(...list.map(({ dueMs }) => dueMs)))
        }
        const drained: number[] = []
        for (let item = heap.peek(); item !== undefined; item = heap.peek()) {
          drained.push(item.dueMs)
          heap.remove(item)
        }
        expect(drained).toEqual(list.map(({ dueMs }) => dueMs).sort((a, b) => a - b))
      }),
    )
  })

  it('refuses an object that is in a heap, and to move one that is not in this one', () => {
    const heap = new DeadlineHeap<Deadline>()
    const other = new DeadlineHeap<Deadline>()
    const item = deadline(1)
    heap.add(item)
    expect(() => heap.add(item)).toThrow(TypeError)
    expect(() => other.update(item, 2)).toThrow(TypeError)
    expect(() => heap.update(deadline(1), 2)).toThrow(TypeError)
    expect(other.remove(item)).toBe(false)
    expect(heap.remove(item)).toBe(true)
    expect(heap.remove(item)).toBe(false)
  })
})

// An indexed binary min-heap of deadlines: one lazy deadline for each flow, moved in place. Knows no clock and no flow.

/** What the heap orders. Both fields belong to the heap while the object is in it: change `dueMs` through `update`. */
export interface Deadline {
  /** When it is due, in milliseconds of whatever clock the caller uses. */
  dueMs: number
  /** Place in the heap, -1 outside of any. An object is in at most one heap. */
  heapIndex: number
}

/** `add`, `update` and `remove` take O(log n), `peek` O(1); none allocates beyond the growth of one array. */
export class DeadlineHeap<T extends Deadline> {
  readonly #heap: T[] = []

  get size(): number {
    return this.#heap.length
  }

  /** The object due first, or undefined when the heap is empty. It stays in the heap. */
  peek(): T | undefined {
    return this.#heap[0]
  }

  /** @throws TypeError if the object is in a heap already. */
  add(item: T): void {
    if (item.heapIndex !== -1) throw new TypeError(`a deadline with heapIndex -1 is expected, got ${item.heapIndex}`)
    this.#heap.push(item)
    this.#rise(item, this.#heap.length - 1)
  }

  /** Moves an object of this heap to a new due time. @throws TypeError if it is not in this heap. */
  update(item: T, dueMs: number): void {
    if (this.#heap[item.heapIndex] !== item) throw new TypeError('the deadline is not in this heap')
    const later = dueMs > item.dueMs
    item.dueMs = dueMs
    if (later) this.#sink(item, item.heapIndex)
    else this.#rise(item, item.heapIndex)
  }

  /** Takes an object out; false if it was not in this heap. */
  remove(item: T): boolean {
    const at = item.heapIndex
    if (this.#heap[at] !== item) return false
    item.heapIndex = -1
    const last = this.#heap.pop() as T
    if (last === item) return true
    if (last.dueMs > item.dueMs) this.#sink(last, at)
    else this.#rise(last, at)
    return true
  }

  #rise(item: T, from: number): void {
    const heap = this.#heap
    let at = from
    while (at > 0) {
      const up = (at - 1) >> 1
      const parent = heap[up]
      if (parent.dueMs <= item.dueMs) break
      heap[at] = parent
      parent.heapIndex = at
      at = up
    }
    heap[at] = item
    item.heapIndex = at
  }

  #sink(item: T, from: number): void {
    const heap = this.#heap
    const size = heap.length
    let at = from
    for (let down = 2 * at + 1; down < size; down = 2 * at + 1) {
      let child = heap[down]
      if (down + 1 < size) {
        const right = heap[down + 1]
        if (right.dueMs < child.dueMs) {
          child = right
          down++
        }
      }
      if (child.dueMs >= item.dueMs) break
      heap[at] = child
      child.heapIndex = at
      at = down
    }
    heap[at] = item
    item.heapIndex = at
  }
}

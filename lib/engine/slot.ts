// A flow's slot in the table: where its words and counters are, and what is left of them when the flow has ended.
import { SLOT_WORDS } from '../flow/layout.ts'
import type { FlowTable } from '../flow/table.ts'

export class Slot {
  readonly index: number
  /** The table's memory, or a private copy once detached. */
  words: Int32Array
  /** Add S_* of flow/layout.ts. */
  base: number
  floats: Float64Array
  /** Add F_*. */
  floatBase: number

  constructor(table: FlowTable, index: number) {
    this.index = index
    this.words = table.words
    this.base = table.base(index)
    this.floats = table.floats
    this.floatBase = this.base >> 1
  }

  /** The slot may be taken by another flow at once: statistics and addresses go on reading what it held. */
  detach(): void {
    this.words = this.words.slice(this.base, this.base + SLOT_WORDS)
    this.floats = this.floats.slice(this.floatBase, this.floatBase + SLOT_WORDS / 2)
    this.base = 0
    this.floatBase = 0
  }
}

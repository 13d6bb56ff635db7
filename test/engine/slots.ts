// A slot of an open flow, for the parts that work on one.
import { Slot } from '../../lib/engine/slot.ts'
import { S_MAX_MESSAGE, S_PATH_MTU, S_SND_MAX, S_SND_NXT, S_SND_UNA, S_SND_WND } from '../../lib/flow/layout.ts'
import { FlowTable } from '../../lib/flow/table.ts'
import { KEY_WORDS } from '../../lib/native/layout.ts'

/** IP and TCP, with timestamps. */
export const HEADERS = 52

/** What is sent and not acknowledged lies between `una` and `max`; the path takes 1 500 bytes. */
export function slotOf(una = 0, max = 0): Slot {
  const table = FlowTable.create({ capacity: 1 })
  const slot = new Slot(table, table.insert(new Int32Array(KEY_WORDS).fill(1), 0, table.register()))
  const { words: w, base: b } = slot
  w[b + S_SND_UNA] = una
  w[b + S_SND_NXT] = w[b + S_SND_MAX] = max
  w[b + S_SND_WND] = 1 << 20
  w[b + S_PATH_MTU] = 1500
  w[b + S_MAX_MESSAGE] = 1500 - HEADERS
  return slot
}

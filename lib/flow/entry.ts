// A flow's slot, read by somebody who need not be its owner.

import { KEY_WORDS } from '../native/layout.ts'
import {
  F_BYTES_IN,
  F_BYTES_OUT,
  F_DROPPED_IN,
  F_DROPPED_OUT,
  F_LAST_HEARD_MS,
  F_LAST_SENT_MS,
  F_MESSAGES_IN,
  F_MESSAGES_OUT,
  F_OPENED_MS,
  FREE,
  S_KEY,
  S_OWNER,
  S_STATE,
  S_VERSION,
} from './layout.ts'
import { validate } from './locks.ts'

/** A flow as it was at one moment; the counters may be some messages apart from each other when another thread owns it. */
export interface FlowEntry {
  slot: number
  /** OPENING, OPEN, CLOSING or TIME_WAIT. */
  state: number
  /** Owner number of the thread whose flow it is. */
  owner: number
  /** Nine words, a copy. */
  key: Int32Array
  messagesIn: number
  bytesIn: number
  messagesOut: number
  bytesOut: number
  droppedIn: number
  droppedOut: number
  /** Milliseconds of the owner's clock, as are the two below. */
  lastHeardMs: number
  lastSentMs: number
  openedMs: number
}

/**
 * Copies the slot that starts at word `base`; all of it belongs to one flow, because the version is the same before and after.
 * @returns undefined for a free slot, and for one that changed hands meanwhile
 */
export function readEntry(words: Int32Array, floats: Float64Array, slot: number, base: number): FlowEntry | undefined {
  const version = Atomics.load(words, base + S_VERSION)
  if ((version & 1) !== 0) return undefined
  const state = Atomics.load(words, base + S_STATE)
  if (state === FREE) return undefined
  const counters = base >> 1
  const entry: FlowEntry = {
    slot,
    state,
    owner: words[base + S_OWNER],
    key: words.slice(base + S_KEY, base + S_KEY + KEY_WORDS),
    messagesIn: floats[counters + F_MESSAGES_IN],
    bytesIn: floats[counters + F_BYTES_IN],
    messagesOut: floats[counters + F_MESSAGES_OUT],
    bytesOut: floats[counters + F_BYTES_OUT],
    droppedIn: floats[counters + F_DROPPED_IN],
    droppedOut: floats[counters + F_DROPPED_OUT],
    lastHeardMs: floats[counters + F_LAST_HEARD_MS],
    lastSentMs: floats[counters + F_LAST_SENT_MS],
    openedMs: floats[counters + F_OPENED_MS],
  }
  return validate(words, base + S_VERSION) === version ? entry : undefined
}

// What all flows of one tunnel have in common: memory, counters, warnings.
import { BufferPool } from './buffers.ts'
import type { Cipher } from './keys.ts'
import { FlowCounters, noDrops, type TunnelDrops } from './stats.ts'
import type { Warnings } from './warnings.ts'

/** A flow has opened, its handshakes complete, or has ended. */
export interface FlowChange {
  readonly state: 'open' | 'closed'
  readonly localAddress: string
  readonly localPort: number
  readonly remoteAddress: string
  readonly remotePort: number
  /** With 'closed': why, in words. */
  readonly reason?: string
}

export class Shared {
  readonly pool = new BufferPool()
  readonly drops: TunnelDrops = noDrops()
  /** Sums of the flows that have ended. */
  readonly ended = new FlowCounters()
  readonly warnings: Warnings
  readonly tellFlow: (change: FlowChange) => void
  /** Of the newest flow. */
  encrypted: Cipher | 'none' | undefined
  peersTotal = 0
  flowsTotal = 0
  reconnects = 0
  /** Held for flows that are not open. */
  waitingBytes = 0
  #lastId = 0

  constructor(warnings: Warnings, tellFlow: (change: FlowChange) => void) {
    this.warnings = warnings
    this.tellFlow = tellFlow
  }

  nextId(): number {
    return ++this.#lastId
  }
}

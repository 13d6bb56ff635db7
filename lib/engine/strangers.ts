// Peers of a listener with a key that have not shown it. They meet an ordinary TCP server that reads, says nothing and ends when they end, or when its
// patience does; ByteStream acknowledges as a kernel would. The application never hears of them.

import type { Clock } from '../clock.ts'
import type { Channel } from '../transport.ts'

/** Web servers wait between 20 and 60 s for a request. Less than `keepAliveMs`, so that nobody is asked for a sign of life. */
const PATIENCE_MS = 40_000
const MAX_STRANGERS = 4096
/** Room in the receive buffer that they believe in, of which half is advertised: tcp_rmem[1]. */
const ROOM = 131_072

type Visitor = Pick<Channel, 'attach' | 'end' | 'release' | 'ref' | 'unref'>

export class Strangers {
  readonly #clock: Clock
  readonly #patienceMs: number
  /** How to send each away, oldest first. */
  readonly #visitors = new Map<Visitor, { leave(): void; stopWaiting(): void }>()

  /** @param idleTimeoutMs of the flows, 0 for none: it would end with a reset, so patience ends first */
  constructor(clock: Clock, idleTimeoutMs: number) {
    this.#clock = clock
    this.#patienceMs = idleTimeoutMs > 0 ? Math.min(PATIENCE_MS, idleTimeoutMs / 2) : PATIENCE_MS
  }

  /** Takes in a flow that is about to open. Where there are too many the one that came first is sent away, so that a flood keeps nobody out. */
  admit(flow: Visitor): void {
    if (this.#visitors.size >= MAX_STRANGERS) this.#visitors.values().next().value?.leave()
    const leave = () => {
      if (this.#forget(flow)) flow.end(() => flow.release())
    }
    this.#visitors.set(flow, { leave, stopWaiting: this.#clock.after(this.#patienceMs, leave) })
    flow.unref()
    flow.attach({ onTrain() {}, room: () => ROOM, onEnd: leave, onClose: () => this.#forget(flow), onDrop() {}, onMtu() {} })
  }

  /** It has shown the key: the application's sink takes over. */
  recognise(flow: Visitor): void {
    if (this.#forget(flow)) flow.ref()
  }

  /** The listener closes. */
  dismiss(): void {
    for (const { leave } of [...this.#visitors.values()]) leave()
  }

  #forget(flow: Visitor): boolean {
    this.#visitors.get(flow)?.stopWaiting()
    return this.#visitors.delete(flow)
  }
}

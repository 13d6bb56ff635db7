// The statistics of one flow as its stream shows them. Reads the flow's words, live or as they were when the flow ended.

import type { Clock } from '../clock.ts'
import {
  F_BYTES_IN,
  F_BYTES_OUT,
  F_DROPPED_IN,
  F_DROPPED_OUT,
  F_LAST_HEARD_MS,
  F_MESSAGES_IN,
  F_MESSAGES_OUT,
  S_DIALECT,
  S_PATH_MTU,
  S_SET_BACKS,
} from '../flow/layout.ts'
import type { CaptureMode } from '../link/capture.ts'
import type { LinkMode } from '../link/sender.ts'
import type { CaptureStats, ConnStats, FramingStats, Guard, Rejected } from '../stats.ts'
import { DIALECT_NATIVE, DIALECT_TCP, DIALECT_TCPRAW, type Dialect } from '../wire/dialect.ts'
import type { LinkChoice } from './link-choice.ts'
import type { Slot } from './slot.ts'

export class FlowStats implements ConnStats {
  readonly #at: Slot
  readonly #clock: Clock
  readonly #captures: CaptureStats
  readonly capture: CaptureMode
  readonly #link: LinkChoice
  guard: Guard = 'filter'

  readonly framing: FramingStats | undefined

  constructor(at: Slot, clock: Clock, capture: CaptureMode, link: LinkChoice, captures: CaptureStats, framing: FramingStats | undefined) {
    this.framing = framing
    this.#captures = captures
    this.#at = at
    this.#clock = clock
    this.capture = capture
    this.#link = link
  }

  get link(): LinkMode {
    return this.#link.why === undefined ? 'packet' : 'raw'
  }
  get linkReason(): string | undefined {
    return this.#link.why
  }

  get messagesIn(): number {
    return this.#float(F_MESSAGES_IN)
  }
  get bytesIn(): number {
    return this.#float(F_BYTES_IN)
  }
  get messagesOut(): number {
    return this.#float(F_MESSAGES_OUT)
  }
  get bytesOut(): number {
    return this.#float(F_BYTES_OUT)
  }
  get droppedIn(): number {
    return this.#float(F_DROPPED_IN)
  }
  get droppedOut(): number {
    return this.#float(F_DROPPED_OUT)
  }
  get setBacks(): number {
    return this.#at.words[this.#at.base + S_SET_BACKS]
  }
  get pathMtu(): number {
    return this.#at.words[this.#at.base + S_PATH_MTU]
  }
  get kernelDrops(): number {
    return this.#captures.kernelDrops
  }
  get rejected(): Rejected {
    return this.#captures.rejected
  }
  get idleMs(): number {
    return Math.max(0, Math.round(this.#clock.now() - this.#float(F_LAST_HEARD_MS)))
  }
  get dialect(): Dialect | undefined {
    switch (this.#at.words[this.#at.base + S_DIALECT]) {
      case DIALECT_NATIVE:
        return 'native'
      case DIALECT_TCPRAW:
        return 'tcpraw'
      case DIALECT_TCP:
        return 'tcp'
      default:
        return undefined
    }
  }

  #float(index: number): number {
    return this.#at.floats[this.#at.floatBase + index]
  }
}

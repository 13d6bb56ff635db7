// Messages of one UDP connection on their way out: grouped into trains, put into the socket's outbox as far as that has room. It knows no peer and no handshake.
import type { Outbox, TrainOwner } from '../link/outbox.ts'
import type { Outgoing } from '../transport.ts'
import { CONTROL_BYTES } from './control.ts'
import type { Departing } from './host.ts'

const NONE: readonly Outgoing[] = []

export class Departures implements Departing, TrainOwner {
  marked = false
  readonly outbox: Outbox
  /** Messages and bytes that the kernel has taken, or is going to be asked to take. */
  messages = 0
  bytes = 0
  readonly #onRefused: (errno: number, size: number) => void
  #waiting: readonly Outgoing[] = NONE
  #at = 0
  /** Trains in the outbox. */
  #underWay = 0
  #done: (() => void) | undefined

  /** @param onRefused the kernel does not take one message of that size */
  constructor(outbox: Outbox, onRefused: (errno: number, size: number) => void) {
    this.outbox = outbox
    this.#onRefused = onRefused
  }

  /** One call at a time; the caller marks this for the next flush. */
  send(messages: readonly Outgoing[], done: () => void): void {
    this.#waiting = messages
    this.#at = 0
    this.#done = done
  }

  fill(): void {
    while (this.#at < this.#waiting.length && this.outbox.makeRoom()) this.#addTrain()
    this.outbox.transmit()
  }

  /** Adds a control datagram. @returns false when there is no room: it is as lost as any */
  control(datagram: Uint8Array): boolean {
    if (!this.outbox.makeRoom()) return false
    this.outbox.open(undefined, 1, CONTROL_BYTES)
    this.outbox.add(datagram)
    return true
  }

  trainDone(): void {
    this.#underWay--
    if (this.#underWay > 0 || this.#at < this.#waiting.length) return
    const done = this.#done
    this.#done = undefined
    this.#waiting = NONE
    this.#at = 0
    done?.()
  }

  segmentRefused(errno: number, size: number): void {
    this.messages--
    this.bytes -= size
    this.#onRefused(errno, size)
  }

  /** As many messages as follow each other and are of one size, or shorter: the end of a buffer always ends a datagram. */
  #addTrain(): void {
    const first = this.#waiting[this.#at]
    const size = segmentOf(first)
    let end = this.#at
    let segments = 0
    for (; end < this.#waiting.length; end++) {
      const next = this.#waiting[end]
      if (next.length === 0 || (segmentOf(next) !== size && next.length > size)) break
      segments += Math.ceil(next.length / size)
    }
    const empty = end === this.#at
    this.#underWay++
    this.outbox.open(this, empty ? 1 : segments, size)
    for (let i = this.#at; i < end; i++) {
      this.outbox.add(this.#waiting[i])
      this.bytes += this.#waiting[i].length
    }
    this.messages += empty ? 1 : segments
    this.#at = empty ? end + 1 : end
  }
}

/** Bytes of each message of a run, or of the one message. */
function segmentOf({ length, segmentSize }: Outgoing): number {
  return segmentSize !== undefined && segmentSize < length ? segmentSize : length
}

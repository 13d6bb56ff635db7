// How a UDP connection ends in good order: our close, repeated until it is answered or clearly never will be, and the peer's with its grace. It sends nothing
// itself: it says when what is due.

/** Repeats at 0.2, 0.6, 1.4, 3 s, as over fake TCP; at 4.6 s the peer is taken for gone. */
const REPEAT_MS = 200
const REPEATS = 4
/** How long messages that were reordered behind the peer's close, or are lost, are waited for. */
const GRACE_MS = 20
/** How long a connection whose stream has closed answers the peer's close. */
const LINGER_MS = 1000

const NEVER = Number.POSITIVE_INFINITY

export class Ending {
  /** Our close was answered, or given up. */
  answered = false
  /** The peer's close has come, and its grace is over: what comes now is late. */
  peerEnded = false
  #done: (() => void) | undefined
  #sent = 0
  #closeDue = NEVER
  #peerClosed = false
  #graceDue = NEVER
  #lingerDue = NEVER

  get asked(): boolean {
    return this.#sent > 0
  }

  get dueMs(): number {
    return Math.min(this.#closeDue, this.#graceDue, this.#lingerDue)
  }

  /** Our close goes now. */
  begin(now: number, done: () => void): void {
    this.#done = done
    this.#sent = 1
    this.#closeDue = now + REPEAT_MS
  }

  /** The peer knows, or nobody is there any more. */
  answer(): void {
    if (!this.asked || this.answered) return
    this.answered = true
    this.#closeDue = NEVER
    const done = this.#done
    this.#done = undefined
    done?.()
  }

  /** The peer's close has come. @param complete whether all has arrived that it has sent */
  peerCloses(now: number, complete: boolean): void {
    if (this.#peerClosed) return
    this.#peerClosed = true
    this.#graceDue = complete ? now : now + GRACE_MS
  }

  /** The stream is gone. */
  linger(now: number): void {
    this.#lingerDue = now + LINGER_MS
  }

  /** @returns what is due: our close once more, the end of the peer's messages, or that the peer is gone; that the connection is over */
  check(now: number): 'close' | 'gone' | 'end' | 'over' | undefined {
    if (now >= this.#lingerDue) return 'over'
    if (now >= this.#graceDue) {
      this.#graceDue = NEVER
      this.peerEnded = true
      return 'end'
    }
    if (now < this.#closeDue) return undefined
    if (this.#sent > REPEATS) return 'gone'
    this.#closeDue = now + REPEAT_MS * Math.min(2 ** this.#sent++, 8)
    return 'close'
  }
}

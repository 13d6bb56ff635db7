// What all UDP connections of a thread share: when what they have written leaves, and one timer for all their deadlines. It knows no datagrams.
import { type Clock, systemClock } from '../clock.ts'
import { guarded } from '../errors.ts'
import { type Deadline, DeadlineHeap } from '../flow/deadlines.ts'
import type { Outbox } from '../link/outbox.ts'

/** Whatever has something to send. */
export interface Departing {
  /** Belongs to the host. */
  marked: boolean
  readonly outbox: Outbox
  /** Puts into the outbox what fits, and transmits. */
  fill(): void
}

export interface Waiting extends Deadline {
  /** Its time has come. @returns the next one; Infinity: none */
  onDue(now: number): number
}

/** Whatever has a peer that should be told when the process ends. */
export interface Leaving {
  onExit(): void
}

/** Flushes that may follow each other in microtasks before the event loop has its turn. */
const FLUSHES_A_TURN = 4

export class UdpHost {
  readonly clock: Clock = systemClock
  #deferred: Array<() => void> = []
  #flushing = false
  #marked: Departing[] = []
  #planned = false
  #flushes = 0
  #inBatch = 0
  readonly #open = new Set<Leaving>()
  readonly #onExit = () => {
    for (const one of this.#open) one.onExit()
  }
  readonly #deadlines = new DeadlineHeap<Waiting>()
  #armed = Number.POSITIVE_INFINITY
  #disarm: () => void = () => {}

  /** Runs `run` before what this tick has written leaves. */
  flush(): void {
    if (this.#inBatch === 0 && !this.#flushing) this.#flush()
  }

  defer(run: () => void): void {
    this.#deferred.push(run)
    this.#plan()
  }

  /** It is asked to fill its outbox at the end of this tick, or of the batch of arrivals that is being delivered. */
  mark(one: Departing): void {
    if (one.marked) return
    one.marked = true
    this.#marked.push(one)
    this.#plan()
  }

  /** Delivers a batch of arrivals: what is answered within leaves at its end, rather than a tick later. */
  deliver(batch: () => void): void {
    this.#inBatch++
    this.#flushes = 0
    try {
      batch()
      if (this.#inBatch === 1 && !this.#planned && this.#waiting) this.#flush()
    } finally {
      this.#inBatch--
    }
  }

  /** `one` is told when the process exits, if it has not left before. */
  enter(one: Leaving): void {
    if (this.#open.size === 0) process.on('exit', this.#onExit)
    this.#open.add(one)
  }

  leave(one: Leaving): void {
    if (this.#open.delete(one) && this.#open.size === 0) process.off('exit', this.#onExit)
  }

  /** `one` is due at `dueMs` of the clock, or earlier as was said before. */
  schedule(one: Waiting, dueMs: number): void {
    if (one.heapIndex === -1) {
      one.dueMs = dueMs
      this.#deadlines.add(one)
    } else if (dueMs < one.dueMs) this.#deadlines.update(one, dueMs)
    else return
    this.#arm(dueMs)
  }

  forget(one: Waiting): void {
    this.#deadlines.remove(one)
  }

  get #waiting(): boolean {
    return this.#marked.length > 0 || this.#deferred.length > 0
  }

  #plan(): void {
    if (this.#planned || this.#inBatch > 0) return
    this.#planned = true
    if (this.#flushes < FLUSHES_A_TURN) process.nextTick(() => this.#flush())
    else {
      this.#flushes = 0
      setImmediate(() => this.#flush())
    }
  }

  #flush(): void {
    // Planned until the end: who waits for room marks itself without planning the next one.
    this.#planned = true
    this.#flushing = true
    const deferred = this.#deferred
    this.#deferred = []
    for (const run of deferred) guarded(run)
    const marked = this.#marked
    this.#marked = []
    for (const one of marked) {
      one.marked = false
      one.fill()
    }
    for (const one of marked) one.outbox.settle()
    this.#planned = false
    this.#flushing = false
    this.#flushes++
    if (this.#waiting) {
      const inBatch = this.#inBatch
      this.#inBatch = 0
      this.#plan()
      this.#inBatch = inBatch
    }
  }

  #arm(dueMs: number): void {
    if (dueMs >= this.#armed) return
    this.#disarm()
    this.#armed = dueMs
    this.#disarm = this.clock.after(Math.max(1, Math.ceil(dueMs - this.clock.now())), () => this.#onTimer())
  }

  #onTimer(): void {
    const now = this.clock.now()
    this.#armed = Number.POSITIVE_INFINITY
    this.#flushes = 0
    for (let one = this.#deadlines.peek(); one !== undefined && one.dueMs <= now; one = this.#deadlines.peek()) {
      const next = one.onDue(now)
      if (one.heapIndex === -1) continue // forgotten meanwhile
      if (next === Number.POSITIVE_INFINITY) this.#deadlines.remove(one)
      else this.#deadlines.update(one, Math.max(next, now + 1))
    }
    const next = this.#deadlines.peek()
    if (next !== undefined) this.#arm(next.dueMs)
  }
}

let own: UdpHost | undefined

/** That of this thread. */
export function udpHost(): UdpHost {
  own ??= new UdpHost()
  return own
}

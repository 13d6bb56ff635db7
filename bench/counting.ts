// Counts what arrives on all flows, and by the receiver's own clock how fast.
import { setTimeout as delay } from 'node:timers/promises'
import type { Contender, Handler, Peer } from './contenders/contender.ts'
import { cpuSeconds } from './sending.ts'

/** What a receiver saw of a load. */
export interface Received {
  readonly messages: number
  /** Over the time from the first to the last message. */
  readonly messagesPerSecond: number
  readonly cpuSeconds: number
}

/** Nothing for so long: all that will come has come. */
const QUIET_MS = 60
const QUIET_LIMIT_MS = 3000
/** Reading the clock for each message would be a cost of its own. */
const CLOCK_EVERY = 16

export class Counter {
  readonly #peers: readonly Peer[]
  readonly #size: number
  readonly #cpu = process.cpuUsage()
  #events = 0
  #bytes = 0
  #wrongSize = 0
  #firstMs = 0
  #lastMs = 0
  #lastBytes = 0

  /** Counts messages of `size` bytes from now on. */
  constructor(peers: readonly Peer[], size: number, delivers: Contender['delivers']) {
    this.#peers = peers
    this.#size = size
    const handler = { messages: this.#onMessage, trains: this.#onTrain, bytes: this.#onBytes }[delivers]
    for (const peer of peers) peer.receive(handler)
  }

  /** Waits until nothing more arrives and tells what did. */
  async stop(): Promise<Received> {
    const limit = performance.now() + QUIET_LIMIT_MS
    for (let seen = -1, quietSince = 0; performance.now() < limit; await delay(10)) {
      if (seen !== this.#events) {
        seen = this.#events
        quietSince = performance.now()
      } else if (performance.now() - quietSince >= QUIET_MS) break
    }
    const cpu = cpuSeconds(this.#cpu)
    for (const peer of this.#peers) peer.receive(() => {})
    if (this.#wrongSize > 0) throw new Error(`${this.#wrongSize} of ${this.#events} arrivals did not hold messages of ${this.#size} bytes`)
    const seconds = (this.#lastMs - this.#firstMs) / 1000
    return {
      messages: Math.floor(this.#bytes / this.#size),
      messagesPerSecond: seconds > 0 ? this.#lastBytes / this.#size / seconds : 0,
      cpuSeconds: cpu,
    }
  }

  readonly #onMessage: Handler = (message) => {
    if (this.#events++ === 0) this.#firstMs = performance.now()
    this.#bytes += message.length
    if (message.length !== this.#size) this.#wrongSize++
    if (this.#events % CLOCK_EVERY === 0) this.#mark()
  }

  readonly #onTrain: Handler = (train, segmentSize) => {
    // A train of one tells its own length.
    if (segmentSize !== this.#size || train.length % this.#size !== 0) this.#wrongSize++
    this.#onBytes(train)
  }

  readonly #onBytes: Handler = (bytes) => {
    if (this.#events++ === 0) this.#firstMs = performance.now()
    this.#bytes += bytes.length
    this.#mark()
  }

  #mark(): void {
    this.#lastMs = performance.now()
    this.#lastBytes = this.#bytes
  }
}

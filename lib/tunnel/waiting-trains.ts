// Datagrams that wait for a flow to open: few, and not for long.
import { datagramsIn } from './messages.ts'
import type { TunnelDrops } from './stats.ts'
import type { TunnelFlow } from './tunnel-flow.ts'

const MAX_BYTES = 256 << 10
const MAX_TRAINS = 64
/** What has waited longer is of no use to anybody: its sender has sent it again. */
const MAX_AGE_MS = 3000

interface Waiting {
  readonly sinceMs: number
  readonly session: number
  readonly bytes: Buffer
  readonly segment: number
  readonly messages: number
}

export class WaitingTrains {
  readonly #drops: TunnelDrops
  #trains: Waiting[] = []
  #bytes = 0

  constructor(drops: TunnelDrops) {
    this.#drops = drops
  }

  get empty(): boolean {
    return this.#trains.length === 0
  }

  /** Copies. What came first goes first when it is too much. */
  push(session: number, memory: Uint8Array, offset: number, length: number, segment: number): void {
    const messages = datagramsIn(length, segment)
    const bytes = Buffer.from(memory.subarray(offset, offset + length))
    this.#trains.push({ sinceMs: performance.now(), session, bytes, segment, messages })
    this.#bytes += length
    while (this.#trains.length > MAX_TRAINS || this.#bytes > MAX_BYTES) this.#drop()
  }

  /** Sends what is not too old. */
  flush(flow: TunnelFlow): void {
    const oldest = performance.now() - MAX_AGE_MS
    while (this.#trains.length > 0 && this.#trains[0].sinceMs < oldest) this.#drop()
    const trains = this.#trains
    this.#trains = []
    this.#bytes = 0
    for (const { session, bytes, segment } of trains) flow.send(session, bytes, 0, bytes.length, segment)
  }

  clear(): void {
    while (this.#trains.length > 0) this.#drop()
  }

  #drop(): void {
    const first = this.#trains.shift()
    if (first === undefined) return
    this.#bytes -= first.bytes.length
    this.#drops['no-flow'] += first.messages
  }
}

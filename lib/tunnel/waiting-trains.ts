// Datagrams that wait for a flow to open: few, and not for long.
import { datagramsIn } from './messages.ts'
import type { Shared } from './shared.ts'
import type { TunnelFlow } from './tunnel-flow.ts'

const MAX_BYTES = 256 << 10
/** Of all flows of a tunnel together: while the server cannot be reached, thousands of peers may go on sending. */
const MAX_BYTES_IN_ALL = 16 << 20
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
  readonly #shared: Pick<Shared, 'drops' | 'waitingBytes'>
  #trains: Waiting[] = []
  #bytes = 0

  constructor(shared: Pick<Shared, 'drops' | 'waitingBytes'>) {
    this.#shared = shared
  }

  get empty(): boolean {
    return this.#trains.length === 0
  }

  /** Copies. What came first is dropped first when it is too much. */
  push(session: number, memory: Uint8Array, offset: number, length: number, segment: number): void {
    const messages = datagramsIn(length, segment)
    const bytes = Buffer.from(memory.subarray(offset, offset + length))
    this.#trains.push({ sinceMs: performance.now(), session, bytes, segment, messages })
    this.#count(length)
    while (this.#trains.length > MAX_TRAINS || this.#bytes > MAX_BYTES) this.#drop()
    while (this.#trains.length > 0 && this.#shared.waitingBytes > MAX_BYTES_IN_ALL) this.#drop()
  }

  /** Drops what is too old. */
  expire(): void {
    const oldest = performance.now() - MAX_AGE_MS
    while (this.#trains.length > 0 && this.#trains[0].sinceMs < oldest) this.#drop()
  }

  /** Sends what is not too old. */
  flush(flow: TunnelFlow): void {
    this.expire()
    const trains = this.#trains
    this.#trains = []
    this.#count(-this.#bytes)
    for (const { session, bytes, segment } of trains) flow.send(session, bytes, 0, bytes.length, segment)
  }

  clear(): void {
    while (this.#trains.length > 0) this.#drop()
  }

  #drop(): void {
    const first = this.#trains.shift()
    if (first === undefined) return
    this.#count(-first.bytes.length)
    this.#shared.drops['no-flow'] += first.messages
  }

  #count(bytes: number): void {
    this.#bytes += bytes
    this.#shared.waitingBytes += bytes
  }
}

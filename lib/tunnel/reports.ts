// What the two ends of a flow tell each other once a second while there is traffic: how much was sent and has arrived, and the time. Pure.
// docs/wire.md specifies the bytes.

export const REPORT_BYTES = 31
const SENT = 0
const EXPECTED = 6
const RECEIVED = 12
const STAMP = 18
const ECHO = 22
const HELD = 26
const FLAGS = 30
/** The sender has heard nothing lately: please report. */
const ASKS = 1
/** Nothing to echo yet. */
const NO_ECHO = 0xffffffff
/** Reports over which the recent loss is taken. */
const RECENT = 10

/** One direction at one moment: messages sent so far, and how many different ones had arrived by then. */
interface Point {
  readonly expected: number
  readonly received: number
}

/** Loss of one direction. */
class Loss {
  #points: Point[] = []
  #lost = 0

  note(point: Point): void {
    this.#points.push(point)
    if (this.#points.length > RECENT + 1) this.#points.shift()
    this.#lost = Math.max(this.#lost, point.expected - point.received)
  }

  get newest(): Point {
    return this.#points.at(-1) ?? { expected: 0, received: 0 }
  }

  /** Messages lost so far. */
  get lost(): number {
    return this.#lost
  }

  /** Share lost lately, undefined before anything is known. */
  get recent(): number | undefined {
    const first = this.#points.length <= RECENT ? { expected: 0, received: 0 } : this.#points[0]
    const { expected, received } = this.newest
    const sent = expected - first.expected
    return sent > 0 ? Math.min(1, Math.max(0, 1 - (received - first.received) / sent)) : undefined
  }
}

export class Reports {
  readonly incoming = new Loss()
  readonly outgoing = new Loss()
  /** Smoothed as in RFC 6298; undefined before the first sample. */
  rttMs: number | undefined
  #peerStamp = 0
  /** When the peer's newest report came; undefined before the first. */
  #heardMs: number | undefined

  /**
   * @param sent messages sent before this report
   * @param nowMs of a clock that never goes back
   * @param asks for a report in return
   */
  encode(sent: number, nowMs: number, asks: boolean): Buffer {
    const bytes = Buffer.alloc(REPORT_BYTES)
    const { expected, received } = this.incoming.newest
    bytes.writeUIntBE(sent, SENT, 6)
    bytes.writeUIntBE(expected, EXPECTED, 6)
    bytes.writeUIntBE(received, RECEIVED, 6)
    bytes.writeUInt32BE(microseconds(nowMs), STAMP)
    bytes.writeUInt32BE(this.#peerStamp, ECHO)
    bytes.writeUInt32BE(this.#heardMs === undefined ? NO_ECHO : Math.min(NO_ECHO - 1, Math.round((nowMs - this.#heardMs) * 1000)), HELD)
    bytes[FLAGS] = asks ? ASKS : 0
    return bytes
  }

  /**
   * Takes the peer's report.
   *
   * @param sent messages sent by us so far
   * @param received different messages that had arrived before this one
   * @returns whether the peer asks for a report; undefined for what is no report, or says what cannot be
   */
  take(bytes: Buffer, sent: number, received: number, nowMs: number): boolean | undefined {
    if (bytes.length < REPORT_BYTES) return undefined
    const told: Point = { expected: bytes.readUIntBE(EXPECTED, 6), received: bytes.readUIntBE(RECEIVED, 6) }
    if (told.expected > sent || told.received > sent) return undefined
    const peerSent = bytes.readUIntBE(SENT, 6)
    const asks = (bytes[FLAGS] & ASKS) !== 0
    // Reports that have overtaken each other say nothing new.
    if (this.#heardMs !== undefined && peerSent <= this.incoming.newest.expected) return asks
    this.incoming.note({ expected: peerSent, received: Math.min(received, peerSent) })
    if (told.expected > this.outgoing.newest.expected) this.outgoing.note(told)
    this.#peerStamp = bytes.readUInt32BE(STAMP)
    this.#heardMs = nowMs
    this.#sample(bytes.readUInt32BE(ECHO), bytes.readUInt32BE(HELD), nowMs)
    return asks
  }

  #sample(echo: number, heldUs: number, nowMs: number): void {
    if (heldUs === NO_ECHO) return
    const ms = (((microseconds(nowMs) - echo) >>> 0) - heldUs) / 1000
    if (ms < 0 || ms > 60_000) return
    this.rttMs = this.rttMs === undefined ? ms : this.rttMs + (ms - this.rttMs) / 8
  }
}

function microseconds(nowMs: number): number {
  return Math.floor((nowMs * 1000) % 2 ** 32)
}

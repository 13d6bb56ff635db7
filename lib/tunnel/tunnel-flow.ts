// One flow whose handshake is done: trains of datagrams into it and out of it, reports, and whether the other end is still there. It knows sessions
// by number only, and nothing of UDP.
import { FakeTcpConn } from '../conn.ts'
import { view } from '../message-arena.ts'
import type { NativeTunnelCodec } from '../native/binding.ts'
import {
  CODEC_COUNTERS,
  CODEC_FORGED,
  CODEC_REPLAYED,
  CODEC_TRUNCATED,
  RUN_LENGTH,
  RUN_MESSAGES,
  RUN_OFFSET,
  RUN_SEGMENT,
  RUN_SESSION,
  RUN_TYPE,
  RUN_WORDS,
} from '../native/layout.ts'
import { BUFFER_BYTES } from './buffers.ts'
import { BIND, CLOSE, DATA, datagramsIn, decodeSessions, encodeSessions, REPORT, SESSIONS_PER_MESSAGE } from './messages.ts'
import { Pulse, type PulseLimits } from './pulse.ts'
import { Reports } from './reports.ts'
import type { Shared } from './shared.ts'
import { FlowCounters } from './stats.ts'

/** Runs of one unpack call; a train of messages that all differ needs more than one call. */
const RUNS = 64
/** Bytes that wait for the end of the turn. */
const FLUSH_BYTES = 512 << 10
/** What WireGuard adds to an inner packet: a header of 16 bytes and a tag of 16. It pads, but never beyond its MTU. */
const WIREGUARD_OVERHEAD = 32

/** Who has the conversations. */
export interface FlowSink {
  /** Datagrams of one session; `length` 0: one empty datagram. The memory is somebody else's again after `onTrainEnd`. */
  onData(flow: TunnelFlow, session: number, memory: Uint8Array, offset: number, length: number, segment: number): void
  /** All of one train has been told. */
  onTrainEnd(): void
  onClose(flow: TunnelFlow, sessions: readonly number[]): void
  onBind(flow: TunnelFlow, sessions: readonly number[]): void
}

/** The peer's handshake message: when it comes again it is answered again, or ignored. */
export interface HandshakeRepeat {
  readonly message: Buffer
  readonly answer: Buffer | undefined
}

export interface TunnelFlowParts extends PulseLimits {
  /** In the tunnel's statistics. */
  readonly id: number
  readonly shared: Shared
  readonly conn: FakeTcpConn
  readonly codec: NativeTunnelCodec
  readonly sink: FlowSink
  readonly repeat: HandshakeRepeat
  /** Once. */
  onEnd(flow: TunnelFlow, reason: string): void
}

export class TunnelFlow {
  readonly id: number
  readonly conn: FakeTcpConn
  readonly counters = new FlowCounters()
  readonly #shared: Shared
  readonly #codec: NativeTunnelCodec
  readonly #sink: FlowSink
  readonly #repeat: HandshakeRepeat
  readonly #onEnd: TunnelFlowParts['onEnd']
  readonly #runs = new Int32Array(RUNS * RUN_WORDS)
  readonly #codecCounters = new Float64Array(CODEC_COUNTERS)
  readonly #codecSeen = new Float64Array(CODEC_COUNTERS)
  readonly #reports = new Reports()
  readonly #pulse: Pulse
  #sent = 0
  #received = 0
  /** Nothing is sent any more. */
  #closing = false
  /** Why we close, if we do. */
  #reason: string | undefined
  /** Nothing is taken any more. */
  #ended = false

  constructor({ id, shared, conn, codec, sink, repeat, onEnd, ...limits }: TunnelFlowParts) {
    this.id = id
    this.#shared = shared
    this.conn = conn
    this.#codec = codec
    this.#sink = sink
    this.#repeat = repeat
    this.#pulse = new Pulse(limits)
    this.#onEnd = onEnd
    conn
      .on('error', (error) => this.end(error.message))
      .on('end', () => this.end(this.#reason ?? 'the other end has closed it'))
      .on('close', () => this.end(this.#reason ?? 'closed'))
    conn.on('drop', ({ reason, count = 1 }) => {
      shared.drops[reason === 'message-size' ? 'message-size' : 'send-refused'] += count
    })
  }

  get state(): 'open' | 'closing' {
    return this.#closing ? 'closing' : 'open'
  }

  /** A message has come: it is no recorded handshake. */
  get proven(): boolean {
    return this.#received > 0
  }

  /** Of the busier direction, as far as is known: how often one of its keys was used. */
  get messages(): number {
    return Math.max(this.#sent, this.#received, this.#reports.incoming.newest.expected)
  }

  get rttMs(): number | undefined {
    return this.#reports.rttMs
  }

  get lossIn(): number | undefined {
    return this.#reports.incoming.recent
  }

  get lossOut(): number | undefined {
    return this.#reports.outgoing.recent
  }

  /** Bytes of the longest datagram that fits. */
  get maxDatagramSize(): number {
    return this.conn.maxMessageSize - this.#codec.overhead
  }

  /**
   * Sends datagrams of one session, each `segment` bytes, the last may be shorter; `length` 0: one empty datagram. What cannot be sent is dropped and counted.
   * The bytes are copied.
   */
  send(session: number, memory: Uint8Array, offset: number, length: number, segment: number): void {
    const longest = Math.min(length, segment)
    if (longest > this.maxDatagramSize) {
      this.#tooLong(longest, datagramsIn(length, segment))
      return
    }
    const most = longest === 0 ? 0 : longest * Math.floor(BUFFER_BYTES / (longest + this.#codec.overhead))
    let at = 0
    do {
      const part = Math.min(length - at, most)
      this.#sendPart(session, memory, offset + at, part, longest)
      at += part
    } while (at < length)
  }

  #sendPart(session: number, memory: Uint8Array, offset: number, length: number, segment: number): void {
    const messages = datagramsIn(length, segment)
    // Much may come by UDP in one turn, and would lie here until its end.
    if (this.conn.writableLength > FLUSH_BYTES) FakeTcpConn.flush(this.conn)
    // A part before this one may have ended the flow.
    if (this.#closing || this.conn.writableNeedDrain) {
      this.#shared.drops[this.#closing ? 'no-flow' : 'queue-full'] += messages
      return
    }
    if (!this.#pack(DATA, session, memory, offset, length, segment, messages)) return
    this.counters.datagramsOut += messages
    this.counters.bytesOut += length
  }

  #pack(type: number, session: number, memory: Uint8Array, offset: number, length: number, segment: number, messages: number): boolean {
    const { bytes, release } = this.#shared.pool.take(length + messages * this.#codec.overhead)
    const written = this.#codec.pack(type, session, memory, offset, length, segment, bytes, 0)
    if (written === 0) {
      release()
      this.end('its message counter is used up')
      return false
    }
    this.#sent += messages
    this.conn.sendTrain(view(bytes, 0, written), Math.min(written, segment + this.#codec.overhead), release)
    return true
  }

  /** The server forgets these sessions. */
  sendClose(sessions: readonly number[]): void {
    this.#sendSessions(CLOSE, sessions)
  }

  /** The server answers these sessions on this flow from now on. */
  sendBind(sessions: readonly number[]): void {
    this.#sendSessions(BIND, sessions)
  }

  #sendSessions(type: number, sessions: readonly number[]): void {
    for (let at = 0; at < sessions.length; at += SESSIONS_PER_MESSAGE) {
      this.#control(type, encodeSessions(sessions.slice(at, at + SESSIONS_PER_MESSAGE)))
    }
  }

  #control(type: number, payload: Buffer): void {
    if (!this.#closing) this.#pack(type, 0, payload, 0, payload.length, payload.length, 1)
  }

  #tooLong(size: number, messages: number): void {
    this.#shared.drops['message-size'] += messages
    const max = this.maxDatagramSize
    this.#shared.warnings.warn(
      'message-size',
      () =>
        `A datagram of ${size} bytes is too long for the path, which takes ${max}: dropped. For WireGuard set MTU = ${max - WIREGUARD_OVERHEAD} or less on both ends`,
      messages,
    )
  }

  /** Messages have arrived. The bytes are overwritten, and not needed any more afterwards. */
  receive(memory: Uint8Array, offset: number, length: number, segment: number): void {
    if (this.#ended) return
    if (length <= segment && length === this.#repeat.message.length && this.#isRepeat(memory, offset, length)) return
    let at = offset
    let left = length
    while (left > 0 && !this.#ended) {
      const runs = this.#codec.unpack(memory, at, left, segment, this.#runs)
      for (let i = 0; i < runs; i++) this.#take(memory, i * RUN_WORDS)
      const unread = runs === RUNS ? this.#codec.unread : 0
      at += left - unread
      left = unread
    }
    this.#sink.onTrainEnd()
  }

  #isRepeat(memory: Uint8Array, offset: number, length: number): boolean {
    const { message, answer } = this.#repeat
    if (message.compare(memory, offset, offset + length) !== 0) return false
    if (answer !== undefined && !this.#closing) this.conn.write(answer)
    return true
  }

  #take(memory: Uint8Array, run: number): void {
    const runs = this.#runs
    const type = runs[run + RUN_TYPE]
    const messages = runs[run + RUN_MESSAGES]
    const offset = runs[run + RUN_OFFSET]
    const length = runs[run + RUN_LENGTH]
    if (type === DATA) {
      this.#received += messages
      this.counters.datagramsIn += messages
      this.counters.bytesIn += length
      this.#sink.onData(this, runs[run + RUN_SESSION], memory, offset, length, runs[run + RUN_SEGMENT])
      return
    }
    const segment = runs[run + RUN_SEGMENT]
    for (let i = 0; i < messages; i++) {
      const end = Math.min(length, (i + 1) * segment)
      if (!this.#takeControl(type, view(memory, offset + i * segment, offset + end))) this.#shared.drops.malformed++
      this.#received++
    }
  }

  #takeControl(type: number, payload: Buffer): boolean {
    if (type === REPORT) return this.#takeReport(payload)
    const sessions = decodeSessions(payload)
    if (sessions === undefined) return false
    if (type === CLOSE) this.#sink.onClose(this, sessions)
    else if (type === BIND) this.#sink.onBind(this, sessions)
    else return false
    return true
  }

  #takeReport(payload: Buffer): boolean {
    const asks = this.#reports.take(payload, this.#sent, this.#received, performance.now())
    if (asks === undefined) return false
    this.#pulse.reportTaken(asks)
    this.counters.lostIn = this.#reports.incoming.lost
    this.counters.lostOut = this.#reports.outgoing.lost
    return true
  }

  /** Once a second. */
  tick(): void {
    if (this.#closing) return
    this.#countRefused()
    const beat = this.#pulse.beat(this.#sent, this.#received)
    if (beat.is === 'dead') this.end(beat.reason)
    else if (beat.is === 'report') this.report(beat.asks)
  }

  /** @param asks for a report in return */
  report(asks: boolean): void {
    this.#control(REPORT, this.#reports.encode(this.#sent, performance.now(), asks))
    this.#pulse.reportSent(this.#sent)
  }

  /** What the codec has refused since the last time. */
  #countRefused(): void {
    const [now, seen] = [this.#codecCounters, this.#codecSeen]
    const { drops } = this.#shared
    this.#codec.counters(now)
    drops.auth += now[CODEC_FORGED] - seen[CODEC_FORGED]
    drops.replay += now[CODEC_REPLAYED] - seen[CODEC_REPLAYED]
    drops.malformed += now[CODEC_TRUNCATED] - seen[CODEC_TRUNCATED]
    seen.set(now)
  }

  /** Gives the flow up. Idempotent. */
  end(reason: string): void {
    if (this.#ended) return
    this.#closing = true
    this.#ended = true
    this.#countRefused()
    this.#codec.close()
    // After the peer's FIN this is our own.
    if (this.conn.readableEnded) this.conn.end()
    else this.conn.destroy()
    this.#onEnd(this, reason)
  }

  /** Sends what is queued, then a FIN. What arrives until the flow is gone is still taken. Resolves when it is. */
  async close(reason = 'closed'): Promise<void> {
    this.#closing = true
    this.#reason ??= reason
    await this.conn.close()
    this.end(reason)
  }
}

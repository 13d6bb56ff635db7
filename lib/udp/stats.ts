// The statistics of UDP connections and listeners, in the shape that those of fake TCP have. Read memory only.
import type { Clock } from '../clock.ts'
import type { CaptureStats, ConnStats, ListenerStats, Rejected } from '../stats.ts'
import type { Departures } from './departures.ts'
import type { Silence } from './silence.ts'
import type { UdpSocket } from './socket.ts'

/** What UDP has none of. */
const NOTHING: Rejected = {
  truncated: 0,
  header: 0,
  checksum: 0,
  fragment: 0,
  foreign: 0,
  window: 0,
  ack: 0,
  timestamp: 0,
  pathMtu: 0,
  reset: 0,
  syn: 0,
  late: 0,
  orphan: 0,
}

export class UdpConnStats implements ConnStats {
  messagesIn = 0
  bytesIn = 0
  droppedIn = 0
  droppedOut = 0
  /** Messages that came after the peer had ended. */
  late = 0
  pathMtu = 0
  readonly capture = 'udp'
  readonly link = 'udp'
  readonly linkReason = undefined
  readonly guard = 'none'
  readonly setBacks = 0
  readonly framing = undefined
  readonly dialect: 'native' | undefined
  readonly #socket: UdpSocket
  readonly #departures: Departures
  readonly #silence: Silence
  readonly #clock: Clock

  constructor(handshake: boolean, socket: UdpSocket, departures: Departures, silence: Silence, clock: Clock) {
    this.dialect = handshake ? 'native' : undefined
    this.#socket = socket
    this.#departures = departures
    this.#silence = silence
    this.#clock = clock
  }

  get messagesOut(): number {
    return this.#departures.messages
  }
  get bytesOut(): number {
    return this.#departures.bytes
  }
  get kernelDrops(): number {
    return this.#socket.kernelDrops
  }
  get rejected(): Rejected {
    return { ...NOTHING, truncated: this.#socket.truncated, late: this.late }
  }
  get idleMs(): number {
    return Math.max(0, Math.round(this.#clock.now() - this.#silence.heardMs))
  }
}

export class UdpListenerStats implements ListenerStats, CaptureStats {
  accepted = 0
  refused = 0
  /** Datagrams of peers that no connection was made with. */
  strangers = 0
  readonly orphans = 0
  readonly shard = undefined
  readonly #socket: UdpSocket

  constructor(socket: UdpSocket) {
    this.#socket = socket
  }

  get packets(): number {
    return this.#socket.packets
  }
  get calls(): number {
    return this.#socket.reads
  }
  get kernelDrops(): number {
    return this.#socket.kernelDrops
  }
  get receiveBufferBytes(): number {
    return this.#socket.receiveBufferBytes
  }
  get rejected(): Rejected {
    return { ...NOTHING, truncated: this.#socket.truncated, orphan: this.strangers }
  }
}

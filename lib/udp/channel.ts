// One UDP connection on a connected socket of its own, as the streams want it. It knows its peer and how the two of them end; how they met, acceptor and
// connector know.
import { formatAddress, formatHostPort, isMapped } from '../address.ts'
import { ECONNREFUSED, ECONNRESET, EMSGSIZE, ETIMEDOUT, FakeTcpError, type SystemError, systemError } from '../errors.ts'
import { D_KEY, D_LENGTH, D_OFFSET, D_SEGMENT, D_WORDS, KEY_LOCAL, KEY_PORTS, KEY_REMOTE, KEY_WORDS } from '../native/layout.ts'
import type { Channel, ChannelSink, Drop, Family, Outgoing } from '../transport.ts'
import {
  ANSWER,
  ASK,
  begins,
  CLOSE,
  CLOSED,
  CONTROL_BYTES,
  type ControlFields,
  countIn,
  isHello,
  RESET,
  readTrain,
  type TrainReader,
  typeOf,
  writeControl,
} from './control.ts'
import { Departures } from './departures.ts'
import { Ending } from './ending.ts'
import type { Leaving, UdpHost, Waiting } from './host.ts'
import { Silence, type SilenceOptions } from './silence.ts'
import type { UdpSink, UdpSocket } from './socket.ts'
import { UdpConnStats } from './stats.ts'

/** What arrives before the stream is there: as much as fake TCP keeps. */
const EARLY_BYTES = 64 << 10
/** What a train costs beside its bytes, of which an empty message has none. */
const EARLY_COST = 128
/** How often the kernel is asked for its drops while there is traffic. */
const SAMPLE_MS = 1000
/** The longest IP packet. */
const LONGEST = 65535

const NEVER = Number.POSITIVE_INFINITY

export interface ChannelOptions extends SilenceOptions {
  /** Without a handshake: our end is the end of the whole connection. */
  readonly endsBoth: boolean
}

/** What each end's control datagrams begin with: the token that their reader chose. */
export interface Tokens {
  readonly own: Uint8Array
  /** Undefined until it is known: nothing can be said to the peer before. */
  peer: Uint8Array | undefined
}

export interface ChannelSettings {
  readonly host: UdpHost
  /** Connected already, and this channel's from here on. */
  readonly socket: UdpSocket
  /** Undefined without a handshake: there is nothing but messages. */
  readonly tokens: Tokens | undefined
  readonly options: ChannelOptions
  /** A datagram of the handshake, from the peer; or its hello, come again. */
  onHandshake(memory: Uint8Array, at: number): void
  /** A train of somebody else, which the socket took before it was connected: its descriptor is at `at` of the socket's. */
  onStray(socket: UdpSocket, at: number): void
  /** The socket is closed. */
  onGone(error: Error | undefined): void
}

export class UdpChannel implements Channel, Leaving, TrainReader, UdpSink, Waiting {
  readonly family: Family
  readonly localAddress: string
  readonly localPort: number
  readonly remoteAddress: string
  readonly remotePort: number
  readonly minMessageSize = 0
  readonly maxReasonBytes = undefined
  readonly closeReason = undefined
  readonly stats: UdpConnStats
  maxMessageSize = 0
  dueMs = NEVER
  heapIndex = -1
  readonly #settings: ChannelSettings
  readonly #socket: UdpSocket
  readonly #departures: Departures
  readonly #silence: Silence
  readonly #ending = new Ending()
  readonly #key = new Int32Array(KEY_WORDS)
  readonly #headers: number
  #sink: ChannelSink | undefined
  #early: Array<{ bytes: Uint8Array; segment: number }> = []
  #earlyBytes = 0
  #sampleDue = NEVER
  #gone = false
  #error: Error | undefined
  #released = false

  constructor(settings: ChannelSettings) {
    const { host, socket, tokens, options } = settings
    this.#settings = settings
    this.#socket = socket
    socket.key(this.#key)
    socket.sink = this
    const v4 = isMapped(this.#key, KEY_REMOTE)
    this.#headers = v4 ? 28 : 48
    this.family = v4 ? 'IPv4' : 'IPv6'
    this.localAddress = formatAddress(this.#key, KEY_LOCAL)
    this.remoteAddress = formatAddress(this.#key, KEY_REMOTE)
    this.localPort = this.#key[KEY_PORTS] & 0xffff
    this.remotePort = this.#key[KEY_PORTS] >>> 16
    this.#silence = new Silence(tokens === undefined ? { ...options, keepAliveMs: 0 } : options, host.clock.now())
    this.#departures = new Departures(socket.outbox, (errno, size) => this.#refused(errno, size))
    this.stats = new UdpConnStats(tokens !== undefined, socket, this.#departures, this.#silence, host.clock)
    this.#learnMtu()
    host.enter(this)
    this.#schedule()
  }

  // What the stream asks for (Channel)

  attach(sink: ChannelSink): void {
    this.#sink = sink
    const early = this.#early
    this.#early = []
    for (const { bytes, segment } of early) sink.onTrain(bytes, 0, bytes.length, segment, 0)
    if (this.#gone) sink.onClose(this.#error)
  }

  send(messages: readonly Outgoing[], done: () => void): void {
    if (this.#gone) {
      process.nextTick(done)
      return
    }
    this.#departures.send(messages, done)
    this.#settings.host.mark(this.#departures)
  }

  drained(): void {}

  defer(run: () => void): void {
    this.#settings.host.defer(run)
  }

  flush(): void {
    this.#settings.host.flush()
  }

  end(done: () => void): void {
    if (this.#gone) {
      done()
      return
    }
    const { tokens, options, host } = this.#settings
    if (tokens === undefined) {
      this.#ending.answered = true
      if (options.endsBoth) this.#endPeer()
      done()
      return
    }
    this.#ending.begin(host.clock.now(), done)
    this.#say(CLOSE, { count: this.#departures.messages })
    this.#schedule()
  }

  countDrop({ reason, count = 1 }: Drop): void {
    if (reason === 'receive-queue') this.stats.droppedIn += count
    else this.stats.droppedOut += count
  }

  release(): void {
    if (this.#released) return
    this.#released = true
    if (this.#gone) return
    if (this.#settings.tokens !== undefined && this.#ending.answered) {
      this.#ending.linger(this.#settings.host.clock.now())
      this.#socket.unref()
      this.#schedule()
      return
    }
    this.#abandon(undefined)
  }

  /** As the kernel's reset of a TCP connection would tell, the peer is told at once. */
  onExit(): void {
    if (!this.#ending.answered) this.#abandon(undefined)
  }

  ref(): void {
    if (!this.#released) this.#socket.ref()
  }

  unref(): void {
    this.#socket.unref()
  }

  /** The listener has accepted; this is its token. */
  opened(peer: Uint8Array): void {
    ;(this.#settings.tokens as Tokens).peer = peer
    this.#schedule()
  }

  /** Gives up a channel that no stream has taken. */
  discard(): void {
    this.#shut(undefined)
  }

  copyKey(out: Int32Array): void {
    out.set(this.#key)
  }

  /** Says something of the handshake. */
  say(type: number, fields?: ControlFields): void {
    this.#say(type, fields)
  }

  // What the socket tells (UdpSink)

  onTrains(socket: UdpSocket, count: number): void {
    this.#settings.host.deliver(() => {
      for (let i = 0; i < count; i++) this.#arrive(socket, i * D_WORDS)
    })
  }

  onRoom(): void {
    this.#settings.host.mark(this.#departures)
  }

  onError(_socket: UdpSocket, errno: number): void {
    if (errno === EMSGSIZE) this.#shrink()
    // Others come of routes and firewalls, and may pass.
    if (errno !== ECONNREFUSED || this.#gone) return
    if (this.#ending.asked || this.#released) this.#peerIsGone()
    else this.#shut(this.#systemError(ECONNREFUSED, 'read'))
  }

  onDue(now: number): number {
    if (now >= this.#sampleDue) {
      this.#sampleDue = NEVER
      this.#socket.sample()
    }
    const due = this.#ending.check(now)
    if (due === 'close') this.#say(CLOSE, { count: this.#departures.messages })
    else if (due === 'gone') this.#peerIsGone()
    else if (due === 'end') this.#tellEnd()
    else if (due === 'over') this.#shut(undefined)
    if (this.#released || this.#gone || !this.#listens) return this.#nextDue
    const silent = this.#silence.check(now)
    if (silent === 'ask') this.#say(ASK)
    else if (silent === 'dead') this.#abandon(this.#systemError(ETIMEDOUT, 'read'))
    else if (silent === 'idle') this.#idle()
    return this.#nextDue
  }

  // Arriving

  #arrive(socket: UdpSocket, at: number): void {
    const d = socket.descriptors
    let own = d[at + D_KEY + KEY_PORTS] === this.#key[KEY_PORTS]
    for (let i = 0; i < 4; i++) own &&= d[at + D_KEY + KEY_REMOTE + i] === this.#key[KEY_REMOTE + i]
    if (own) this.take(socket.slab, d[at + D_OFFSET], d[at + D_LENGTH], d[at + D_SEGMENT])
    else this.#settings.onStray(socket, at)
  }

  /** A train of the peer. */
  take(memory: Uint8Array, offset: number, length: number, segment: number): void {
    if (this.#gone) return
    const now = this.#settings.host.clock.now()
    this.#silence.heardMs = now
    if (this.#sampleDue === NEVER) {
      this.#sampleDue = now + SAMPLE_MS
      this.#schedule()
    }
    if (this.#settings.tokens === undefined) this.onMessages(memory, offset, length, segment)
    else readTrain(this, memory, offset, length, segment)
  }

  isControl(memory: Uint8Array, at: number): boolean {
    return begins(memory, at, (this.#settings.tokens as Tokens).own) || isHello(memory, at, CONTROL_BYTES)
  }

  onControl(memory: Uint8Array, at: number): void {
    if (this.#gone) return
    const { own } = this.#settings.tokens as Tokens
    const type = typeOf(memory, at)
    if (!begins(memory, at, own)) this.#settings.onHandshake(memory, at)
    else if (type === CLOSE) {
      this.#say(CLOSED)
      this.#ending.peerCloses(this.#silence.heardMs, this.stats.messagesIn >= countIn(memory, at))
      this.#schedule()
    } else if (type === CLOSED) this.#ending.answer()
    else if (type === ASK) this.#say(ANSWER)
    else if (type === RESET) this.reset()
    else if (type !== ANSWER) this.#settings.onHandshake(memory, at)
  }

  /** The peer knows nothing of this connection any more. */
  reset(): void {
    if (this.#released) this.#shut(undefined)
    else this.#shut(this.#systemError(ECONNRESET, 'read'))
  }

  onMessages(memory: Uint8Array, offset: number, length: number, segment: number): void {
    if (this.#gone) return
    const messages = length <= segment ? 1 : Math.ceil(length / segment)
    if (this.#ending.peerEnded || this.#released) {
      this.stats.late += messages
      return
    }
    this.stats.messagesIn += messages
    this.stats.bytesIn += length
    if (this.#sink !== undefined) this.#sink.onTrain(memory, offset, length, segment, 0)
    else if (this.#earlyBytes + length + EARLY_COST <= EARLY_BYTES) {
      this.#earlyBytes += length + EARLY_COST
      this.#early.push({ bytes: memory.slice(offset, offset + length), segment })
    } else this.stats.droppedIn += messages
  }

  // Leaving

  #say(type: number, fields?: ControlFields): void {
    const to = this.#settings.tokens?.peer
    if (to === undefined || this.#gone) return
    const datagram = new Uint8Array(CONTROL_BYTES)
    writeControl(datagram, 0, to, type, fields)
    this.#departures.control(datagram)
    this.#settings.host.mark(this.#departures)
  }

  #refused(errno: number, size: number): void {
    if (errno === EMSGSIZE) this.#shrink()
    const { maxMessageSize: max } = this
    const drop: Drop =
      errno === EMSGSIZE && size > max
        ? { reason: 'message-size', size, max }
        : { reason: 'send-refused', size, code: this.#systemError(errno, 'send').code }
    this.stats.droppedOut++
    this.#sink?.onDrop(drop)
  }

  #shrink(): void {
    const before = this.maxMessageSize
    this.#learnMtu()
    const { maxMessageSize, stats } = this
    if (maxMessageSize < before) this.#sink?.onMtu({ maxMessageSize, pathMtu: stats.pathMtu })
  }

  /** What the kernel knows of the path. It never grows: to find out, a longer message would have to be risked. */
  #learnMtu(): void {
    const mtu = Math.min(this.#socket.pathMtu(), this.family === 'IPv4' ? LONGEST : LONGEST + 40)
    if (this.maxMessageSize !== 0 && mtu >= this.stats.pathMtu) return
    this.stats.pathMtu = mtu
    this.maxMessageSize = mtu - this.#headers
  }

  // Ending

  /** Nothing tells of the end of a peer without a handshake but its silence. */
  #idle(): void {
    const peer = formatHostPort(this.remoteAddress, this.remotePort)
    const { tokens, options } = this.#settings
    if (tokens === undefined) {
      this.#endPeer()
      this.#shut(undefined)
    } else
      this.#abandon(new FakeTcpError('ERR_FAKETCP_IDLE', `Nothing was heard from ${peer} for ${options.idleTimeoutMs} ms (idleTimeoutMs)`))
  }

  #endPeer(): void {
    if (this.#ending.peerEnded) return
    this.#ending.peerEnded = true
    this.#tellEnd()
  }

  #tellEnd(): void {
    this.#sink?.onEnd()
  }

  /** Our close was never answered, or nobody is there to answer it. */
  #peerIsGone(): void {
    this.#ending.answer()
    this.#endPeer()
    this.#shut(undefined)
  }

  /** Gives the connection up; a peer that is still there is told. */
  #abandon(error: Error | undefined): void {
    this.#say(RESET)
    this.#socket.outbox.transmit()
    this.#shut(error)
  }

  #shut(error: Error | undefined): void {
    if (this.#gone) return
    this.#gone = true
    this.#error = error
    this.#settings.host.forget(this)
    this.#settings.host.leave(this)
    this.#socket.sample()
    this.#socket.close()
    this.#settings.onGone(error)
    this.#sink?.onClose(error)
  }

  get #nextDue(): number {
    if (this.#gone) return NEVER
    return Math.min(this.#sampleDue, this.#ending.dueMs, this.#released || !this.#listens ? NEVER : this.#silence.dueMs)
  }

  /** A sign of the peer is waited for: not by a dial, which has a time limit of its own, nor when both sides have ended. */
  get #listens(): boolean {
    const { tokens } = this.#settings
    return (tokens === undefined || tokens.peer !== undefined) && !(this.#ending.answered && this.#ending.peerEnded)
  }

  #schedule(): void {
    const due = this.#nextDue
    if (due !== NEVER) this.#settings.host.schedule(this, due)
  }

  #systemError(errno: number, syscall: string): SystemError {
    return systemError(errno, syscall, { address: this.remoteAddress, port: this.remotePort })
  }
}

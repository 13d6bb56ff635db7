// Listens over UDP: answers hellos without keeping anything, and gives each peer that has shown its cookie (or, without a handshake, has sent anything) a
// connected socket of its own. It knows the listener's half of the handshake; the connections are the channels'.
//
// The listening socket and those of the peers share the port. Until a new one is connected, datagrams of anybody may reach it, and its peer's may
// still reach the listening one: both kinds are recognised by their source and go where they belong. So none is lost, and none misdelivered.
import { randomBytes } from 'node:crypto'
import { familyOf, formatAddress, isLinkLocal, isMapped } from '../address.ts'
import { fromNative } from '../errors.ts'
import type { Binding } from '../native/binding.ts'
import { D_IFINDEX, D_KEY, D_LENGTH, D_OFFSET, D_SEGMENT, D_WORDS, KEY_LOCAL, KEY_PORTS, KEY_REMOTE, KEY_WORDS } from '../native/layout.ts'
import type { Acceptor, AcceptorSink, ListenAddress, RefusedConnection } from '../transport.ts'
import { type Tokens, UdpChannel } from './channel.ts'
import {
  ACCEPT,
  begins,
  CONTROL_BYTES,
  COOKIE_REPLY,
  cookieIn,
  isHello,
  RESET,
  readTrain,
  TOKEN_BYTES,
  tokenIn,
  writeControl,
} from './control.ts'
import { Cookies } from './cookies.ts'
import { type Departing, type UdpHost, udpHost, type Waiting } from './host.ts'
import type { ParsedUdpListen } from './options.ts'
import { type UdpSink, UdpSocket } from './socket.ts'
import { NOBODY, OUTBOX_TRAINS, warnIfCapped } from './sockets.ts'
import { UdpListenerStats } from './stats.ts'

const SAMPLE_MS = 1000
const NEVER = Number.POSITIVE_INFINITY

/** One peer: its channel, and what tells its hellos from another client's on the same address and port. */
interface Accepted {
  readonly channel: UdpChannel
  readonly tokens: Tokens | undefined
}

export class UdpAcceptor implements Acceptor, UdpSink, Departing, Waiting {
  readonly address: ListenAddress
  readonly stats: UdpListenerStats
  marked = false
  dueMs = NEVER
  heapIndex = -1
  readonly #binding: Binding
  readonly #parsed: ParsedUdpListen
  readonly #host: UdpHost = udpHost()
  readonly #socket: UdpSocket
  readonly #cookies = new Cookies(() => this.#host.clock.now())
  /** By remote address, port and local address. */
  readonly #peers = new Map<string, Accepted>()
  #sink: AcceptorSink | undefined
  #closed = false

  /** @throws what the system says: `EADDRINUSE`, `EADDRNOTAVAIL`, `EACCES`, ... */
  constructor(binding: Binding, parsed: ParsedUdpListen, address: string) {
    this.#binding = binding
    this.#parsed = parsed
    const family = familyOf(address.replace(/%.*/, '')) === 4 ? 4 : 6
    try {
      this.#socket = new UdpSocket(
        binding,
        { ...this.#common, family, address, port: parsed.port, ipv6Only: parsed.ipv6Only, sharing: 'offer' },
        this,
      )
    } catch (error) {
      throw fromNative(error, { address, port: parsed.port })
    }
    warnIfCapped(this.#socket, parsed)
    this.address = { address, port: this.#socket.localPort, family: family === 4 ? 'IPv4' : 'IPv6' }
    this.stats = new UdpListenerStats(this.#socket)
  }

  get outbox() {
    return this.#socket.outbox
  }

  attach(sink: AcceptorSink): void {
    this.#sink = sink
  }

  close(): Promise<void> {
    this.#closed = true
    this.#host.forget(this)
    this.#socket.close()
    return Promise.resolve()
  }

  ref(): void {
    this.#socket.ref()
  }

  unref(): void {
    this.#socket.unref()
  }

  // What the listening socket tells (UdpSink)

  onTrains(socket: UdpSocket, count: number): void {
    this.#host.deliver(() => {
      for (let i = 0; i < count && !this.#closed; i++) this.#arrive(socket, i * D_WORDS)
    })
    if (this.#closed || this.heapIndex !== -1) return
    this.#host.schedule(this, this.#host.clock.now() + SAMPLE_MS)
  }

  onRoom(): void {}

  /** It is not connected: nobody's datagrams are reported to it. */
  onError(): void {}

  onDue(): number {
    this.#socket.sample()
    return NEVER
  }

  fill(): void {
    this.outbox.transmit()
  }

  // Arriving, at the listening socket or, by somebody else than its peer, at one that was not connected yet

  #arrive(socket: UdpSocket, at: number): void {
    if (this.#closed || this.#sink === undefined) return
    const d = socket.descriptors
    const offset = d[at + D_OFFSET]
    const length = d[at + D_LENGTH]
    const segment = d[at + D_SEGMENT]
    if (!this.#parsed.handshake) {
      const accepted = this.#peers.get(keyText(d, at + D_KEY)) ?? this.#accept(d, at, undefined)
      accepted?.channel.take(socket.slab, offset, length, segment)
      return
    }
    readTrain(
      {
        isControl: (memory, hello) => isHello(memory, hello, CONTROL_BYTES),
        onControl: (memory, hello) => this.#hello(d, at, memory, hello),
        onMessages: (...run) => this.#messages(d, at, ...run),
      },
      socket.slab,
      offset,
      length,
      segment,
    )
  }

  /** Of a peer that has its socket by now, or of nobody who has shown anything. */
  #messages(d: Int32Array, at: number, slab: Uint8Array, offset: number, length: number, segment: number): void {
    const accepted = this.#peers.get(keyText(d, at + D_KEY))
    if (accepted !== undefined) accepted.channel.take(slab, offset, length, segment)
    else this.stats.strangers += length === 0 ? 1 : Math.ceil(length / segment)
  }

  #hello(d: Int32Array, at: number, memory: Uint8Array, offset: number): void {
    const token = tokenIn(memory, offset)
    if (!this.#cookies.accepts(cookieIn(memory, offset), d, at + D_KEY, token)) {
      this.#answer(d, at, token, COOKIE_REPLY, this.#cookies.bake(d, at + D_KEY, token))
      return
    }
    const before = this.#peers.get(keyText(d, at + D_KEY))
    if (before?.tokens?.peer !== undefined && begins(token, 0, before.tokens.peer)) {
      before.channel.say(ACCEPT, { token: before.tokens.own })
      return
    }
    // A client that has begun anew on the same port.
    before?.channel.reset()
    const tokens = { own: new Uint8Array(randomBytes(TOKEN_BYTES)), peer: token.slice() }
    this.#accept(d, at, tokens)
  }

  /** Only while there is room: whoever needs it asks again. */
  #answer(d: Int32Array, at: number, to: Uint8Array, type: number, cookie?: Uint8Array): void {
    const { outbox } = this
    if (!outbox.makeRoom()) return
    const datagram = new Uint8Array(CONTROL_BYTES)
    writeControl(datagram, 0, to, type, cookie && { cookie })
    const out = outbox.open(undefined, 1, CONTROL_BYTES)
    outbox.add(datagram)
    for (let i = 0; i < KEY_WORDS; i++) outbox.words[out + D_KEY + i] = d[at + D_KEY + i]
    outbox.words[out + D_IFINDEX] = d[at + D_IFINDEX]
    this.#host.mark(this)
  }

  // Accepting

  #accept(d: Int32Array, at: number, tokens: { own: Uint8Array; peer: Uint8Array } | undefined): Accepted | undefined {
    const sink = this.#sink as AcceptorSink
    const key = at + D_KEY
    const peer = describePeer(d, at)
    const reason = sink.refuse()
    if (reason !== undefined) {
      this.stats.refused++
      if (tokens !== undefined) this.#answer(d, at, tokens.peer, RESET)
      sink.onRefused({ reason, ...peer })
      return undefined
    }
    const name = keyText(d, key)
    const ifindex = d[at + D_IFINDEX]
    const socket = this.#openSocket(d, at, sink)
    if (socket === undefined) return undefined
    const channel: UdpChannel = new UdpChannel({
      host: this.#host,
      socket,
      tokens,
      options: this.#parsed.channel,
      onHandshake: (memory, offset) => this.#helloAgain(channel, ifindex, memory, offset),
      onStray: (from, stray) => this.#arrive(from, stray),
      onGone: () => {
        if (this.#peers.get(name)?.channel === channel) this.#peers.delete(name)
      },
    })
    const accepted = { channel, tokens }
    this.#peers.set(name, accepted)
    this.stats.accepted++
    if (tokens !== undefined) channel.say(ACCEPT, { token: tokens.own })
    sink.onChannel(channel)
    return accepted
  }

  /** At the peer's own socket: the accept was lost, or it has begun anew. */
  #helloAgain(channel: UdpChannel, ifindex: number, memory: Uint8Array, offset: number): void {
    if (this.#closed || !isHello(memory, offset, CONTROL_BYTES)) return
    const words = new Int32Array(D_WORDS)
    channel.copyKey(words)
    words[D_IFINDEX] = ifindex
    this.#hello(words, 0, memory, offset)
  }

  #openSocket(d: Int32Array, at: number, sink: AcceptorSink): UdpSocket | undefined {
    const key = at + D_KEY
    const { localAddress, localPort, remoteAddress, remotePort } = describePeer(d, at)
    const zoned = (address: string, words: number) => (isLinkLocal(d, words) ? `${address}%${d[at + D_IFINDEX]}` : address)
    let socket: UdpSocket | undefined
    try {
      const family = isMapped(d, key + KEY_REMOTE) ? 4 : 6
      const address = zoned(localAddress, key + KEY_LOCAL)
      const target = {
        ...this.#common,
        family,
        address,
        port: localPort,
        ipv6Only: true,
        sharing: 'join',
        outboxTrains: OUTBOX_TRAINS,
      } as const
      socket = new UdpSocket(this.#binding, target, NOBODY)
      socket.connect(zoned(remoteAddress, key + KEY_REMOTE), remotePort)
      return socket
    } catch (error) {
      socket?.close()
      this.stats.refused++
      sink.onError(fromNative(error, { address: remoteAddress, port: remotePort }) as Error)
      return undefined
    }
  }

  get #common() {
    return { tos: this.#parsed.dscp << 2, dontFragment: true, receiveBufferBytes: this.#parsed.receiveBufferBytes }
  }
}

function keyText(words: Int32Array, at: number): string {
  const local = at + KEY_LOCAL
  return `${words[at]},${words[at + 1]},${words[at + 2]},${words[at + 3]},${words[at + KEY_PORTS]},${words[local]},${words[local + 1]},${words[local + 2]},${words[local + 3]}`
}

function describePeer(d: Int32Array, at: number): Omit<RefusedConnection, 'reason'> {
  const key = at + D_KEY
  return {
    localAddress: formatAddress(d, key + KEY_LOCAL),
    localPort: d[key + KEY_PORTS] & 0xffff,
    remoteAddress: formatAddress(d, key + KEY_REMOTE),
    remotePort: d[key + KEY_PORTS] >>> 16,
    family: isMapped(d, key + KEY_REMOTE) ? 'IPv4' : 'IPv6',
  }
}

// Dials over UDP: a connected socket, and with a handshake hellos until the listener has accepted. It knows the client's half of the handshake; the
// connection itself is the channel's.
import { randomBytes } from 'node:crypto'
import { familyOf } from '../address.ts'
import { ECONNREFUSED, ECONNRESET, fromNative, systemError } from '../errors.ts'
import type { Binding } from '../native/binding.ts'
import type { Attempt } from '../opening.ts'
import type { Channel } from '../transport.ts'
import { UdpChannel } from './channel.ts'
import { ACCEPT, CONTROL_BYTES, COOKIE_REPLY, cookieIn, HELLO, HELLO_TOKEN, TOKEN_BYTES, tokenIn, typeOf, writeControl } from './control.ts'
import { type UdpHost, udpHost, type Waiting } from './host.ts'
import type { ParsedUdpDial } from './options.ts'
import { UdpSocket } from './socket.ts'
import { NOBODY, OUTBOX_TRAINS, warnIfCapped } from './sockets.ts'

/** Hellos are repeated at 0.2, 0.6, 1.4 s, then every 0.8 s. */
const REPEAT_MS = 200
const MOST_MS = 800
/** Cookies that are answered: a listener sends one for each hello, and a new one when it has forgotten its secret. */
const COOKIES = 16

export type Settle = (error: unknown, channel?: Channel) => void

/** Opens one address. @throws what socket, bind and connect say */
export function connectUdp(binding: Binding, parsed: ParsedUdpDial, address: string, settle: Settle): Attempt {
  const family = familyOf(address.replace(/%.*/, '')) === 4 ? 4 : 6
  const { localAddress = family === 4 ? '0.0.0.0' : '::', localPort, port } = parsed
  let socket: UdpSocket | undefined
  try {
    socket = new UdpSocket(
      binding,
      {
        family,
        address: localAddress,
        port: localPort,
        ipv6Only: true,
        sharing: 'none',
        tos: parsed.dscp << 2,
        dontFragment: true,
        receiveBufferBytes: parsed.receiveBufferBytes,
        outboxTrains: OUTBOX_TRAINS,
      },
      NOBODY,
    )
    socket.connect(address, port)
  } catch (error) {
    socket?.close()
    throw fromNative(error, { address, port })
  }
  warnIfCapped(socket, parsed)
  if (parsed.handshake) return new Handshake(udpHost(), socket, parsed, address, settle)
  const channel = new UdpChannel({
    host: udpHost(),
    socket,
    tokens: undefined,
    options: parsed.channel,
    onHandshake() {},
    onStray() {},
    onGone() {},
  })
  process.nextTick(() => settle(undefined, channel))
  return { cancel: () => channel.discard() }
}

class Handshake implements Attempt, Waiting {
  dueMs = 0
  heapIndex = -1
  readonly #host: UdpHost
  readonly #channel: UdpChannel
  readonly #socket: UdpSocket
  readonly #tokens = { own: new Uint8Array(randomBytes(TOKEN_BYTES)), peer: undefined as Uint8Array | undefined }
  readonly #settle: Settle
  #cookie: Uint8Array | undefined
  #cookies = 0
  #waitMs = REPEAT_MS
  #over = false

  constructor(host: UdpHost, socket: UdpSocket, parsed: ParsedUdpDial, address: string, settle: Settle) {
    this.#host = host
    this.#socket = socket
    this.#settle = settle
    this.#channel = new UdpChannel({
      host,
      socket,
      tokens: this.#tokens,
      options: parsed.channel,
      onHandshake: (memory, at) => this.#hear(memory, at),
      onStray() {},
      onGone: (error) => this.#fail(error, address, parsed.port),
    })
    this.#sayHello()
    host.schedule(this, host.clock.now() + REPEAT_MS)
  }

  cancel(): void {
    this.#end()
    this.#channel.discard()
  }

  onDue(now: number): number {
    this.#sayHello()
    this.#waitMs = Math.min(this.#waitMs * 2, MOST_MS)
    return now + this.#waitMs
  }

  #hear(memory: Uint8Array, at: number): void {
    if (this.#over) return
    const type = typeOf(memory, at)
    if (type === COOKIE_REPLY && this.#cookies < COOKIES) {
      this.#cookies++
      this.#cookie = cookieIn(memory, at).slice()
      this.#sayHello()
    } else if (type === ACCEPT) {
      this.#channel.opened(tokenIn(memory, at).slice())
      this.#end()
      this.#settle(undefined, this.#channel)
    }
  }

  #sayHello(): void {
    const { outbox } = this.#socket
    if (!outbox.makeRoom()) return
    const hello = new Uint8Array(CONTROL_BYTES)
    writeControl(hello, 0, HELLO_TOKEN, HELLO, { token: this.#tokens.own, cookie: this.#cookie })
    outbox.open(undefined, 1, CONTROL_BYTES)
    outbox.add(hello)
    outbox.transmit()
  }

  /** A listener that takes no more connections resets: to a dial that is a refusal, as over TCP. */
  #fail(error: Error | undefined, address: string, port: number): void {
    if (this.#over) return
    this.#end()
    const reset = error !== undefined && 'errno' in error && (error.errno === ECONNRESET || error.errno === ECONNREFUSED)
    this.#settle(reset ? systemError(ECONNREFUSED, 'connect', { address, port }) : error)
  }

  #end(): void {
    this.#over = true
    this.#host.forget(this)
  }
}

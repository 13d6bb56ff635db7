// One flow's exchange of hellos: who asks, who answers, what has been agreed, and when to stop asking. It sends nothing itself.
import { decodeHello, encodeHello, HELLO_MAX, HELLO_MIN, type Hello, nonceOf, type Role, sameHello } from '../wire/hello.ts'
import { Nonces } from './nonces.ts'

/** First repeat of an unanswered hello; doubled each time. */
const FIRST_REPEAT_MS = 200
/** Repeats at 0.2, 0.6, 1.4, 3, 6.2 s: by then every repeat of a lost third ACK has been answered too. */
const MAX_REPEATS = 5
/** More than a peer sends before its hello's first repeat is due, unless it sends in bulk: then it is spoken to without one. */
const MAX_CANDIDATES = 1024

/** Of every listener of this thread that has a key. */
const answered = new Nonces()

/**
 * - `asking`: a dialler without an answer yet. - `waiting`: a listener that has not seen the peer's first message.
 * - `met`: both ends are this library, and have the same key. - `none`: the peer has no hello, or another key.
 */
export type HelloState = 'asking' | 'waiting' | 'met' | 'none'

export class HelloExchange {
  #state: HelloState
  readonly #role: Role
  readonly #key: Uint8Array | undefined
  #replayed = false
  #capabilities = 0
  /** Our hello: the dialler's question, or the listener's answer once there is a question. */
  #ours: Buffer | undefined
  /** The peer's, to recognise repeats. */
  #theirs: Uint8Array | undefined
  #peer: Hello | undefined
  #repeats = 0
  /** Messages still to be looked at by a listener that does not know where the peer's first one stands, or a dialler that stopped asking. */
  #candidates = 0
  /** The question, or the answer, is to go with the next flush; or the question once more. */
  sayNow = false
  repeatNow = false
  /** When the question is to be asked again; Infinity when it is not. */
  dueMs = Number.POSITIVE_INFINITY

  /**
   * @param speaks false for a dialler that was told its peer knows no hello
   * @param key that the peer must have; undefined: the public one
   */
  constructor(role: Role, speaks: boolean, key: Uint8Array | undefined) {
    this.#role = role
    this.#key = key
    this.#state = role === 'listener' ? 'waiting' : speaks ? 'asking' : 'none'
  }

  /** The flow is open. @param capabilities what our hello says we can */
  open(capabilities: number): void {
    this.#capabilities = capabilities
    if (this.#state === 'asking') this.#ours = encodeHello('dialler', { capabilities, extensions: new Map() }, this.#key)
  }

  get state(): HelloState {
    return this.#state
  }

  /** A listener with a key: whether the peer has still to show it, or will not get another chance. */
  get locked(): boolean {
    return this.#key !== undefined && this.#role === 'listener' && this.#state !== 'met'
  }

  /** The peer's hello was a recording of one that had been answered. */
  get replayed(): boolean {
    return this.#replayed
  }

  /** What is to be sent when it is time to ask or to answer. */
  get payload(): Buffer | undefined {
    return this.#ours
  }

  /** Capability bits that the peer told; 0 until it has. */
  get peerCapabilities(): number {
    return this.#peer?.capabilities ?? 0
  }

  /** The peer's first message is not known by its place: the hello may be any of the first ones. */
  lookAnywhere(): void {
    this.#candidates = MAX_CANDIDATES
  }

  /** Notes that the question has just been asked. */
  asked(nowMs: number): void {
    this.dueMs = nowMs + FIRST_REPEAT_MS * 2 ** this.#repeats
  }

  /** The answer has not come in time. @returns true when the question is to be repeated */
  overdue(): boolean {
    this.dueMs = Number.POSITIVE_INFINITY
    if (this.#state !== 'asking') return false
    if (this.#repeats++ < MAX_REPEATS) return true
    this.giveUp()
    return false
  }

  /** Gives up asking: the question's sequence number has left the window. */
  giveUp(): void {
    this.dueMs = Number.POSITIVE_INFINITY
    if (this.#state !== 'asking') return
    this.#state = 'none'
    this.#candidates = MAX_CANDIDATES
  }

  /**
   * Looks at one arriving message.
   *
   * @param first whether it stands directly behind the peer's SYN, the only place of a dialler's hello
   * @returns 'met' for the hello, 'repeat' for one already known (a listener answers it again), undefined for a message of the application
   */
  take(first: boolean, memory: Uint8Array, offset: number, length: number): 'met' | 'repeat' | undefined {
    switch (this.#state) {
      case 'met':
        if (this.#role === 'listener' && !first) return undefined
        return this.#theirs !== undefined && sameHello(this.#theirs, memory, offset, length) ? 'repeat' : undefined
      case 'waiting': {
        if (!first && this.#candidates === 0) return undefined
        const met = this.#look('dialler', memory, offset, length)
        if (this.#candidates > 0) this.#candidates--
        if (met === undefined && (this.#candidates === 0 || this.locked)) this.#state = 'none'
        return met
      }
      case 'asking':
        return this.#look('listener', memory, offset, length)
      case 'none':
        // An answer that comes after we stopped asking is still no message.
        if (this.#ours === undefined || this.#candidates === 0 || !mayBeHello(length)) return undefined
        this.#candidates--
        return this.#look('listener', memory, offset, length)
    }
  }

  #look(from: Role, memory: Uint8Array, offset: number, length: number): 'met' | undefined {
    return mayBeHello(length) ? this.#meet(from, memory.slice(offset, offset + length)) : undefined
  }

  #meet(from: Role, payload: Uint8Array): 'met' | undefined {
    const nonce = from === 'listener' && this.#ours !== undefined ? nonceOf(this.#ours) : undefined
    const hello = decodeHello(from, payload, this.#key, nonce)
    if (hello === undefined) return undefined
    if (this.#role === 'listener') {
      if (this.#key !== undefined && !answered.add(nonceOf(payload))) {
        this.#replayed = true
        return undefined
      }
      this.#ours = encodeHello('listener', { capabilities: this.#capabilities, extensions: new Map() }, this.#key, nonceOf(payload))
    }
    this.#peer = hello
    this.#theirs = payload
    this.#state = 'met'
    this.dueMs = Number.POSITIVE_INFINITY
    return 'met'
  }
}

function mayBeHello(length: number): boolean {
  return length >= HELLO_MIN && length <= HELLO_MAX
}

// Cookies of the UDP handshake: what shows that a client hears what is sent to its address. Nothing is kept for a client until it has shown one.
import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import { KEY_WORDS } from '../native/layout.ts'
import { COOKIE_BYTES, TOKEN_BYTES } from './control.ts'

/** A cookie is good in the slot of time in which it was made, and in the next one. */
const SLOT_MS = 10_000

export class Cookies {
  readonly #secret = randomBytes(32)
  readonly #now: () => number
  /** What is authenticated: slot, both addresses and ports, the client's token. */
  readonly #input = Buffer.alloc(8 + KEY_WORDS * 4 + TOKEN_BYTES)

  /** @param now milliseconds on any monotonic clock */
  constructor(now: () => number) {
    this.#now = now
  }

  /** The cookie for a client now. @param words with its key's nine words at `at` */
  bake(words: Int32Array, at: number, token: Uint8Array): Uint8Array {
    return this.#mac(Math.floor(this.#now() / SLOT_MS), words, at, token)
  }

  accepts(cookie: Uint8Array, words: Int32Array, at: number, token: Uint8Array): boolean {
    const slot = Math.floor(this.#now() / SLOT_MS)
    return timingSafeEqual(cookie, this.#mac(slot, words, at, token)) || timingSafeEqual(cookie, this.#mac(slot - 1, words, at, token))
  }

  #mac(slot: number, words: Int32Array, at: number, token: Uint8Array): Uint8Array {
    this.#input.writeDoubleBE(slot, 0)
    for (let i = 0; i < KEY_WORDS; i++) this.#input.writeInt32BE(words[at + i], 8 + i * 4)
    this.#input.set(token, 8 + KEY_WORDS * 4)
    return createHmac('sha256', this.#secret).update(this.#input).digest().subarray(0, COOKIE_BYTES)
  }
}

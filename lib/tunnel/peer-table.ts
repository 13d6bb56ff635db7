// A client's UDP peers: found by the words of a received train's key, and by session.
import { randomInt } from 'node:crypto'
import { hashKey } from '../flow/hash.ts'
import { D_IFINDEX, D_KEY, KEY_WORDS } from '../native/layout.ts'
import type { ClientFlow } from './client-flow.ts'

/** A session id that was used lately may still be on its way, or known to the server: the next one is as far away as can be. */
const LAST_SESSION = 65_535

export interface Peer {
  /** Its address, and which of ours it speaks to. */
  readonly key: Int32Array
  readonly ifindex: number
  readonly session: number
  readonly flow: ClientFlow
  /** Seconds since anything came from either side. */
  idle: number
  /** Of those with the same hash. */
  next: Peer | undefined
}

export class PeerTable {
  readonly #byHash = new Map<number, Peer>()
  readonly #bySession = new Map<number, Peer>()
  readonly #seeds = [randomInt(2 ** 32), randomInt(2 ** 32)]
  #lastSession = randomInt(LAST_SESSION)
  #latest: Peer | undefined

  get size(): number {
    return this.#bySession.size
  }

  [Symbol.iterator](): Iterator<Peer> {
    return this.#bySession.values()
  }

  /** @param at where the descriptor begins */
  find(words: Int32Array, at: number): Peer | undefined {
    const latest = this.#latest
    if (latest !== undefined && isSame(latest.key, words, at + D_KEY)) return latest
    let peer = this.#byHash.get(this.#hash(words, at + D_KEY))
    while (peer !== undefined && !isSame(peer.key, words, at + D_KEY)) peer = peer.next
    if (peer !== undefined) this.#latest = peer
    return peer
  }

  bySession(session: number): Peer | undefined {
    return this.#bySession.get(session)
  }

  add(words: Int32Array, at: number, flow: ClientFlow): Peer {
    const key = words.slice(at + D_KEY, at + D_KEY + KEY_WORDS)
    const hash = this.#hash(key, 0)
    const session = this.#freeSession()
    const peer: Peer = { key, ifindex: words[at + D_IFINDEX], session, flow, idle: 0, next: this.#byHash.get(hash) }
    this.#byHash.set(hash, peer)
    this.#bySession.set(session, peer)
    return peer
  }

  remove(peer: Peer): void {
    this.#bySession.delete(peer.session)
    if (this.#latest === peer) this.#latest = undefined
    const hash = this.#hash(peer.key, 0)
    const first = this.#byHash.get(hash)
    if (first !== peer) {
      let before = first
      while (before !== undefined && before.next !== peer) before = before.next
      if (before !== undefined) before.next = peer.next
    } else if (peer.next === undefined) this.#byHash.delete(hash)
    else this.#byHash.set(hash, peer.next)
  }

  /** The caller has seen to it that there is one. */
  #freeSession(): number {
    do this.#lastSession = (this.#lastSession % LAST_SESSION) + 1
    while (this.#bySession.has(this.#lastSession))
    return this.#lastSession
  }

  #hash(words: Int32Array, at: number): number {
    return hashKey(words, at, this.#seeds[0], this.#seeds[1])
  }
}

function isSame(key: Int32Array, words: Int32Array, at: number): boolean {
  for (let i = KEY_WORDS - 1; i >= 0; i--) if (key[i] !== words[at + i]) return false
  return true
}

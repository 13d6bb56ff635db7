// The seeded hash of a flow's key. Pure arithmetic.

import { KEY_PORTS } from '../native/layout.ts'

/**
 * HalfSipHash-1-3 without the length block (Aumasson and Bernstein; Linux uses the same rounds for its hash tables), 32 bits.
 *
 * A remote peer chooses most of the key (an IPv6 peer 80 bits of it), and murmur-like hashes have collisions that hold for every seed: so
 * a keyed pseudo-random function it is. Of an IPv4 key only the three words that can differ are hashed.
 *
 * @param at - index of the key's first word
 */
export function hashKey(key: Int32Array, at: number, seed0: number, seed1: number): number {
  const ports = at + KEY_PORTS
  const ipv4 = key[at + 2] === 0xffff && key[at + 6] === 0xffff && (key[at] | key[at + 1] | key[at + 4] | key[at + 5]) === 0
  // The `| 0` keep V8 on machine integers; without them the loop takes twice as long.
  let v0 = seed0 | 0
  let v1 = seed1 | 0
  let v2 = (seed0 ^ 0x6c796765) | 0
  let v3 = (seed1 ^ 0x74656462) | 0
  const step = ipv4 ? 4 : 1
  for (let i = ipv4 ? at + 3 : at; i < ports; i += step) {
    const word = key[i]
    v3 ^= word
    v0 = (v0 + v1) | 0
    v1 = ((v1 << 5) | (v1 >>> 27)) ^ v0
    v0 = (v0 << 16) | (v0 >>> 16)
    v2 = (v2 + v3) | 0
    v3 = ((v3 << 8) | (v3 >>> 24)) ^ v2
    v0 = (v0 + v3) | 0
    v3 = ((v3 << 7) | (v3 >>> 25)) ^ v0
    v2 = (v2 + v1) | 0
    v1 = ((v1 << 13) | (v1 >>> 19)) ^ v2
    v2 = (v2 << 16) | (v2 >>> 16)
    v0 ^= word
  }
  // The last word's round and the three that finish are one loop: the first pass takes the word, the others nothing.
  let word = key[ports]
  let finish = 0xff
  for (let i = 0; i < 4; i++) {
    v3 ^= word
    v0 = (v0 + v1) | 0
    v1 = ((v1 << 5) | (v1 >>> 27)) ^ v0
    v0 = (v0 << 16) | (v0 >>> 16)
    v2 = (v2 + v3) | 0
    v3 = ((v3 << 8) | (v3 >>> 24)) ^ v2
    v0 = (v0 + v3) | 0
    v3 = ((v3 << 7) | (v3 >>> 25)) ^ v0
    v2 = (v2 + v1) | 0
    v1 = ((v1 << 13) | (v1 >>> 19)) ^ v2
    v2 = (v2 << 16) | (v2 >>> 16)
    v0 ^= word
    v2 ^= finish
    word = 0
    finish = 0
  }
  return v1 ^ v3
}

// The hash of a flow's key: every word counts, and keys as they come in practice spread evenly over shards and buckets.
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { hashKey } from '../../lib/flow/hash.ts'
import { KEY_WORDS } from '../../lib/native/layout.ts'
import { ipv4Key, ipv6Key } from './keys.ts'

const SEEDS = [
  [0, 0],
  [0x12345678, 0x1abcdef0],
  [-1, 0x70707070],
]

const FAMILIES: [string, (i: number) => Int32Array][] = [
  ['sequential ports of one address', (i) => ipv4Key(0xc0000201 | 0, i & 0xffff)],
  ['even ports of one address', (i) => ipv4Key(0xc0000201 | 0, (2 * i) & 0xffff, 9191 + (i >>> 15))],
  ['odd ports of one address', (i) => ipv4Key(0xc0000201 | 0, (2 * i + 1) & 0xffff, 9191 + (i >>> 15))],
  ['one port of sequential addresses', (i) => ipv4Key(0xc0000000 + i, 40000)],
  ['sequential hosts of an IPv6 /64', (i) => ipv6Key(1, 0, i, 40000)],
  ['hosts of an IPv6 /64 that differ in the high bits of two words', (i) => ipv6Key(1, i << 20, (i >>> 12) << 28, 40000)],
  ['sequential ports of one IPv6 address', (i) => ipv6Key(1, 2, 3, i & 0xffff)],
]

/** Chi-squared of how many of 16 384 keys fall into each of 256 bins; its mean is 255, its standard deviation 22.6. */
function chiSquared(keyOf: (i: number) => Int32Array, seeds: number[], bin: (hash: number) => number): number {
  const bins = new Int32Array(256)
  const keys = 1 << 14
  for (let i = 0; i < keys; i++) bins[bin(hashKey(keyOf(i), 0, seeds[0], seeds[1]))]++
  const expected = keys / 256
  return bins.reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0)
}

describe('hashKey', () => {
  it.each(FAMILIES)('spreads %s over shards and buckets', (_, keyOf) => {
    for (const seeds of SEEDS) {
      expect(chiSquared(keyOf, seeds, (hash) => hash >>> 24)).toBeLessThan(255 + 6 * 22.6)
      expect(chiSquared(keyOf, seeds, (hash) => hash & 0xff)).toBeLessThan(255 + 6 * 22.6)
    }
  })

  it('depends on every word of the key and on both seeds', () => {
    const word = fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 })
    fc.assert(
      fc.property(fc.array(word, { minLength: KEY_WORDS, maxLength: KEY_WORDS }), word, word, fc.nat(31), (words, a, b, bit) => {
        const key = Int32Array.from(words)
        const hash = hashKey(key, 0, a, b)
        expect(Number.isInteger(hash) && hash === (hash | 0)).toBe(true)
        // Two of 11 random 32-bit values being equal is a matter of one in 10^8 runs.
        const others = new Set([hash, hashKey(key, 0, a ^ (1 << bit), b), hashKey(key, 0, a, b ^ (1 << bit))])
        for (let i = 0; i < KEY_WORDS; i++) {
          const changed = key.slice()
          changed[i] ^= 1 << bit
          others.add(hashKey(changed, 0, a, b))
        }
        expect(others.size).toBe(KEY_WORDS + 3)
      }),
    )
  })

  it('reads the key where it stands in a longer array', () => {
    const key = ipv4Key(0xc0000201 | 0, 40000)
    const batch = new Int32Array(50)
    batch.set(key, 24)
    expect(hashKey(batch, 24, 1, 2)).toBe(hashKey(key, 0, 1, 2))
  })
})

// Keys that prove themselves whole: one word is a checksum of the others.
import { KEY_WORDS } from '../../lib/native/layout.ts'

const CHECK = 7

/** The n-th key of a worker. The bits of `n` are spread over all words, so that a key torn between two flows fails the check. */
export function checkedKey(worker: number, n: number): Int32Array {
  const key = new Int32Array(KEY_WORDS)
  for (let i = 0; i < KEY_WORDS; i++) key[i] = Math.imul(n * 8 + worker + 1, 0x9e3779b1 + 2 * i)
  key[CHECK] = checksum(key)
  return key
}

export function isWholeKey(key: Int32Array): boolean {
  return key[CHECK] === checksum(key)
}

function checksum(key: Int32Array): number {
  let sum = 0
  for (let i = 0; i < KEY_WORDS; i++) if (i !== CHECK) sum = Math.imul(sum ^ key[i], 0x01000193) + i
  return sum | 0
}

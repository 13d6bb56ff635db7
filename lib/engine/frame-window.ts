// Counts what arrives of the peer's numbered frames: lost, doubled, reordered. Numbers on the wire have 32 bits and wrap; here they are extended.
import { type Figures, MOST_FRAMES } from '../wire/frames.ts'

/** What an arriving number was found to be. */
export const FIRST = 0
export const DUPLICATE = 1
/** Further behind than is remembered. */
export const LATE = 2

const WORD = 32
const FIRST_WORDS = 32
/** 65 536 numbers, 8 KiB: 65 ms at a million messages a second. */
const MOST_WORDS = 2048

/**
 * Remembers which of the newest numbers have come in a bitmap that is cleared word by word (as in RFC 6479) and doubles until it has `MOST_WORDS`, so that
 * a flow of few messages is small, and of the first 65 536 none is ever too old.
 */
export class FrameWindow implements Figures {
  expected = 0
  received = 0
  duplicated = 0
  reordered = 0
  late = 0
  #words = new Uint32Array(FIRST_WORDS)
  /** One past the highest number that has come; `expected` may be higher by what the peer told. */
  #seen = 0

  /** The number that the 32 bits on the wire stand for: the nearest to what is expected. Below 0 for one before the first, or beyond what can be counted. */
  extend(counter: number): number {
    const number = this.expected + ((counter - this.expected) | 0)
    return number < MOST_FRAMES ? number : -1
  }

  /** A data frame has arrived. */
  take(number: number): typeof FIRST | typeof DUPLICATE | typeof LATE {
    if (number >= this.expected) this.#advance(number + 1)
    else if (number < 0 || wordOf(this.expected - 1) - wordOf(number) >= this.#words.length) {
      this.late++
      return LATE
    }
    const words = this.#words
    const at = (number >>> 5) & (words.length - 1)
    const bit = 1 << (number & 31)
    if ((words[at] & bit) !== 0) {
      this.duplicated++
      return DUPLICATE
    }
    words[at] |= bit
    this.received++
    if (number >= this.#seen) this.#seen = number + 1
    else this.reordered++
    return FIRST
  }

  /** Data frames have arrived with the numbers that were expected, `count` of them from `expected` on. */
  takeNext(count: number): void {
    const first = this.expected
    const last = first + count - 1
    this.#advance(last + 1)
    const words = this.#words
    for (let i = wordOf(first); i <= wordOf(last); i++) {
      const from = Math.max(first - i * WORD, 0)
      const to = Math.min(last - i * WORD, WORD - 1)
      words[i & (words.length - 1)] |= (-1 >>> (WORD - 1 - to + from)) << from
    }
    this.received += count
    this.#seen = last + 1
  }

  /** The peer has told that it has sent all numbers below this one. */
  know(next: number): void {
    if (next > this.expected) this.#advance(next)
  }

  /** Makes room for the numbers from `expected` to below `next`: none of them has come. */
  #advance(next: number): void {
    const last = wordOf(next - 1)
    const before = wordOf(this.expected - 1)
    this.expected = next
    if (last === before) return
    this.#grow(last, before)
    const words = this.#words
    const mask = words.length - 1
    // A jump over more than there is clears everything once.
    for (let i = Math.max(before + 1, last - mask); i <= last; i++) words[i & mask] = 0
  }

  /** Doubles the bitmap until it holds everything from the first number to word `last`, or is as large as it gets. */
  #grow(last: number, before: number): void {
    const old = this.#words
    let { length } = old
    while (length <= last && length < MOST_WORDS) length *= 2
    if (length === old.length) return
    this.#words = new Uint32Array(length)
    for (let i = Math.max(0, before - old.length + 1); i <= before; i++) this.#words[i & (length - 1)] = old[i & (old.length - 1)]
  }
}

function wordOf(number: number): number {
  return Math.floor(number / WORD)
}

// Segments of a real TCP that arrived ahead of a gap, until it is filled. Keeps bytes by sequence number, each once. It knows no flow: the
// receiver has clipped what it is given to the window, which bounds the bytes; the number of pieces is bounded here.
import { after, before, distance } from '../flow/serial.ts'

/** What a piece costs beside its bytes is paid for this many at most; what comes beyond is as good as lost, and its sender repeats it. */
export const MAX_PIECES = 4096

interface Piece {
  readonly seq: number
  readonly bytes: Uint8Array
}

/** A run of kept bytes, `from` up to but not including `to`. */
export interface Block {
  readonly from: number
  readonly to: number
}

export class Reassembly {
  /** In order, none overlaps another. */
  readonly #pieces: Piece[] = []
  /** Where the segment that was kept last began. */
  #latest = 0

  /** True when there is no gap. */
  get empty(): boolean {
    return this.#pieces.length === 0
  }

  /** Keeps a copy of what is not kept yet of `length` bytes of `memory` from `offset` on, which stand at `seq`. */
  keep(seq: number, memory: Uint8Array, offset: number, length: number): void {
    const end = (seq + length) | 0
    let i = this.#search(seq)
    let at = seq
    while (before(at, end) && this.#pieces.length < MAX_PIECES) {
      const next = this.#pieces.at(i)
      const gapEnd = next !== undefined && before(next.seq, end) ? next.seq : end
      if (after(gapEnd, at)) {
        const start = offset + distance(at, seq)
        this.#pieces.splice(i++, 0, { seq: at, bytes: memory.slice(start, start + distance(gapEnd, at)) })
      }
      at = next === undefined ? end : endOf(next)
      i++
    }
    this.#latest = seq
  }

  /** Takes out the bytes that stand at `next`, at most `most` of them; what lies before is forgotten. Undefined when there are none. */
  take(next: number, most: number): Uint8Array | undefined {
    const gone = this.#search(next)
    if (gone > 0) this.#pieces.splice(0, gone)
    const first = this.#pieces.at(0)
    if (first === undefined || after(first.seq, next) || most <= 0) return undefined
    const skip = distance(next, first.seq)
    const bytes = first.bytes.subarray(skip, skip + most)
    const rest = skip + bytes.length
    if (rest === first.bytes.length) this.#pieces.shift()
    else this.#pieces[0] = { seq: (first.seq + rest) | 0, bytes: first.bytes.subarray(rest) }
    return bytes
  }

  /** The run of kept bytes that the latest segment is part of (RFC 2018, 4: what a SACK option tells first), or the first run. */
  get block(): Block | undefined {
    const pieces = this.#pieces
    if (pieces.length === 0) return undefined
    let first = this.#search(this.#latest)
    if (first === pieces.length || after(pieces[first].seq, this.#latest)) first = 0
    let last = first
    while (first > 0 && endOf(pieces[first - 1]) === pieces[first].seq) first--
    while (last + 1 < pieces.length && endOf(pieces[last]) === pieces[last + 1].seq) last++
    return { from: pieces[first].seq, to: endOf(pieces[last]) }
  }

  /** Index of the first piece that ends after `seq`. */
  #search(seq: number): number {
    let low = 0
    let high = this.#pieces.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (after(endOf(this.#pieces[middle]), seq)) high = middle
      else low = middle + 1
    }
    return low
  }
}

function endOf({ seq, bytes }: Piece): number {
  return (seq + bytes.length) | 0
}

// The table of hops that the packet sender reads: one row for each interface and link header in use, counted by its users. Knows nothing of
// where a hop comes from.
import { HOP_BYTES, HOP_HEADER, HOP_IFINDEX, HOP_WORDS } from '../native/layout.ts'

/** Destination, source and EtherType (IEEE 802.3, 3.1.1). */
export const ETHERNET_HEADER = 14
const FIRST_ROWS = 16
/** A row that stays as it is: no interface has the index 0, so the kernel refuses what is sent by it. */
export const NOWHERE = 0

export class HopTable {
  /** Replaced by a larger array when it is full. */
  words = new Int32Array(FIRST_ROWS * HOP_WORDS)
  readonly #rows = new Map<string, number>()
  readonly #keys: string[] = []
  readonly #users: number[] = [1]
  readonly #free: number[] = []

  /** The row of this hop, which has one user more. `header` is copied. */
  acquire(ifindex: number, header: Uint8Array): number {
    const key = `${ifindex} ${header.join()}`
    const known = this.#rows.get(key)
    if (known !== undefined) {
      this.#users[known]++
      return known
    }
    const row = this.#free.shift() ?? this.#users.length
    if ((row + 1) * HOP_WORDS > this.words.length) {
      const larger = new Int32Array(this.words.length * 2)
      larger.set(this.words)
      this.words = larger
    }
    this.#rows.set(key, row)
    this.#keys[row] = key
    this.#users[row] = 1
    const at = row * HOP_WORDS
    this.words.fill(0, at, at + HOP_WORDS)
    this.words[at + HOP_IFINDEX] = ifindex
    this.words[at + HOP_BYTES] = header.length
    new Uint8Array(this.words.buffer, (at + HOP_HEADER) * Int32Array.BYTES_PER_ELEMENT, header.length).set(header)
    return row
  }

  /** One user less; -1 is nobody's row. A row without users is the last to be used again. */
  release(row: number): void {
    if (row < 0 || --this.#users[row] > 0) return
    this.#rows.delete(this.#keys[row])
    this.#free.push(row)
  }
}

/** Writes an Ethernet header. The words of the addresses are those of D_MAC_HIGH and D_MAC_LOW. */
export function writeEthernet(
  header: Uint8Array,
  toHigh: number,
  toLow: number,
  fromHigh: number,
  fromLow: number,
  etherType: number,
): void {
  const view = new DataView(header.buffer, header.byteOffset, ETHERNET_HEADER)
  view.setUint16(0, toHigh & 0xffff)
  view.setInt32(2, toLow)
  view.setUint16(6, fromHigh & 0xffff)
  view.setInt32(8, fromLow)
  view.setUint16(12, etherType)
}

// Which handshakes a server has seen, in bounded memory, so that a recorded one that is sent again gets no answer.

/** Of each of the two generations. */
const GENERATION = 1 << 16

/** Remembers at least the newest 65 536 salts, and at most twice as many. */
export class SaltMemory {
  #newer = new Set<string>()
  #older = new Set<string>()

  constructor(readonly generation = GENERATION) {}

  has(salt: Uint8Array): boolean {
    const key = keyOf(salt)
    return this.#newer.has(key) || this.#older.has(key)
  }

  add(salt: Uint8Array): void {
    this.#newer.add(keyOf(salt))
    if (this.#newer.size < this.generation) return
    this.#older = this.#newer
    this.#newer = new Set()
  }
}

/** Half of a salt is random enough. A message that is no handshake may be shorter. */
function keyOf(salt: Uint8Array): string {
  return Buffer.from(salt.buffer, salt.byteOffset, Math.min(16, salt.length)).toString('latin1')
}

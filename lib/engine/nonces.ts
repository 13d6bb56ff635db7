// Which hellos have been answered by listeners with a key: a recording of one gets nothing. The memory is bounded, so a recording may be forgotten, but not
// soon: an attacker who wants that needs the key, or has to wait for as many real clients.

/** In each of two generations. As text, some 40 bytes each. */
const GENERATION = 65_536

export class Nonces {
  readonly #generation: number
  #young = new Set<string>()
  #old = new Set<string>()

  /** @param generation at least so many of the newest are remembered, at most twice as many */
  constructor(generation: number = GENERATION) {
    this.#generation = generation
  }

  /** @returns false for one that is remembered */
  add(nonce: Uint8Array): boolean {
    const name = Buffer.from(nonce).toString('latin1')
    if (this.#young.has(name) || this.#old.has(name)) return false
    if (this.#young.size >= this.#generation) {
      this.#old = this.#young
      this.#young = new Set()
    }
    this.#young.add(name)
    return true
  }
}

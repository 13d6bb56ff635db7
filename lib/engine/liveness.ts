// Whether the other end of a flow is still there: how long nothing was heard, when to ask, when to give up. It sends nothing and ends nothing itself.
import { formatAddress, formatHostPort } from '../address.ts'
import { EADDRNOTAVAIL, ETIMEDOUT, FakeTcpError, systemError } from '../errors.ts'
import { F_LAST_HEARD_MS, S_KEY } from '../flow/layout.ts'
import { KEY_LOCAL, KEY_PORTS, KEY_REMOTE } from '../native/layout.ts'
import type { FlowOptions } from './flow-options.ts'
import type { LinkChoice } from './link-choice.ts'
import type { Slot } from './slot.ts'

/** Questions without an answer; they go at keepAliveMs, 4/3 and 5/3 of it, and the peer is dead at twice keepAliveMs. */
const QUESTIONS = 3
/** How long a flow waits for its local address to come back. */
const ADDRESS_GRACE_MS = 10_000

const NEVER = Number.POSITIVE_INFINITY

export class Liveness {
  readonly #slot: Slot
  readonly #link: LinkChoice
  readonly #options: FlowOptions
  /** Whether the peer is known to answer a question. One that is not is asked, for the sake of the boxes in between, but never given up. */
  answers = false
  /** When the peer was last heard, as of the last look, how often it has been asked since, and when last. */
  #silentSince = 0
  #asked = 0
  #askedMs = 0

  constructor(slot: Slot, link: LinkChoice, options: FlowOptions) {
    this.#slot = slot
    this.#link = link
    this.#options = options
  }

  /** The next time at which `check` may find something. */
  get dueMs(): number {
    const heard = this.#heardMs
    const { idleTimeoutMs: idle, keepAliveMs: keepAlive } = this.#options
    const idleDue = idle > 0 ? heard + idle : NEVER
    const askDue = keepAlive > 0 ? this.#questionDue(heard === this.#silentSince ? this.#asked : 0) : NEVER
    return Math.min(idleDue, askDue, this.#addressDue)
  }

  /** @returns 'ask' when it is time for a question, or why the flow is over */
  check(now: number): 'ask' | Error | undefined {
    const { idleTimeoutMs: idle, keepAliveMs: keepAlive } = this.#options
    const heard = this.#heardMs
    if (now >= this.#addressDue) return systemError(EADDRNOTAVAIL, 'send', this.#local)
    if (idle > 0 && now >= heard + idle) {
      const { address, port } = this.#remote
      const peer = formatHostPort(address, port)
      return new FakeTcpError('ERR_FAKETCP_IDLE', `Nothing was heard from ${peer} for ${idle} ms (idleTimeoutMs)`)
    }
    if (heard !== this.#silentSince) {
      this.#silentSince = heard
      this.#asked = 0
    }
    if (keepAlive === 0 || now < this.#questionDue(this.#asked)) return undefined
    if (this.answers && this.#asked >= QUESTIONS) return systemError(ETIMEDOUT, 'read', this.#remote)
    this.#asked++
    this.#askedMs = now
    return 'ask'
  }

  /** When the question is due that follows `asked` others, or the end. Each has its time to be answered, also in a process that was stopped and comes late. */
  #questionDue(asked: number): number {
    const { keepAliveMs } = this.#options
    return asked === 0 ? this.#heardMs + keepAliveMs : this.#askedMs + (this.answers ? keepAliveMs / QUESTIONS : keepAliveMs)
  }

  /** True while the flow's local address is missing and a time is set for its return. */
  get waitsForAddress(): boolean {
    return this.#addressDue !== NEVER
  }

  get #addressDue(): number {
    return (this.#link.path?.addressGoneSince ?? NEVER) + ADDRESS_GRACE_MS
  }

  get #heardMs(): number {
    return this.#slot.floats[this.#slot.floatBase + F_LAST_HEARD_MS]
  }

  get #local(): { address: string; port: number } {
    const { words, base } = this.#slot
    return { address: formatAddress(words, base + S_KEY + KEY_LOCAL), port: words[base + S_KEY + KEY_PORTS] & 0xffff }
  }

  get #remote(): { address: string; port: number } {
    const { words, base } = this.#slot
    return { address: formatAddress(words, base + S_KEY + KEY_REMOTE), port: words[base + S_KEY + KEY_PORTS] >>> 16 }
  }
}

// Whether a real TCP goes on taking what we send: when to ask it for an acknowledgement, and when it is clear that a segment of ours was lost, which
// nobody sends again. It sends nothing and ends nothing itself.
import { formatAddress, formatHostPort } from '../address.ts'
import { FakeTcpError } from '../errors.ts'
import { F_LAST_HEARD_MS, S_KEY, S_SND_NXT, S_SND_UNA, S_SND_WND } from '../flow/layout.ts'
import { distance } from '../flow/serial.ts'
import { KEY_PORTS, KEY_REMOTE } from '../native/layout.ts'
import type { Slot } from './slot.ts'

/** How long sent bytes may stay unacknowledged while the peer's window is open and none before them is acknowledged either. */
export const STALL_MS = 5000
/** How long a peer whose window is closed may leave every question unanswered. */
export const CLOSED_WINDOW_MS = 30_000
/**
 * The first question goes after so long, the next ones after twice as long each time: an acknowledgement that was lost comes again, and a window
 * that opened unheard is told. Linux answers such a segment every 500 ms at most (tcp_invalid_ratelimit).
 */
const FIRST_QUESTION_MS = 600
/** Between two questions at most. */
const QUESTION_MS = 5000
/** Unanswered questions before the end, however late it is: answers may wait to be read in a process that was stopped or busy. */
const QUESTIONS = 3

const NEVER = Number.POSITIVE_INFINITY

export class Progress {
  readonly #slot: Slot
  /** When `check` is to be called; Infinity while nothing is expected of the peer. */
  dueMs = NEVER
  /** One past the last byte sent. A FIN is not counted, it is repeated and has limits of its own. */
  #sentTo = 0
  /** Something waits for the window to open. */
  #waits = false
  #since = 0
  #asked = 0

  constructor(slot: Slot) {
    this.#slot = slot
  }

  /**
   * What there was to send has been sent, as far as the window allowed.
   *
   * @param waits whether something is left
   * @param fin whether our FIN is among what was sent ever
   */
  sent(now: number, waits: boolean, fin: boolean): void {
    if (!fin) this.#sentTo = this.#slot.words[this.#slot.base + S_SND_NXT]
    this.#waits = waits
    if (this.dueMs === NEVER) this.moved(now)
  }

  /** The peer has acknowledged something new, or opened a closed window. */
  moved(now: number): void {
    this.#since = now
    this.#asked = 0
    this.dueMs = this.#outstanding || this.#waits ? now + FIRST_QUESTION_MS : NEVER
  }

  /** @returns 'ask' when it is time for a question (`questionSequence`), or why the flow is over */
  check(now: number): 'ask' | FakeTcpError | undefined {
    if (!this.#outstanding && !this.#waits) {
      this.dueMs = NEVER
      return undefined
    }
    const { words, base, floats, floatBase } = this.#slot
    const stalls = this.#outstanding && words[base + S_SND_WND] > 0
    const heard = Math.max(this.#since, floats[floatBase + F_LAST_HEARD_MS])
    const end = stalls ? this.#since + STALL_MS : heard + CLOSED_WINDOW_MS
    if (now >= end && this.#asked >= QUESTIONS) return this.#stalled(stalls)
    this.#asked++
    this.dueMs = now + Math.min(FIRST_QUESTION_MS * 2 ** this.#asked, QUESTION_MS)
    if (this.#asked >= QUESTIONS) this.dueMs = Math.min(this.dueMs, Math.max(now, end))
    return 'ask'
  }

  get #outstanding(): boolean {
    return distance(this.#sentTo, this.#slot.words[this.#slot.base + S_SND_UNA]) > 0
  }

  #stalled(open: boolean): FakeTcpError {
    const { words, base } = this.#slot
    const peer = formatHostPort(formatAddress(words, base + S_KEY + KEY_REMOTE), words[base + S_KEY + KEY_PORTS] >>> 16)
    const message = open
      ? `${peer} has acknowledged nothing for ${STALL_MS} ms: a segment was lost, and dialect 'tcp' sends none again`
      : `${peer} takes nothing and has answered nothing for ${CLOSED_WINDOW_MS} ms`
    return new FakeTcpError('ERR_FAKETCP_STALLED', message)
  }
}

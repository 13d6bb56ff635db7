// Whether a flow is alive and what is to be said about it, judged once a second from how many messages were sent and received. Pure.

export interface PulseLimits {
  /** The flow is dead when what was sent has been answered by nothing for so many seconds. Default: never. */
  readonly silenceTicks?: number
  /** The flow is dead when nothing has come for so many seconds since it opened: whoever has recorded a handshake can repeat it, no more. Default: never. */
  readonly proofTicks?: number
}

export type Beat =
  | { readonly is: 'quiet' }
  /** A report is due; `asks` for one in return. */
  | { readonly is: 'report'; readonly asks: boolean }
  | { readonly is: 'dead'; readonly reason: string }

export class Pulse {
  readonly #silenceTicks: number
  readonly #proofTicks: number
  /** As of the last beat. */
  #sent = 0
  #received = 0
  /** Reports among what has come since. */
  #reports = 0
  #asked = false
  #ticks = 0
  /** Beats since something of ours was answered by nothing. */
  #silent = 0

  constructor({ silenceTicks = Number.POSITIVE_INFINITY, proofTicks = Number.POSITIVE_INFINITY }: PulseLimits) {
    this.#silenceTicks = silenceTicks
    this.#proofTicks = proofTicks
  }

  /** A report has come, which by itself calls for none, unless it asks. */
  reportTaken(asks: boolean): void {
    this.#reports++
    this.#asked ||= asks
  }

  /** A report has gone, which calls for no other. @param sent messages sent so far */
  reportSent(sent: number): void {
    this.#sent = sent
  }

  /** Once a second. Messages sent and received so far, reports included. */
  beat(sent: number, received: number): Beat {
    const heard = received !== this.#received
    const spoke = sent !== this.#sent
    const due = this.#asked || spoke || received - this.#received > this.#reports
    if (heard) this.#silent = 0
    else if (spoke || this.#silent > 0) this.#silent++
    this.#asked = false
    this.#reports = 0
    this.#sent = sent
    this.#received = received
    if (this.#silent >= this.#silenceTicks) return { is: 'dead', reason: `nothing was heard of the other end for ${this.#silent} s` }
    if (++this.#ticks >= this.#proofTicks && received === 0) return { is: 'dead', reason: 'its handshake was followed by nothing' }
    const asks = this.#silent > 0
    return due || asks ? { is: 'report', asks } : { is: 'quiet' }
  }
}

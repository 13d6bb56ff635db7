// The path MTU of one flow: which news of a smaller one is believed, and what it means for the flow's messages. It is never raised: a larger message
// would have to be lost to find out.
import { S_MAX_MESSAGE, S_PATH_MTU, S_SND_MAX, S_SND_UNA } from '../flow/layout.ts'
import { distance } from '../flow/serial.ts'
import { REPORT_MTU, REPORT_SEQ, REPORT_SIZE } from '../native/layout.ts'
import type { LinkChoice } from './link-choice.ts'
import type { Slot } from './slot.ts'

/** Reports of less mean this much: the kernel's net.ipv4.route.min_pmtu, and what every IPv6 link takes (RFC 8200, 5). */
const LEAST = { IPv4: 552, IPv6: 1280 } as const

/** Whether a report is of a packet that can be on its way (RFC 5927, 4.1), and that was really too long. */
export function judgeReport(w: Int32Array, b: number, report: Int32Array, at: number): boolean {
  const seq = report[at + REPORT_SEQ]
  const inFlight = distance(seq, w[b + S_SND_UNA]) >= 0 && distance(seq, w[b + S_SND_MAX]) < 0
  return inFlight && report[at + REPORT_SIZE] > report[at + REPORT_MTU]
}

export class PathMtu {
  readonly #slot: Slot
  readonly #link: LinkChoice
  readonly #least: number
  /** Bytes of IP and TCP header of each segment. */
  #headers = 0

  constructor(slot: Slot, link: LinkChoice, family: keyof typeof LEAST) {
    this.#slot = slot
    this.#link = link
    this.#least = LEAST[family]
  }

  /** The handshake is complete: this many bytes stand in front of each message. */
  open(headers: number): void {
    this.#headers = headers
    this.#link.longest = headers + this.#slot.words[this.#slot.base + S_MAX_MESSAGE]
  }

  /** True when a message of so many bytes is known to be too long for the path. */
  exceededBy(size: number): boolean {
    return size + this.#headers > this.#slot.words[this.#slot.base + S_PATH_MTU]
  }

  /**
   * What a router says. @returns 'smaller' when the longest message has become shorter, 'refused' when it must not be believed, undefined when it
   * is no news
   */
  reported(report: Int32Array, at: number): 'smaller' | 'refused' | undefined {
    const { words, base } = this.#slot
    if (!judgeReport(words, base, report, at)) return 'refused'
    return this.lower(Math.max(report[at + REPORT_MTU], this.#least)) ? 'smaller' : undefined
  }

  /**
   * What is known: the MTU of a device or route of this host, or of a report that is believed.
   *
   * @returns true when the longest message has become shorter
   */
  lower(mtu: number): boolean {
    const { words: w, base: b } = this.#slot
    if (mtu >= w[b + S_PATH_MTU]) return false
    w[b + S_PATH_MTU] = mtu
    const fits = Math.max(mtu - this.#headers, 1)
    if (fits >= w[b + S_MAX_MESSAGE]) return false
    w[b + S_MAX_MESSAGE] = fits
    this.#link.longest = this.#headers + fits
    return true
  }
}

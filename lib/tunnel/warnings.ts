// Warnings for people: one of each kind at once, then at most one every 30 s with the number of those kept back.

const PERIOD_MS = 30_000

export type WarningCode =
  /** Server: somebody's first message does not fit the key. */
  | 'wrong-key'
  /** Server: a connection could not be accepted (`EMFILE`, ...). */
  | 'accept'
  /** Client: connected, but nobody answers the tunnel's handshake: wrong key, or no tunnel server there. */
  | 'no-answer'
  /** Client: a flow could not be dialled; the message has the error. */
  | 'unreachable'
  /** Client: an open flow has ended and is dialled again. */
  | 'reconnect'
  /** A datagram was too long; the message names the longest that fits and the MTU for WireGuard. */
  | 'message-size'
  /** The kernel granted less receive buffer than was asked for. */
  | 'receive-buffer'
  /** `maxPeers` is reached. */
  | 'peer-limit'
  /** The UDP side refused something (`ECONNREFUSED`, ...). */
  | 'udp'

/** At most one of each code every 30 s. */
export interface TunnelWarning {
  readonly code: WarningCode
  /** For people. */
  readonly message: string
  /** How often it has happened since the last of its code. */
  readonly count: number
}

interface Held {
  nextMs: number
  count: number
}

export class Warnings {
  readonly #held = new Map<WarningCode, Held>()
  readonly #tell: (warning: TunnelWarning) => void
  readonly #now: () => number

  constructor(tell: (warning: TunnelWarning) => void, now: () => number = () => performance.now()) {
    this.#tell = tell
    this.#now = now
  }

  /** @param message made only if it is told */
  warn(code: WarningCode, message: () => string, count = 1): void {
    const held = this.#held.get(code) ?? { nextMs: 0, count: 0 }
    this.#held.set(code, held)
    held.count += count
    const now = this.#now()
    if (now < held.nextMs) return
    const warning = { code, message: message(), count: held.count }
    held.nextMs = now + PERIOD_MS
    held.count = 0
    this.#tell(warning)
  }
}

// A blind attacker in a host of its own: it sends segments in somebody else's name (native/test/spoof.cc). It sees no traffic.
import type { Host } from './hosts.ts'

export const FIN = 1
export const SYN = 2
export const RST = 4
export const PSH = 8
export const ACK = 16

/** 32-bit numbers, drawn evenly; serial arithmetic, so `from` may be negative. */
export interface Range {
  readonly from: number
  readonly count: number
}
export const ANY: Range = { from: 0, count: 2 ** 32 }

export interface Flood {
  readonly count: number
  /** Of the TCP header: FIN, SYN, RST, PSH, ACK. */
  readonly flags: number
  /** Default: any. */
  readonly seq?: Range
  /** Default: any. */
  readonly ack?: Range
  /** With a timestamps option, its values random. Default false. */
  readonly timestamps?: boolean
  /** Bytes of payload. Default 0. */
  readonly payload?: number
}

export interface Names {
  readonly source: string
  readonly sourcePort: number
  readonly destination: string
  readonly destinationPort: number
  /** More than 1: so many addresses from `source` on, then the next port, from `sourcePort` on: each packet is another stranger's. Default 1. */
  readonly sources?: number
}

/**
 * Sends floods one after the other; resolves when all have left the host.
 *
 * @param helper the compiled test/spoof.cc
 * @param ratePerS packets a second; more than a receiver handles would be lost on the way and prove nothing
 * @returns packets sent
 */
export async function spoof(
  host: Host,
  helper: { path: string },
  names: Names,
  floods: readonly Flood[],
  ratePerS = 40_000,
): Promise<number> {
  const { source, sourcePort, destination, destinationPort, sources = 1 } = names
  const args = [sources, source, sourcePort, destination, destinationPort, ratePerS, 1].map(String)
  const draw = ({ from, count }: Range) => [from >>> 0, count === 2 ** 32 ? 0 : count]
  const orders = floods.map(({ count, flags, seq = ANY, ack = ANY, timestamps = false, payload = 0 }) =>
    [count, flags, ...draw(seq), ...draw(ack), timestamps ? 1 : 0, payload].join(' '),
  )
  const sent = await host.output(helper.path, args, `${orders.join('\n')}\n`)
  return sent.split('\n').reduce((sum, line) => sum + Number(line), 0)
}

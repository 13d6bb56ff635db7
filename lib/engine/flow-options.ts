// What dial and listen say about each of their flows, passed down as it is.

export interface FlowOptions {
  /** A flow on which nothing is heard for so long ends. 0: never. */
  readonly idleTimeoutMs: number
  /** Silence after which the peer is asked for a sign of life. 0: never. */
  readonly keepAliveMs: number
  /** Whether a peer of this library must prove by acknowledgement and timestamp that it sees what we send. */
  readonly strict: boolean
  /** Differentiated services code point of every packet, 0 to 63. */
  readonly dscp: number
}

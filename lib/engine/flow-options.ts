// What dial and listen say about each of their flows, passed down as it is.

/** How messages are put into segments: one each as it is, or behind a header with a counter. */
export type FramingMode = 'none' | 'counted'

export interface FlowOptions {
  /** Of the hello: who has another is a stranger. undefined: the public one, which everybody has. */
  readonly helloKey: Uint8Array | undefined
  /** A flow on which nothing is heard for so long ends. 0: never. */
  readonly idleTimeoutMs: number
  /** Silence after which the peer is asked for a sign of life. 0: never. */
  readonly keepAliveMs: number
  /** Whether a peer of this library must prove by acknowledgement and timestamp that it sees what we send. */
  readonly strict: boolean
  readonly framing: FramingMode
  /** How long a message may wait for those before it, with framing 'counted'. 0: it does not. */
  readonly reorderWindowMs: number
  /** Differentiated services code point of every packet, 0 to 63. */
  readonly dscp: number
}

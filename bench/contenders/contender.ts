// What the bench needs of each way to carry messages, so that one load generator and one counter serve all of them.

/** One end of an open connection. */
export interface Peer {
  /**
   * Sends copies of `message`: `count` of them, or fewer when the transport takes no more now. `done` is called later, with the number it took,
   * when it takes more. One burst at a time. The bytes must stay untouched.
   */
  burst(message: Buffer, count: number, done: (sent: number) => void): void
  /** Names who gets what arrives: one message, or with a stream whatever bytes came together. Replaces the one before. */
  receive(handler: (bytes: Buffer) => void): void
  /** What a reader of the figures should know: socket buffers, capture mode, drops. */
  facts(): Record<string, string | number>
  close(): Promise<void>
}

/** A listening end. */
export interface Listening {
  readonly port: number
  /** The first connection; there is one for each listening end. */
  readonly peer: Promise<Peer>
  close(): Promise<void>
}

export interface Contender {
  /** True where message boundaries are not kept: messages are then bytes divided by size. */
  readonly stream: boolean
  listen(address: string): Promise<Listening>
  connect(address: string, port: number): Promise<Peer>
}

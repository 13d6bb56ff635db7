// What the bench needs of each way to carry messages, so that one load generator and one counter serve all of them.

/**
 * Gets what has arrived: one message; or of a transport that hands over trains, messages of `segmentSize` bytes each but the last, which may be shorter; or of a
 * stream whatever bytes came together.
 */
export type Handler = (bytes: Buffer, segmentSize?: number) => void

/** One end of an open connection. */
export interface Peer {
  /**
   * Sends copies of `message`: `count` of them, or fewer when the transport takes no more now. `done` is called later, with the number it took,
   * when it takes more. One burst at a time. The bytes must stay untouched.
   */
  burst(message: Buffer, count: number, done: (sent: number) => void): void
  /** Names who gets what arrives. Replaces the one before. */
  receive(handler: Handler): void
  /** What a reader of the figures should know: socket buffers, capture mode, drops. */
  facts(): Record<string, string | number>
  close(): Promise<void>
}

/** A listening end. */
export interface Listening {
  readonly port: number
  /** Resolves when all connections are there; with several of them one peer may stand for all, and then it only receives. */
  readonly accepted: Promise<Peer[]>
  close(): Promise<void>
}

export interface Contender {
  /** What a handler gets: a message each, messages in trains, or a stream without boundaries, whose messages are bytes divided by size. */
  readonly delivers: 'messages' | 'trains' | 'bytes'
  /** Waits for `flows` connections. */
  listen(address: string, flows: number): Promise<Listening>
  connect(address: string, port: number): Promise<Peer>
}

/** Collects the first `count` that arrive. */
export function collector<T>(count: number): { add(one: T): void; readonly all: Promise<T[]> } {
  const collected: T[] = []
  let resolve: (all: T[]) => void
  const all = new Promise<T[]>((done) => {
    resolve = done
  })
  return {
    all,
    add(one) {
      if (collected.push(one) === count) resolve(collected)
    },
  }
}

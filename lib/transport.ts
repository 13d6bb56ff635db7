// What the streams need of whatever carries their messages. The fake TCP engine implements it, and so can UDP or anything that keeps
// message boundaries; the streams (conn.ts, listener.ts) know nothing else.
import type { ConnStats, ListenerStats } from './stats.ts'

export type Family = 'IPv4' | 'IPv6'

/** Why messages were lost inside this process, with a `'drop'` event each. */
export type DropReason =
  /** Longer than `maxMessageSize`, which may have shrunk since it was written. */
  | 'message-size'
  /** Without a byte. */
  | 'message-empty'
  /** The application reads too slowly: `receiveQueueBytes` is full. */
  | 'receive-queue'
  /** The kernel refused the segment (a firewall's OUTPUT rule, no route, ...). */
  | 'send-refused'

/** One lost message, or a run of them. `size` and `max` in bytes. */
export interface Drop {
  readonly reason: DropReason
  /** Of each message. */
  readonly size: number
  /** Messages, where a whole run was refused; else left out. */
  readonly count?: number
  /** The limit that it broke, where there is one. */
  readonly max?: number
  /** With `send-refused`: the system's code. */
  readonly code?: string
}

/** The path takes shorter packets than before. Both in bytes. */
export interface MtuChange {
  /** Of the longest message that fits from now on. */
  readonly maxMessageSize: number
  /** Of the longest IP packet. */
  readonly pathMtu: number
}

/** What goes out: one message, or with `segmentSize` a run of messages of that size, one behind the other, the last of which may be shorter. */
export interface Outgoing extends Uint8Array {
  readonly segmentSize?: number
}

/** Why one end closed the connection, in its own words. */
export interface CloseReason {
  /** 0 to 2^32 - 1; what it means is the application's. */
  readonly code: number
  readonly reason: string
}

/** The stream above a channel. */
export interface ChannelSink {
  /**
   * A train has arrived: `length` bytes at `offset`, one message for each `segment` bytes, the last may be shorter. The first `header` bytes of each
   * are the transport's. The memory belongs to the transport and is overwritten after the call returns: copy what is to be kept.
   */
  onTrain(memory: Uint8Array, offset: number, length: number, segment: number, header: number): void
  /** Bytes that `onTrain` would take now without dropping any, given as one message without a header. */
  room(): number
  /** The peer will send no more. */
  onEnd(): void
  /** The channel is gone; with an error unless both sides had ended it. Called at most once. */
  onClose(error: Error | undefined): void
  /** A message of this channel was lost on its way out. */
  onDrop(drop: Drop): void
  /** Only shorter messages fit from now on. */
  onMtu(change: MtuChange): void
}

/** One connection: both addresses, messages out, messages in through its sink. */
export interface Channel {
  readonly family: Family
  readonly localAddress: string
  readonly localPort: number
  readonly remoteAddress: string
  readonly remotePort: number
  /** Bytes of the longest message that fits one segment now. */
  readonly maxMessageSize: number
  /** Bytes of the shortest message that can be sent. */
  readonly minMessageSize: 0 | 1
  /** Bytes of the longest reason that can be given for closing; undefined where none can. */
  readonly maxReasonBytes: number | undefined
  /** Why the peer has closed, if it said. */
  readonly closeReason: CloseReason | undefined
  readonly stats: ConnStats
  /** Names the sink; whatever arrived before is delivered to it. Once. */
  attach(sink: ChannelSink): void
  /**
   * Sends messages in order, each `minMessageSize`..`maxMessageSize` bytes; the caller has checked. The bytes must stay untouched until `done`, which is
   * called when the kernel has taken (or refused, see `onDrop`) all of them. One call at a time. Nothing is sent on a closed channel, `done` is called.
   */
  send(messages: readonly Outgoing[], done: () => void): void
  /** The stream's reader has read everything that waited for it. */
  drained(): void
  /** Runs `run` once before what this tick has written leaves: at the end of the tick, or of the batch of arrivals that is being delivered. */
  defer(run: () => void): void
  /** Sends at once what was written so far, for whoever writes much in one turn of the event loop. Within a batch of arrivals it waits for the batch's end. */
  flush(): void
  /** No more messages from this side. `done` when the peer knows, or when it is clear that it never will. @param reason of at most `maxReasonBytes` */
  end(done: () => void, reason?: CloseReason): void
  /** Adds a message that the stream dropped to the statistics. */
  countDrop(drop: Drop): void
  /** The stream is gone: closes in good order if both sides had ended or ours is known to have, else abruptly. Idempotent. */
  release(): void
  ref(): void
  unref(): void
}

/** A refused connection, as the listener's `'drop'` event tells it. */
export interface RefusedConnection {
  /**
   * `taken`: another thread of a shared table has a flow on the same 4-tuple. `guard`: its kernel socket could not be marked; the listener's `'error'` tells why.
   * `framing`: the client does not frame messages as this listener does, or left before it told. `hello`: it has not the listener's `helloKey`, or left before it
   * showed it; `replay`: it sent a hello of that key which had been answered before. Both are told once this is clear, and the client is not.
   */
  readonly reason: 'maxConnections' | 'backlog' | 'table-full' | 'taken' | 'guard' | 'closed' | 'framing' | 'hello' | 'replay'
  readonly localAddress: string
  readonly localPort: number
  readonly remoteAddress: string
  readonly remotePort: number
  readonly family: Family
}

/** The listener above an acceptor. */
export interface AcceptorSink {
  /** Asked before a channel is made: a reason refuses the connection. */
  refuse(): RefusedConnection['reason'] | undefined
  /** A handshake has completed; no message has been delivered yet. */
  onChannel(channel: Channel): void
  onRefused(refused: RefusedConnection): void
  /** Accepting has failed for now (too many open files, ...) or for good. */
  onError(error: Error): void
}

export interface ListenAddress {
  readonly address: string
  readonly port: number
  readonly family: Family
}

/** A listening address of a transport. */
export interface Acceptor {
  readonly address: ListenAddress
  readonly stats: ListenerStats
  /** Starts accepting. Once. */
  attach(sink: AcceptorSink): void
  /** No new connections from now on; channels live on. Resolves when the address is free. Idempotent. */
  close(): Promise<void>
  ref(): void
  unref(): void
}

// FakeTcpConn: one connection as a Duplex of messages. It stands on the Channel interface and knows no fake TCP.
import { Duplex } from 'node:stream'
import { channels } from './diagnostics.ts'
import { FakeTcpError, guarded, invalidOption, rethrowLater } from './errors.ts'
import { type MessageArena, PIECE_MESSAGES, view } from './message-arena.ts'
import type { ConnStats } from './stats.ts'
import type { Channel, ChannelSink, CloseReason, Drop, Family, MtuChange, Outgoing } from './transport.ts'

export interface ConnOptions {
  /** Bytes that may wait for the kernel before `write` returns false. Default 256 KiB. */
  readonly writableHighWaterMark: number
  /** Messages that the readable side buffers before it stops asking. Default 64. */
  readonly readableHighWaterMark: number
  /** Bytes that may wait for a slow reader, 128 more counted for each message; what comes beyond is dropped and counted, with `dialect: 'tcp'` the peer is made to wait. Default 1 MiB. */
  readonly receiveQueueBytes: number
  /** What `write` does with a message that does not fit: refuse it, or cut it (for byte-stream users). Default 'error'; 'split' with `dialect: 'tcp'`. */
  readonly oversize: 'error' | 'split'
  /** As in `node:net`: whether our side stays open when the peer has ended. Default false. */
  readonly allowHalfOpen: boolean
}

/** Messages that arrived in one piece. */
export interface Train {
  /** The messages, one behind the other. The bytes are the listener's: they are never written again. */
  readonly buffer: Buffer
  /** Bytes of each message; the last may be shorter. 0 where all are empty, which framing 'counted' allows. */
  readonly segmentSize: number
  /** Messages in `buffer`. */
  readonly count: number
}

/**
 * Takes messages where they arrived: `length` bytes at `offset`, one message for each `segment` bytes, the last may be shorter. The bytes may be overwritten, and are
 * the transport's again when the call returns.
 */
export type TrainTap = (memory: Uint8Array, offset: number, length: number, segment: number) => void

export interface FakeTcpConnEvents {
  data: [message: Buffer]
  /** While anybody listens to it, messages come here, as many at a time as crossed the kernel in one piece, and there is no `'data'`. They come at once: `pause()` does not hold them back. */
  train: [train: Train]
  drop: [drop: Drop]
  /** `maxMessageSize` has become smaller: a router or an interface on the way takes shorter packets than before. */
  mtu: [change: MtuChange]
  close: [hadError: boolean]
  drain: []
  end: []
  error: [error: Error]
  finish: []
  pause: []
  resume: []
  readable: []
}

/** The inherited methods, typed by {@link FakeTcpConnEvents}. */
export interface FakeTcpConn {
  on<E extends keyof FakeTcpConnEvents>(event: E, listener: (...args: FakeTcpConnEvents[E]) => void): this
  on(event: string | symbol, listener: (...args: unknown[]) => void): this
  once<E extends keyof FakeTcpConnEvents>(event: E, listener: (...args: FakeTcpConnEvents[E]) => void): this
  once(event: string | symbol, listener: (...args: unknown[]) => void): this
  off<E extends keyof FakeTcpConnEvents>(event: E, listener: (...args: FakeTcpConnEvents[E]) => void): this
  off(event: string | symbol, listener: (...args: unknown[]) => void): this
  addListener<E extends keyof FakeTcpConnEvents>(event: E, listener: (...args: FakeTcpConnEvents[E]) => void): this
  addListener(event: string | symbol, listener: (...args: unknown[]) => void): this
  removeListener<E extends keyof FakeTcpConnEvents>(event: E, listener: (...args: FakeTcpConnEvents[E]) => void): this
  removeListener(event: string | symbol, listener: (...args: unknown[]) => void): this
  /** Yields one message each time. Leaving the loop destroys the connection, as with every Node stream. */
  [Symbol.asyncIterator](): NodeJS.AsyncIterator<Buffer>
}

const EMPTY = Buffer.alloc(0)
/** Of a reason for closing. */
const MAX_CODE = 2 ** 32 - 1
/** What a waiting message costs beside its bytes: without it, a queue of tiny ones would take a hundred times its limit. */
const MESSAGE_COST = 128

/** An IP packet has no more. */
const LONGEST_MESSAGE = 65535

/** Called once the kernel has taken the message, or with the reason why it was refused. */
export type WriteCallback = (error: Error | null | undefined) => void

/**
 * One connection. `write()` sends one message, each `'data'` event is one message; messages can be lost, doubled and reordered by the network,
 * never merged or split. Writes of one tick are corked and leave together.
 *
 * A message that is longer than `maxMessageSize`, or empty unless framing is 'counted', is refused by its callback (`ERR_FAKETCP_MESSAGE_EMPTY`, `ERR_FAKETCP_MESSAGE_SIZE`) and
 * reported by a `'drop'` event; the stream lives on. A message that arrives while `receiveQueueBytes` are waiting for a slow reader is dropped and reported too.
 */
// biome-ignore lint/suspicious/noUnsafeDeclarationMerging: the interface only narrows methods that Duplex implements
export class FakeTcpConn extends Duplex {
  readonly #channel: Channel
  readonly #arena: MessageArena
  readonly #receiveQueueBytes: number
  readonly #split: boolean
  /** Why we close. */
  #closing: CloseReason | undefined
  /** Messages in front of push(), from #head on. */
  #queue: Buffer[] = []
  #head = 0
  #queuedBytes = 0
  #wanted = false
  #peerEnded = false
  #autoCorked = false
  /** Somebody listens to 'train', or did when the last one came. */
  #inTrains = false
  #tap: TrainTap | undefined
  readonly #uncorkOnce = () => {
    this.#autoCorked = false
    this.uncork()
  }

  readonly #onNewListener = (event: string | symbol) => {
    if (event === 'train' && !this.#inTrains) process.nextTick(() => this.#startTrains())
  }

  /** @internal Made by dial and listeners. */
  constructor(channel: Channel, arena: MessageArena, options: ConnOptions) {
    super({
      readableObjectMode: true,
      readableHighWaterMark: options.readableHighWaterMark,
      writableHighWaterMark: options.writableHighWaterMark,
      allowHalfOpen: options.allowHalfOpen,
    })
    this.#channel = channel
    this.#arena = arena
    this.#receiveQueueBytes = options.receiveQueueBytes
    this.#split = options.oversize === 'split'
    this.#watchListeners()
  }

  /** @internal Lets messages in; called once the connection has been announced. */
  static start(conn: FakeTcpConn): void {
    const sink: ChannelSink = {
      onTrain: (memory, offset, length, segment, header) => conn.#receive(memory, offset, length, segment, header),
      room: () => conn.#room(),
      onEnd: () => conn.#end(),
      onClose: (error) => conn.#close(error),
      onDrop: (drop) => conn.#tellDrop(drop),
      onMtu: (change) => conn.emit('mtu', change),
    }
    conn.#channel.attach(sink)
  }

  /**
   * @internal From here on messages go there and nowhere else, those first that have waited. It saves the copy that `'train'` makes. Not with framing, whose headers stand
   * between the messages.
   */
  static tap(conn: FakeTcpConn, onTrain: TrainTap): void {
    for (let message = conn.read(); message !== null; message = conn.read()) onTrain(message, 0, message.length, message.length)
    conn.#tap = onTrain
    // 'end' comes to a stream that flows.
    conn.resume()
  }

  /** @internal Sends what was written in this turn without waiting for its end. */
  static flush(conn: FakeTcpConn): void {
    conn.#channel.flush()
  }

  get family(): Family {
    return this.#channel.family
  }
  get localAddress(): string {
    return this.#channel.localAddress
  }
  get localPort(): number {
    return this.#channel.localPort
  }
  get remoteAddress(): string {
    return this.#channel.remoteAddress
  }
  get remotePort(): number {
    return this.#channel.remotePort
  }
  /** Bytes of the longest message that fits: path MTU less IP and TCP headers, options counted, and the frame header with framing 'counted'. It may shrink; see `'mtu'`. */
  get maxMessageSize(): number {
    return this.#channel.maxMessageSize
  }
  get stats(): ConnStats {
    return this.#channel.stats
  }

  /** Keeps the process alive while the connection is open (the default). */
  ref(): this {
    this.#channel.ref()
    return this
  }

  /** Lets the process end although the connection is open. */
  unref(): this {
    this.#channel.unref()
    return this
  }

  /** Why the peer closed the connection, with framing 'counted' and if it said; known before `'end'`. */
  get closeReason(): CloseReason | undefined {
    return this.#channel.closeReason
  }

  /**
   * Ends our side with a FIN and resolves when the connection is gone. What is still unread is discarded. Does not reject for the connection's sake: its error is
   * told by `'error'`.
   *
   * @param why with framing 'counted': what the peer will find as `closeReason`, unless our side has ended already. `code` is an integer from 0 to 2^32 - 1, default 0;
   * `reason` has at most 256 bytes of UTF-8, default ''
   * @throws (rejects) FakeTcpError `ERR_FAKETCP_INVALID_OPTION` for a reason without framing, or one that does not fit
   */
  async close(why: Partial<CloseReason> = {}): Promise<void> {
    if (why.code !== undefined || why.reason !== undefined) this.#closing = this.#parseReason(why)
    await new Promise<void>((resolve) => {
      if (this.closed) {
        resolve()
        return
      }
      this.once('close', () => resolve())
      if (this.destroyed) return
      if (this.writableFinished) this.destroy()
      else {
        this.once('finish', () => this.destroy())
        if (!this.writableEnded) this.end()
      }
    })
  }

  #parseReason({ code = 0, reason = '' }: Partial<CloseReason>): CloseReason {
    const max = this.#channel.maxReasonBytes
    if (max === undefined) throw invalidOption('reason', "left out, and so the code, unless framing is 'counted'", reason)
    if (!Number.isInteger(code) || code < 0 || code > MAX_CODE) throw invalidOption('code', `an integer from 0 to ${MAX_CODE}`, code)
    if (typeof reason !== 'string' || Buffer.byteLength(reason) > max) {
      throw invalidOption('reason', `a text of at most ${max} bytes in UTF-8`, reason)
    }
    return { code, reason }
  }

  /** Closes gracefully (Node's own would destroy the stream with an AbortError). */
  override async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  /**
   * Text decoding merges and splits messages, so it is refused: decode each message with `message.toString(encoding)`.
   *
   * @throws FakeTcpError `ERR_FAKETCP_METHOD`
   */
  override setEncoding(_encoding: BufferEncoding): never {
    throw new FakeTcpError('ERR_FAKETCP_METHOD', 'setEncoding() would merge messages; use message.toString(encoding) on each message')
  }

  /**
   * Sends one message.
   *
   * @param chunk 1..`maxMessageSize` bytes (0 too with framing 'counted'), or text of which the encoded bytes are that long
   * @returns false when `writableHighWaterMark` bytes wait: wait for `'drain'`
   */
  override write(chunk: unknown, callback?: WriteCallback): boolean
  override write(chunk: unknown, encoding?: BufferEncoding, callback?: WriteCallback): boolean
  override write(chunk: unknown, encodingOrCallback?: BufferEncoding | WriteCallback, maybeCallback?: WriteCallback): boolean {
    const callback = typeof encodingOrCallback === 'function' ? encodingOrCallback : maybeCallback
    const encoding = typeof encodingOrCallback === 'string' ? encodingOrCallback : undefined
    let message = chunk
    let size: number
    if (typeof chunk === 'string') {
      const bytes = Buffer.from(chunk, encoding)
      message = bytes
      size = bytes.length
    } else if (ArrayBuffer.isView(chunk)) size = chunk.byteLength
    else return super.write(chunk, encoding as BufferEncoding, callback) // the TypeError of every writable

    this.#corkForTick()
    if (size < this.#channel.minMessageSize || size > this.#channel.maxMessageSize)
      return this.#refuse(message as NodeJS.ArrayBufferView, size, callback)
    return super.write(message, callback)
  }

  /**
   * Sends a run of messages of equal size in one go: what `write` does for each of them, without a Buffer, a call and a look for each.
   * Counts as one `write` for `'drain'`, and is refused like one: all of it, when `segmentSize` does not fit.
   *
   * @param buffer the messages, one behind the other; the bytes must stay untouched until `callback`
   * @param segmentSize bytes of each message, 1..`maxMessageSize`; the last message may be shorter
   * @returns false when `writableHighWaterMark` bytes wait: wait for `'drain'`
   * @throws FakeTcpError `ERR_FAKETCP_INVALID_OPTION` for a buffer that is no Uint8Array or a segment size that is no positive integer
   */
  sendTrain(buffer: Uint8Array, segmentSize: number, callback?: WriteCallback): boolean {
    if (!(buffer instanceof Uint8Array)) throw invalidOption('buffer', 'a Uint8Array', buffer)
    if (!Number.isSafeInteger(segmentSize) || segmentSize < 1) throw invalidOption('segmentSize', 'an integer of at least 1', segmentSize)
    this.#corkForTick()
    const { length } = buffer
    const longest = Math.min(length, segmentSize)
    if (length === 0 || longest > this.#channel.maxMessageSize) return this.#refuse(buffer, longest, callback)
    const run: Buffer & { segmentSize?: number } = view(buffer, 0, length)
    run.segmentSize = longest // one that no packet holds is refused further down, and the messages of others with it
    return super.write(run, callback)
  }

  /** What is written until the end of the tick leaves together. */
  #corkForTick(): void {
    if (this.#autoCorked) return
    this.#autoCorked = true
    this.cork()
    this.#channel.defer(this.#uncorkOnce)
  }

  /** A message that does not fit: cut when the user asked for it, else refused without harm to the stream. */
  #refuse(message: NodeJS.ArrayBufferView, size: number, callback: WriteCallback | undefined): boolean {
    if (this.writableEnded || this.destroyed) return super.write(message, callback)
    const max = this.#channel.maxMessageSize
    if (size > max && this.#split) {
      const bytes = Buffer.from(message.buffer, message.byteOffset, message.byteLength)
      const { length } = bytes
      let more = true
      for (let at = 0; at < length; at += max) more = super.write(bytes.subarray(at, at + max), at + max < length ? undefined : callback)
      return more
    }
    const error =
      size === 0
        ? new FakeTcpError('ERR_FAKETCP_MESSAGE_EMPTY', 'An empty message cannot be sent: without payload a segment is a pure ACK')
        : new FakeTcpError('ERR_FAKETCP_MESSAGE_SIZE', `A message of ${size} bytes does not fit: at most ${max} bytes (maxMessageSize)`)
    if (callback !== undefined) process.nextTick(callback, error)
    process.nextTick(() => this.#drop(misfit(size, max, message.byteLength)))
    return !this.writableNeedDrain
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: (error?: Error | null) => void): void {
    this.#send([chunk], callback)
  }

  override _writev(chunks: Array<{ chunk: Buffer; encoding: BufferEncoding }>, callback: (error?: Error | null) => void): void {
    const messages = new Array<Buffer>(chunks.length)
    for (let i = 0; i < chunks.length; i++) messages[i] = chunks[i].chunk
    this.#send(messages, callback)
  }

  /** `write` has checked the sizes, but `end(chunk)` comes past it, and the limit may have shrunk since. */
  #send(messages: Outgoing[], done: () => void): void {
    const max = this.#channel.maxMessageSize
    let misfits = 0
    for (let i = 0; i < messages.length; i++) {
      const size = longestOf(messages[i])
      if (size < this.#channel.minMessageSize || size > max) misfits++
    }
    let fitting = messages
    if (misfits > 0) {
      fitting = []
      for (const message of messages) {
        const size = longestOf(message)
        if (size >= this.#channel.minMessageSize && size <= max) fitting.push(message)
        else if (size > max && this.#split) for (let at = 0; at < message.length; at += max) fitting.push(message.subarray(at, at + max))
        else this.#drop(misfit(size, max, message.length))
      }
    }
    if (fitting.length === 0) done()
    else this.#channel.send(fitting, done)
  }

  override _final(callback: (error?: Error | null) => void): void {
    this.#channel.end(() => callback(), this.#closing)
  }

  override _read(): void {
    this.#wanted = true
    while (this.#wanted) {
      const message = this.#take()
      if (message === null) break
      this.#wanted = this.push(message)
    }
    if (this.#head < this.#queue.length) {
      if (this.#head > 1024) {
        this.#queue = this.#queue.slice(this.#head)
        this.#head = 0
      }
      return
    }
    if (this.#head > 0) {
      this.#queue = []
      this.#head = 0
      this.#channel.drained()
    }
    if (this.#peerEnded) this.push(null)
  }

  /** The message that has waited longest. */
  #take(): Buffer | null {
    if (this.#head === this.#queue.length) return null
    const message = this.#queue[this.#head]
    this.#queue[this.#head++] = EMPTY
    this.#queuedBytes -= message.length + MESSAGE_COST
    return message
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#queue = []
    this.#head = 0
    this.#queuedBytes = 0
    this.#channel.release()
    if (channels.connClose.hasSubscribers) channels.connClose.publish({ conn: this, error })
    callback(error)
  }

  /** @param header bytes at the start of each `segment` that are not the message's */
  #receive(memory: Uint8Array, offset: number, length: number, segment: number, header: number): void {
    if (this.destroyed) return
    if (this.#tap !== undefined) {
      this.#tap(memory, offset, length, segment)
      return
    }
    if (this.#inTrains) {
      if (this.#tellTrain(this.#arena.copy(memory, offset, length, header), Math.min(segment, length), header)) return
      // The last listener has gone, of which a stream does not always tell: Node 20 emits no 'removeListener' for the only one of its event.
      this.#inTrains = false
    }
    const room = this.#wanted || this.#queuedBytes + length + MESSAGE_COST <= this.#receiveQueueBytes
    // Where no message of the train can be kept, not even the copy is made.
    if (!room && this.#queuedBytes + Math.min(segment, length) + MESSAGE_COST > this.#receiveQueueBytes) {
      let at = 0
      do {
        this.#drop({ reason: 'receive-queue', size: Math.min(segment, length - at) - header, max: this.#receiveQueueBytes })
        at += segment
      } while (at < length) // an empty message is one, too
      return
    }
    if (length <= segment) {
      this.#deliverCopy(memory, offset, length, header)
      return
    }
    // In pieces, and a shorter last one alone, so that a small message that is kept does not keep all of a long train.
    const whole = length - (length % segment)
    const most = segment * PIECE_MESSAGES
    for (let start = 0; start < whole; start += most) {
      const bytes = Math.min(most, whole - start)
      const piece = this.#arena.copy(memory, offset + start, bytes, header)
      for (let at = 0; at < bytes; at += segment) this.#deliver(view(piece, at + header, at + segment))
    }
    if (whole < length) this.#deliverCopy(memory, offset + whole, length - whole, header)
  }

  #deliverCopy(memory: Uint8Array, offset: number, length: number, header: number): void {
    this.#deliver(this.#arena.copy(memory, offset + header, length - header))
  }

  /** What #receive takes as one message: while the readable side asks for more, whatever one packet brings. */
  #room(): number {
    return Math.max(this.#wanted ? LONGEST_MESSAGE : 0, this.#receiveQueueBytes - this.#queuedBytes - MESSAGE_COST)
  }

  #watchListeners(): void {
    if (!this.listeners('newListener').includes(this.#onNewListener)) Duplex.prototype.on.call(this, 'newListener', this.#onNewListener)
  }

  /** As every emitter's; listeners to `'train'` that are added afterwards are served all the same. */
  override removeAllListeners(event?: string | symbol): this {
    // Node looks at the number of arguments.
    if (event === undefined) super.removeAllListeners()
    else super.removeAllListeners(event)
    this.#watchListeners()
    return this
  }

  /** What has waited so far comes first, as trains of one; if the listener goes meanwhile, the rest goes on waiting. */
  #startTrains(): void {
    // Those that the readable side has taken in already would flow away where nobody listens to 'data'.
    const next: () => Buffer | null = this.listenerCount('data') === 0 ? () => this.read() : () => this.#take()
    while (!this.#inTrains && !this.destroyed && this.listenerCount('train') > 0) {
      const message = next()
      if (message !== null) this.#tellTrain(message, message.length, 0)
      else {
        this.#inTrains = true
        // Nothing is pushed any more, but 'end' comes to a stream that flows.
        this.resume()
      }
    }
  }

  /**
   * @param bytes the messages with their headers; theirs to rearrange
   * @returns false when nobody listens
   */
  #tellTrain(bytes: Buffer, segment: number, header: number): boolean {
    const count = bytes.length <= segment ? 1 : Math.ceil(bytes.length / segment)
    const segmentSize = segment - header
    if (header > 0) for (let i = 0; i < count; i++) bytes.copyWithin(i * segmentSize, i * segment + header, (i + 1) * segment)
    const buffer = header > 0 ? view(bytes, 0, bytes.length - count * header) : bytes
    let heard = true
    guarded(() => {
      heard = this.emit('train', { buffer, segmentSize, count })
    })
    return heard
  }

  #deliver(message: Buffer): void {
    if (this.#wanted) {
      try {
        this.#wanted = this.push(message)
      } catch (error) {
        rethrowLater(error) // thrown by a 'data' handler, to which the rest of the train is still owed
      }
      return
    }
    const bytes = this.#queuedBytes + message.length + MESSAGE_COST
    if (bytes > this.#receiveQueueBytes) {
      this.#drop({ reason: 'receive-queue', size: message.length, max: this.#receiveQueueBytes })
      return
    }
    this.#queue.push(message)
    this.#queuedBytes = bytes
  }

  #drop(drop: Drop): void {
    this.#channel.countDrop(drop)
    this.#tellDrop(drop)
  }

  #tellDrop(drop: Drop): void {
    if (channels.connDrop.hasSubscribers) channels.connDrop.publish({ conn: this, drop })
    guarded(() => this.emit('drop', drop)) // the drop of one message must not cost others
  }

  #end(): void {
    if (this.destroyed) return
    this.#peerEnded = true
    if (this.#head === this.#queue.length) this.push(null)
  }

  #close(error: Error | undefined): void {
    if (this.destroyed) return
    if (error === undefined && this.#peerEnded) return // the stream destroys itself once both sides have ended and all is read
    this.destroy(error)
  }
}

/** Bytes of the message, or of the longest one of a run. */
function longestOf(message: Outgoing): number {
  const { length, segmentSize } = message
  return segmentSize !== undefined && segmentSize < length ? segmentSize : length
}

/** The loss of a message that is empty or does not fit, or of a run of such messages that has `bytes` in all. */
function misfit(size: number, max: number, bytes: number): Drop {
  const drop: Drop = { reason: size === 0 ? 'message-empty' : 'message-size', size, max }
  return bytes > size ? { ...drop, count: Math.ceil(bytes / size) } : drop
}

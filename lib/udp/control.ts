// What both ends of a UDP connection say to each other beside the application's messages, byte by byte (docs/wire.md). Pure: it knows bytes, no sockets.

/** Bytes of every control datagram: all are of one size, so that none asks for a longer answer than itself. */
export const CONTROL_BYTES = 56
export const TOKEN_BYTES = 16
export const COOKIE_BYTES = 16
/** Where the fields stand. */
const TYPE = 16
const VERSION_AT = 17
const COUNT = 18
const TOKEN = 24
const COOKIE = 40

const VERSION = 1

/** From the client, to a listener that knows nothing of it: its token, and the cookie, all zero until it has one. */
export const HELLO = 1
/** Answers a hello without a valid cookie. */
export const COOKIE_REPLY = 2
/** Answers a hello with a cookie: the listener's token. */
export const ACCEPT = 3
/** The sender has sent its last message, so many in all. */
export const CLOSE = 4
/** Answers it. */
export const CLOSED = 5
/** The sender has given the connection up, or does not take it. */
export const RESET = 6
export const ASK = 7
export const ANSWER = 8

/** What hellos begin with in the place of a token, as nobody has agreed on one yet: the first 16 bytes of SHA-256("faketcp/udp"). */
export const HELLO_TOKEN = Uint8Array.from([0x32, 0xc2, 0xba, 0x03, 0xba, 0x64, 0xbe, 0x33, 0xe8, 0xf7, 0x58, 0xf3, 0x9e, 0xad, 0xb2, 0xaa])

/** Whether the control-sized datagram at `at` begins with this token. */
export function begins(memory: Uint8Array, at: number, token: Uint8Array): boolean {
  for (let i = 0; i < TOKEN_BYTES; i++) if (memory[at + i] !== token[i]) return false
  return true
}

/** A hello of a version that we speak. */
export function isHello(memory: Uint8Array, at: number, length: number): boolean {
  return length === CONTROL_BYTES && begins(memory, at, HELLO_TOKEN) && memory[at + TYPE] === HELLO && memory[at + VERSION_AT] === VERSION
}

export function typeOf(memory: Uint8Array, at: number): number {
  return memory[at + TYPE]
}

/** The token that a hello or an accept tells; a view. */
export function tokenIn(memory: Uint8Array, at: number): Uint8Array {
  return memory.subarray(at + TOKEN, at + TOKEN + TOKEN_BYTES)
}

/** The cookie of a hello or of the answer to one; a view. */
export function cookieIn(memory: Uint8Array, at: number): Uint8Array {
  return memory.subarray(at + COOKIE, at + COOKIE + COOKIE_BYTES)
}

/** How many messages a close says were sent. */
export function countIn(memory: Uint8Array, at: number): number {
  let count = 0
  for (let i = 0; i < 6; i++) count = count * 256 + memory[at + COUNT + i]
  return count
}

export interface ControlFields {
  readonly token?: Uint8Array
  readonly cookie?: Uint8Array
  /** Of a close. */
  readonly count?: number
}

/** Writes one at `at` of `out`. @param to the token of whoever is to read it, HELLO_TOKEN in a hello */
export function writeControl(
  out: Uint8Array,
  at: number,
  to: Uint8Array,
  type: number,
  { token, cookie, count = 0 }: ControlFields = {},
): void {
  out.fill(0, at, at + CONTROL_BYTES)
  out.set(to, at)
  out[at + TYPE] = type
  if (type === HELLO) out[at + VERSION_AT] = VERSION
  for (let i = 5, rest = count; i >= 0 && rest > 0; i--, rest = Math.floor(rest / 256)) out[at + COUNT + i] = rest % 256
  if (token !== undefined) out.set(token, at + TOKEN)
  if (cookie !== undefined) out.set(cookie, at + COOKIE)
}

/** What becomes of a train's parts. */
export interface TrainReader {
  /** Whether the control-sized datagram at `at` is one. */
  isControl(memory: Uint8Array, at: number): boolean
  onControl(memory: Uint8Array, at: number): void
  /** A run of messages. */
  onMessages(memory: Uint8Array, offset: number, length: number, segment: number): void
}

/** Takes control datagrams out of a train: the kernel puts together whatever has one size. */
export function readTrain(reader: TrainReader, memory: Uint8Array, offset: number, length: number, segment: number): void {
  let start = 0
  // A train has control datagrams throughout, or as its last: nothing else is looked at.
  const first = segment === CONTROL_BYTES ? 0 : length - (length % segment)
  for (let at = first; length > 0 && at < length; at += segment) {
    if (Math.min(segment, length - at) !== CONTROL_BYTES || !reader.isControl(memory, offset + at)) continue
    if (at > start) reader.onMessages(memory, offset + start, at - start, segment)
    start = at + CONTROL_BYTES
    reader.onControl(memory, offset + at)
  }
  if (start < length || length === 0) reader.onMessages(memory, offset + start, length - start, segment)
}

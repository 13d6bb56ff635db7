// The types of the tunnel's messages, and the content of those that are about conversations. docs/wire.md specifies them. Pure.

/** One datagram of a conversation. */
export const DATA = 0
/** These conversations are over: the server forgets them. */
export const CLOSE = 1
/** How much was sent and has arrived; see reports.ts. */
export const REPORT = 2
/** These conversations go on here: the server answers them on this flow from now on. */
export const BIND = 3

/** Sessions that one message of 1 000 bytes names. */
export const SESSIONS_PER_MESSAGE = 500

export function encodeSessions(sessions: readonly number[]): Buffer {
  const bytes = Buffer.alloc(sessions.length * 2)
  for (let i = 0; i < sessions.length; i++) bytes.writeUInt16BE(sessions[i], i * 2)
  return bytes
}

/** @returns undefined for what is no list of sessions */
export function decodeSessions(bytes: Buffer): number[] | undefined {
  if (bytes.length % 2 !== 0) return undefined
  return Array.from({ length: bytes.length / 2 }, (_, i) => bytes.readUInt16BE(i * 2))
}

/** Datagrams in a train of `length` bytes, `segment` each; an empty train is one empty datagram. */
export function datagramsIn(length: number, segment: number): number {
  return length <= segment ? 1 : Math.ceil(length / segment)
}

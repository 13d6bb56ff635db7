// What putting segments together should come to, said in terms of messages: independent of native/coalesce.cc, which works on descriptors.
import { ACK, PSH } from '../../lib/native/layout.ts'

/** A packet as it was captured: what its headers say, and the messages that GSO or GRO had put into it. */
export interface Arrival {
  /** Everything that must be the same for two packets to belong together: flow, acknowledgement, window, timestamps, link, TTL. */
  readonly headers: string
  readonly seq: number
  readonly flags: number
  readonly messages: readonly Buffer[]
  /** Bytes that its slot has from the payload on. */
  readonly room: number
}

const bytesOf = (messages: readonly Buffer[]) => messages.reduce((sum, { length }) => sum + length, 0)

/** One train is as many messages of one size, of which only the last may be shorter. */
function isTrain(messages: readonly Buffer[]): boolean {
  const [first] = messages
  return messages.every(({ length }, i) => (i < messages.length - 1 ? length === first.length : length > 0 && length <= first.length))
}

/** Trains that a capture is to make of one batch of arrivals. */
export function gathered(arrivals: readonly Arrival[]): Arrival[] {
  const trains: Arrival[] = []
  for (const next of arrivals) {
    const last = trains.at(-1)
    if (last === undefined || !belongTogether(last, next)) trains.push(next)
    else trains.splice(-1, 1, { ...last, flags: next.flags, messages: [...last.messages, ...next.messages] })
  }
  return trains
}

function belongTogether(a: Arrival, b: Arrival): boolean {
  const messages = [...a.messages, ...b.messages]
  return (
    a.messages.length > 0 &&
    b.messages.length > 0 &&
    a.headers === b.headers &&
    (a.flags === ACK || a.flags === 0) &&
    (b.flags === a.flags || b.flags === (a.flags | PSH)) &&
    b.seq === (a.seq + bytesOf(a.messages)) >>> 0 &&
    isTrain(messages) &&
    bytesOf(messages) <= a.room
  )
}

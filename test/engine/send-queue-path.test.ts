// What a queue of messages does when the path or the peer's window is too small for them.
import { setImmediate } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { LinkChoice } from '../../lib/engine/link-choice.ts'
import { Segments } from '../../lib/engine/segments.ts'
import { type QueueOwner, SendQueue } from '../../lib/engine/send-queue.ts'
import { S_DIALECT, S_MAX_MESSAGE, S_SET_BACKS, S_SND_UNA, S_SND_WND } from '../../lib/flow/layout.ts'
import { Outbox } from '../../lib/link/outbox.ts'
import { D_LENGTH, D_OFFSET, D_SEGMENT, D_SEQ, D_WORDS } from '../../lib/native/layout.ts'
import type { Drop, Outgoing } from '../../lib/transport.ts'
import { DIALECT_NATIVE, DIALECT_TCPRAW } from '../../lib/wire/dialect.ts'
import { slotOf } from './slots.ts'

/** A queue whose flow has been acknowledged to, over a kernel that takes everything. */
function rig(messages: readonly Outgoing[]) {
  const slot = slotOf()
  const news: (string | Drop)[] = []
  const owner: QueueOwner = { trainDone: () => queue.trainDone(), segmentRefused: () => {}, outgrown: (drop) => news.push(drop) }
  const queue = new SendQueue(slot, new Segments(slot, new LinkChoice()), owner)
  const sent: { seq: number; bytes: number }[] = []
  const outbox = new Outbox(
    () => ({
      errno: 0,
      send(words, from, count, buffers) {
        let segments = 0
        for (let at = from * D_WORDS; at < (from + count) * D_WORDS; at += D_WORDS) {
          const own = buffers.slice(words[at + D_OFFSET], words[at + D_OFFSET] + words[at + D_LENGTH])
          sent.push({ seq: words[at + D_SEQ], bytes: own.reduce((sum, { length }) => sum + length, 0) })
          segments += own.reduce((sum, { length }) => sum + Math.ceil(length / words[at + D_SEGMENT]), 0)
        }
        return segments
      },
      close() {},
    }),
    () => {},
  )
  queue.unhold()
  queue.put(messages, () => news.push('done'))
  const flush = (now = 0) => {
    queue.fill(outbox, now, () => true)
    outbox.transmit()
    outbox.settle()
  }
  const set = (word: number, value: number) => {
    slot.words[slot.base + word] = value
  }
  return { queue, flush, sent, news, set, setBacks: () => slot.words[slot.base + S_SET_BACKS] }
}

const message = (size: number, segmentSize?: number): Outgoing =>
  Object.assign(Buffer.alloc(size), segmentSize === undefined ? {} : { segmentSize })
const equal = (count: number, size: number) => Array.from({ length: count }, () => message(size))

describe('messages that have become too long for the path since they were written', () => {
  const shrunken = (messages: readonly Outgoing[]) => {
    const made = rig(messages)
    made.set(S_MAX_MESSAGE, 1000)
    made.flush()
    return made
  }
  const sizes = ({ sent }: ReturnType<typeof rig>) => sent.map(({ bytes }) => bytes)

  it('are dropped and told; the others go', async () => {
    const made = shrunken([message(900), message(1001), message(1000), message(1448), message(5)])
    expect(sizes(made)).toEqual([900, 1000, 5])
    await setImmediate()
    expect(made.news).toEqual([
      { reason: 'message-size', size: 1001, max: 1000 },
      { reason: 'message-size', size: 1448, max: 1000 },
      'done',
    ])
  })

  it('give their buffers back also when none is left, but not while the outbox is being filled', async () => {
    const made = shrunken([message(1001)])
    expect([made.sent, made.news.includes('done')]).toEqual([[], false])
    await setImmediate()
    expect(made.news.at(-1)).toBe('done')
  })

  it('are told with the sizes that the application knows, without the header of a frame', async () => {
    const made = rig([message(1001)])
    made.queue.header = 10
    made.set(S_MAX_MESSAGE, 1000)
    made.flush()
    await setImmediate()
    expect(made.news).toEqual([{ reason: 'message-size', size: 991, max: 990 }, 'done'])
  })

  it('are cut for a real TCP, whose stream must not miss a byte, also when a part has gone', () => {
    const made = rig([message(1448)])
    made.queue.stream = true
    made.set(S_SND_WND, 300)
    made.flush()
    made.set(S_MAX_MESSAGE, 1000)
    made.set(S_SND_UNA, 300)
    made.set(S_SND_WND, 65_535)
    made.flush()
    expect(sizes(made)).toEqual([300, 1000, 148])
    expect(made.news).toEqual(['done'])
  })

  it('count each message of a run', async () => {
    const made = shrunken([message(2500, 1100), message(2500, 900)])
    await setImmediate()
    expect(sizes(made)).toEqual([900, 900, 700])
    expect(made.news).toEqual([{ reason: 'message-size', size: 1100, max: 1000, count: 3 }, 'done'])
  })
})

describe('where the peer’s window is full', () => {
  function full(dialect: number) {
    const made = rig(equal(100, 1000))
    made.set(S_DIALECT, dialect)
    made.set(S_SND_WND, 10_000)
    made.flush()
    return made
  }

  it('a peer of this library is waited for while its window grows, and numbering is not set back', () => {
    const made = full(DIALECT_NATIVE)
    expect([made.sent.length, made.queue.holdDue, made.setBacks()]).toEqual([10, 200, 0])
    for (const [una, window, sent] of [
      [5000, 10_000, 15], // room, and the same window
      [10_000, 20_000, 30],
      [30_000, 40_000, 70],
    ]) {
      made.set(S_SND_UNA, una)
      made.set(S_SND_WND, window)
      made.queue.unhold()
      made.flush()
      expect([made.sent.length, made.setBacks()]).toEqual([sent, 0])
    }
    expect(made.sent.every(({ seq }, i) => seq === i * 1000)).toBe(true)
  })

  it('it is not, once a whole window was acknowledged that has not grown', () => {
    const made = full(DIALECT_NATIVE)
    made.set(S_SND_UNA, 9999)
    made.flush()
    expect([made.sent.length, made.setBacks()]).toEqual([19, 0])
    made.set(S_SND_UNA, 10_000)
    made.flush()
    expect(made.sent.length).toBe(100)
    expect(made.setBacks()).toBeGreaterThan(0)
  })

  it('nor when no acknowledgement comes in time', () => {
    const made = full(DIALECT_NATIVE)
    made.queue.holdNoLonger()
    made.flush()
    expect([made.sent.length, made.queue.holdDue]).toEqual([100, Number.POSITIVE_INFINITY])
    expect(made.setBacks()).toBeGreaterThan(0)
  })

  it('a peer without a hello is never waited for', () => {
    const made = full(DIALECT_TCPRAW)
    expect([made.sent.length, made.queue.empty]).toEqual([100, true])
    expect(made.setBacks()).toBeGreaterThan(0)
  })
})

// Which reports of a smaller path MTU are believed, what they mean for messages, and what becomes of messages that had been written before.
import { setImmediate } from 'node:timers/promises'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { LinkChoice } from '../../lib/engine/link-choice.ts'
import { Outbox } from '../../lib/engine/outbox.ts'
import { judgeReport, PathMtu } from '../../lib/engine/path-mtu.ts'
import { Segments } from '../../lib/engine/segments.ts'
import { type QueueOwner, SendQueue } from '../../lib/engine/send-queue.ts'
import { Slot } from '../../lib/engine/slot.ts'
import { S_MAX_MESSAGE, S_PATH_MTU, S_SND_MAX, S_SND_UNA, S_SND_WND } from '../../lib/flow/layout.ts'
import { FlowTable } from '../../lib/flow/table.ts'
import { D_OFFSET, D_SEGMENT, D_WORDS, KEY_WORDS, REPORT_MTU, REPORT_SEQ, REPORT_SIZE, REPORT_WORDS } from '../../lib/native/layout.ts'
import type { Drop, Outgoing } from '../../lib/transport.ts'

const HEADERS = 52

function slotOf(una = 0, max = 0): Slot {
  const table = FlowTable.create({ capacity: 1 })
  const slot = new Slot(table, table.insert(new Int32Array(KEY_WORDS).fill(1), 0, table.register()))
  slot.words[slot.base + S_SND_UNA] = una
  slot.words[slot.base + S_SND_MAX] = max
  slot.words[slot.base + S_SND_WND] = 1 << 20
  slot.words[slot.base + S_PATH_MTU] = 1500
  slot.words[slot.base + S_MAX_MESSAGE] = 1500 - HEADERS
  return slot
}

function report(seq: number, mtu = 1300, size = 1500): Int32Array {
  const words = new Int32Array(REPORT_WORDS)
  words[REPORT_SEQ] = seq
  words[REPORT_MTU] = mtu
  words[REPORT_SIZE] = size
  return words
}

describe('a report', () => {
  it('is believed only of what is between the peer’s acknowledgement and the end of what was sent, wherever the numbers are', () => {
    const words = fc.integer({ min: -0x80000000, max: 0x7fffffff })
    fc.assert(
      fc.property(words, fc.nat(1 << 24), words, (una, flight, offset) => {
        const slot = slotOf(una, (una + flight) | 0)
        const ahead = offset % 2 === 0 ? offset : offset % (1 << 25)
        expect(judgeReport(slot.words, slot.base, report((una + ahead) | 0), 0)).toBe(ahead >= 0 && ahead < flight)
      }),
    )
    const idle = slotOf(77, 77)
    expect(judgeReport(idle.words, idle.base, report(77), 0)).toBe(false)
  })

  it('is not believed of a packet that would have fitted', () => {
    const slot = slotOf(0, 5000)
    expect([1299, 1300, 1301].map((size) => judgeReport(slot.words, slot.base, report(1, 1300, size), 0))).toEqual([false, false, true])
  })

  it.each([
    ['IPv4', 0, 552],
    ['IPv4', 300, 552],
    ['IPv4', 553, 553],
    ['IPv6', 0, 1280],
    ['IPv6', 1279, 1280],
    ['IPv6', 1281, 1281],
  ] as const)('over %s of %s bytes means %s', (family, mtu, means) => {
    const slot = slotOf(0, 5000)
    const path = new PathMtu(slot, new LinkChoice(), family)
    path.open(HEADERS)
    expect(path.reported(report(1, mtu), 0)).toBe('smaller')
    expect(slot.words[slot.base + S_PATH_MTU]).toBe(means)
    expect(slot.words[slot.base + S_MAX_MESSAGE]).toBe(means - HEADERS)
  })
})

it('never raises anything, and what is no news is none', () => {
  const slot = slotOf(0, 5000)
  const link = new LinkChoice()
  const path = new PathMtu(slot, link, 'IPv4')
  path.open(HEADERS)
  expect(link.longest).toBe(1500)
  expect([path.lower(9000), path.lower(1500), path.lower(1400), path.lower(1400), path.lower(1450)]).toEqual([
    false,
    false,
    true,
    false,
    false,
  ])
  expect([path.reported(report(1, 1400), 0), path.reported(report(1, 1450), 0), path.reported(report(5000, 600), 0)]).toEqual([
    undefined,
    undefined,
    'refused',
  ])
  expect([slot.words[slot.base + S_PATH_MTU], slot.words[slot.base + S_MAX_MESSAGE], link.longest]).toEqual([1400, 1348, 1400])
  expect([path.exceededBy(1348), path.exceededBy(1349)]).toEqual([false, true])
})

it('leaves messages alone that are shorter for another reason', () => {
  const slot = slotOf()
  slot.words[slot.base + S_MAX_MESSAGE] = 1000
  const path = new PathMtu(slot, new LinkChoice(), 'IPv4')
  path.open(HEADERS)
  expect(path.lower(1400)).toBe(false)
  expect([slot.words[slot.base + S_PATH_MTU], slot.words[slot.base + S_MAX_MESSAGE]]).toEqual([1400, 1000])
})

describe('messages that were written before', () => {
  function queued(messages: readonly Outgoing[]) {
    const slot = slotOf()
    const link = new LinkChoice()
    const news: (string | Drop)[] = []
    const owner: QueueOwner = { trainDone: () => queue.trainDone(), segmentRefused: () => {}, outgrown: (drop) => news.push(drop) }
    const queue = new SendQueue(slot, new Segments(slot, link), owner)
    const sent: number[] = []
    const outbox = new Outbox(
      () => ({
        errno: 0,
        send(words, from, count, buffers) {
          sent.push(...buffers.map(({ length }) => length))
          const counts = Array.from({ length: count }, (_, i) => words.subarray((from + i) * D_WORDS))
          return counts.reduce((sum, d) => sum + Math.ceil(buffers[d[D_OFFSET]].length / d[D_SEGMENT]), 0)
        },
        close() {},
      }),
      () => {},
    )
    queue.unhold()
    queue.put(messages, () => news.push('done'))
    slot.words[slot.base + S_MAX_MESSAGE] = 1000
    const flush = () => {
      queue.fill(outbox, 0, () => true)
      outbox.transmit()
      outbox.settle()
    }
    return { flush, sent, news }
  }
  const message = (size: number, segmentSize?: number): Outgoing =>
    Object.assign(Buffer.alloc(size), segmentSize === undefined ? {} : { segmentSize })

  it('and no longer fit are dropped and told; the others go', async () => {
    const { flush, sent, news } = queued([message(900), message(1001), message(1000), message(1448), message(5)])
    flush()
    expect(sent).toEqual([900, 1000, 5])
    await setImmediate()
    expect(news).toEqual([{ reason: 'message-size', size: 1001, max: 1000 }, { reason: 'message-size', size: 1448, max: 1000 }, 'done'])
  })

  it('give their buffers back also when none is left, but not while the outbox is being filled', async () => {
    const { flush, sent, news } = queued([message(1001)])
    flush()
    expect([sent, news.includes('done')]).toEqual([[], false])
    await setImmediate()
    expect(news.at(-1)).toBe('done')
  })

  it('as a run count each message of it', async () => {
    const { flush, sent, news } = queued([message(2500, 1100), message(2500, 900)])
    flush()
    await setImmediate()
    expect(sent).toEqual([900, 900, 700])
    expect(news).toEqual([{ reason: 'message-size', size: 1100, max: 1000, count: 3 }, 'done'])
  })
})

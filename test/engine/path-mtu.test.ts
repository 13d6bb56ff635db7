// Which reports of a smaller path MTU are believed, and what they mean for messages.
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { LinkChoice } from '../../lib/engine/link-choice.ts'
import { judgeReport, PathMtu } from '../../lib/engine/path-mtu.ts'
import { S_MAX_MESSAGE, S_PATH_MTU } from '../../lib/flow/layout.ts'
import { REPORT_MTU, REPORT_SEQ, REPORT_SIZE, REPORT_WORDS } from '../../lib/native/layout.ts'
import { HEADERS, slotOf } from './slots.ts'

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

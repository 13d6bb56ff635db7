// Reports: two ends that exchange them know the loss of both directions and the round-trip time.
import { expect, it } from 'vitest'
import { REPORT_BYTES, Reports } from '../../lib/tunnel/reports.ts'

/** Two ends; of the messages from a to b, `lost` of each second's 100 do not arrive; the way takes 20 ms. */
function exchange(seconds: number, lost: number) {
  const [a, b] = [new Reports(), new Reports()]
  let [sent, received, now] = [0, 0, 5_000_000_000 / 1000]
  for (let i = 0; i < seconds; i++) {
    sent += 100
    received += 100 - lost
    expect(b.take(a.encode(sent, now, false), i, received, now + 20)).toBe(false)
    // The report itself has arrived, too.
    sent++
    received++
    expect(a.take(b.encode(i, now + 520, false), sent, i, now + 540)).toBe(false)
    now += 1000
  }
  return { a, b }
}

it('both ends know what was lost, of all and of the last reports', () => {
  const { a, b } = exchange(30, 3)
  expect(b.incoming.lost).toBe(90)
  expect(a.outgoing.lost).toBe(90)
  expect(b.incoming.recent).toBeCloseTo(0.03, 3)
  expect(a.outgoing.recent).toBeCloseTo(0.03, 3)
  expect(a.incoming.recent).toBe(0)
  expect(a.incoming.lost).toBe(0)
})

it('the round-trip time leaves out how long a report was kept', () => {
  const { a, b } = exchange(5, 0)
  expect(a.rttMs).toBeCloseTo(40, 3)
  // b has heard its stamp again after a second, of which a kept it 460 ms.
  expect(b.rttMs).toBeCloseTo(40, 3)
})

it('what was lost before is forgotten by the recent figure, not by the sum', () => {
  const [a, b] = [new Reports(), new Reports()]
  let [sent, received] = [100, 50]
  b.take(a.encode(sent, 0, false), 0, received, 0)
  for (let i = 1; i <= 10; i++) {
    sent += 100
    received += 100
    b.take(a.encode(sent, i, false), 0, received, i)
  }
  expect(b.incoming.recent).toBe(0)
  expect(b.incoming.lost).toBe(50)
})

it('asks for a report, and tells that it is asked', () => {
  expect(new Reports().take(new Reports().encode(0, 0, true), 0, 0, 0)).toBe(true)
})

it('a report that is short, or of more than was sent, is none', () => {
  const report = new Reports().encode(3, 0, false)
  expect(report).toHaveLength(REPORT_BYTES)
  expect(new Reports().take(report.subarray(1), 0, 0, 0)).toBeUndefined()
  const boasting = Buffer.from(report)
  boasting.writeUIntBE(1, 6, 6)
  expect(new Reports().take(boasting, 0, 0, 0)).toBeUndefined()
  expect(new Reports().take(boasting, 1, 0, 0)).toBe(false)
})

it('a report that another has overtaken changes nothing', () => {
  const receiver = new Reports()
  const sender = new Reports()
  const [older, newer] = [sender.encode(10, 0, false), sender.encode(20, 0, false)]
  receiver.take(newer, 0, 20, 0)
  receiver.take(older, 0, 20, 0)
  expect(receiver.incoming.newest).toEqual({ expected: 20, received: 20 })
})

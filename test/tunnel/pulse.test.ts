// The pulse of a flow: when it reports, when it asks, and when it is dead.
import { expect, it } from 'vitest'
import { Pulse } from '../../lib/tunnel/pulse.ts'

const QUIET = { is: 'quiet' }
const report = (asks: boolean) => ({ is: 'report', asks })

it('says nothing while nothing happens', () => {
  const pulse = new Pulse({})
  expect([pulse.beat(0, 0), pulse.beat(0, 0)]).toEqual([QUIET, QUIET])
})

it('reports once after traffic of either direction, and not because of reports', () => {
  const pulse = new Pulse({})
  expect(pulse.beat(0, 5)).toEqual(report(false))
  pulse.reportSent(1)
  expect(pulse.beat(1, 5)).toEqual(QUIET)
  pulse.reportTaken(false)
  expect(pulse.beat(1, 6)).toEqual(QUIET)
  expect(pulse.beat(4, 7)).toEqual(report(false))
})

it('reports when it is asked to', () => {
  const pulse = new Pulse({})
  pulse.reportTaken(true)
  expect(pulse.beat(0, 1)).toEqual(report(false))
})

it('asks while what was sent is unanswered, and is dead after so many seconds', () => {
  const pulse = new Pulse({ silenceTicks: 3 })
  expect(pulse.beat(1, 0)).toEqual(report(true))
  pulse.reportSent(2)
  expect(pulse.beat(2, 0)).toEqual(report(true))
  pulse.reportSent(3)
  expect(pulse.beat(3, 0)).toEqual({ is: 'dead', reason: 'nothing was heard of the other end for 3 s' })
})

it('lives when one answer comes, and silence alone is no death', () => {
  const pulse = new Pulse({ silenceTicks: 2 })
  expect(pulse.beat(1, 0)).toEqual(report(true))
  pulse.reportSent(2)
  pulse.reportTaken(false)
  expect(pulse.beat(2, 1)).toEqual(QUIET)
  for (let i = 0; i < 10; i++) expect(pulse.beat(2, 1)).toEqual(QUIET)
})

it('is dead when nothing follows the handshake, but not when one message does', () => {
  const [silent, proved] = [new Pulse({ proofTicks: 2 }), new Pulse({ proofTicks: 2 })]
  silent.beat(0, 0)
  expect(silent.beat(0, 0)).toMatchObject({ is: 'dead' })
  proved.beat(0, 1)
  expect(proved.beat(0, 1)).toEqual(QUIET)
})

// When a silent peer is asked, when it is given up, and when it is only asked.
import { expect, it } from 'vitest'
import type { FlowOptions } from '../../lib/engine/flow-options.ts'
import { LinkChoice } from '../../lib/engine/link-choice.ts'
import { Liveness } from '../../lib/engine/liveness.ts'
import { Slot } from '../../lib/engine/slot.ts'
import { F_LAST_HEARD_MS } from '../../lib/flow/layout.ts'
import { FlowTable } from '../../lib/flow/table.ts'
import { FLOW_OPTIONS } from './world.ts'

function liveness(options: Partial<FlowOptions>) {
  const slot = new Slot(FlowTable.create({ capacity: 1 }), 0)
  const made = new Liveness(slot, new LinkChoice(), { ...FLOW_OPTIONS, ...options })
  const hear = (now: number) => {
    slot.floats[slot.floatBase + F_LAST_HEARD_MS] = now
  }
  /** What is found until `end`, when it is looked at whenever it is due. */
  const until = (end: number) => {
    const found: (readonly [number, unknown])[] = []
    for (let due = made.dueMs; due <= end && found.length < 100; due = made.dueMs) {
      const what = made.check(due)
      found.push([due, what instanceof Error ? (what as Error & { code: string }).code : what])
      if (what instanceof Error) break
    }
    return found
  }
  hear(1000)
  return { made, hear, until }
}

it('asks three times, and gives up after twice keepAliveMs', () => {
  const { made, until } = liveness({ keepAliveMs: 3000 })
  made.answers = true
  expect(until(100_000)).toEqual([
    [4000, 'ask'],
    [5000, 'ask'],
    [6000, 'ask'],
    [7000, 'ETIMEDOUT'],
  ])
})

it('gives each question its time in a process that was stopped for longer than all of them have', () => {
  const { made, until } = liveness({ keepAliveMs: 3000 })
  made.answers = true
  expect(made.check(60_000)).toBe('ask')
  expect(until(100_000)).toEqual([
    [61_000, 'ask'],
    [62_000, 'ask'],
    [63_000, 'ETIMEDOUT'],
  ])
})

it('starts again when something is heard', () => {
  const { made, hear, until } = liveness({ keepAliveMs: 3000 })
  made.answers = true
  expect(until(6000)).toHaveLength(3)
  hear(6500)
  expect(until(10_000)).toEqual([[9500, 'ask']])
})

it('asks a peer that may never answer for ever, each keepAliveMs', () => {
  const { until } = liveness({ keepAliveMs: 3000 })
  expect(until(13_000)).toEqual([
    [4000, 'ask'],
    [7000, 'ask'],
    [10_000, 'ask'],
    [13_000, 'ask'],
  ])
})

it('ends at idleTimeoutMs, whatever is asked', () => {
  const { made, until } = liveness({ keepAliveMs: 3000, idleTimeoutMs: 4500 })
  made.answers = true
  expect(until(100_000)).toEqual([
    [4000, 'ask'],
    [5000, 'ask'],
    [5500, 'ERR_FAKETCP_IDLE'],
  ])
})

it('without either has nothing to do', () => {
  expect(liveness({}).made.dueMs).toBe(Number.POSITIVE_INFINITY)
})

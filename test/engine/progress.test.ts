// When a real TCP is asked for an acknowledgement, and when what we sent is taken for lost.
import { expect, it } from 'vitest'
import { CLOSED_WINDOW_MS, Progress, STALL_MS } from '../../lib/engine/progress.ts'
import { Slot } from '../../lib/engine/slot.ts'
import { F_LAST_HEARD_MS, S_SND_NXT, S_SND_UNA, S_SND_WND } from '../../lib/flow/layout.ts'
import { FlowTable } from '../../lib/flow/table.ts'

function watched() {
  const slot = new Slot(FlowTable.create({ capacity: 1 }), 0)
  const set = (word: number, value: number) => {
    slot.words[slot.base + word] = value
  }
  set(S_SND_WND, 65535)
  const progress = new Progress(slot)
  /** Lets time pass until the flow is over; when questions went, and when and how it ended. */
  const run = (untilMs: number) => {
    const asked: number[] = []
    while (progress.dueMs <= untilMs) {
      const now = progress.dueMs
      const found = progress.check(now)
      if (found === 'ask') asked.push(now)
      else if (found !== undefined) return { asked, ended: now, code: found.code }
    }
    return { asked }
  }
  const hear = (now: number) => {
    slot.floats[slot.floatBase + F_LAST_HEARD_MS] = now
  }
  return { progress, set, run, hear }
}

it('expects nothing while nothing is sent, or all is acknowledged', () => {
  const { progress, set, run } = watched()
  progress.sent(0, false, false)
  expect(run(1e6)).toEqual({ asked: [] })
  set(S_SND_NXT, 100)
  progress.sent(10, false, false)
  set(S_SND_UNA, 100)
  progress.moved(20)
  expect(run(1e6)).toEqual({ asked: [] })
})

it('asks some times for what may be a lost acknowledgement, then takes the segment for lost', () => {
  const { progress, set, run } = watched()
  set(S_SND_NXT, 100)
  progress.sent(1000, false, false)
  expect(run(1e6)).toEqual({ asked: [1600, 2800, 5200], ended: 1000 + STALL_MS, code: 'ERR_FAKETCP_STALLED' })
})

it('counts from the last acknowledgement, not from what was sent since', () => {
  const { progress, set, run } = watched()
  set(S_SND_NXT, 100)
  progress.sent(0, false, false)
  set(S_SND_UNA, 50)
  progress.moved(3000)
  set(S_SND_NXT, 200)
  progress.sent(7000, false, false)
  expect(run(1e6)).toMatchObject({ ended: 3000 + STALL_MS })
})

it('asks as soon as at first after each acknowledgement', () => {
  const { progress, set, run } = watched()
  set(S_SND_NXT, 100)
  progress.sent(0, false, false)
  expect(run(2000).asked).toEqual([600, 1800])
  set(S_SND_UNA, 50)
  progress.moved(2000)
  expect(run(4000).asked).toEqual([2600, 3800])
})

it('is patient with a closed window as long as questions are answered', () => {
  const { progress, set, run, hear } = watched()
  set(S_SND_WND, 0)
  progress.sent(0, true, false)
  for (let now = 10_000; now <= 600_000; now += 10_000) {
    expect(run(now).asked.length).toBeGreaterThan(0)
    hear(now)
  }
  expect(run(1e6)).toMatchObject({ ended: 600_000 + CLOSED_WINDOW_MS, code: 'ERR_FAKETCP_STALLED' })
})

it('gives data behind a closed window its time from when the window opens', () => {
  const { progress, set, run, hear } = watched()
  set(S_SND_NXT, 100)
  set(S_SND_WND, 0)
  progress.sent(0, true, false)
  expect(run(20_000).asked.length).toBeGreaterThan(3)
  hear(20_000)
  set(S_SND_WND, 500)
  progress.moved(20_000)
  expect(run(1e6)).toMatchObject({ ended: 20_000 + STALL_MS })
})

it('asks first in a process that was stopped for longer than a stall takes', () => {
  const { progress, set } = watched()
  set(S_SND_NXT, 100)
  progress.sent(0, false, false)
  expect([progress.check(60_000), progress.dueMs]).toEqual(['ask', 61_200])
  set(S_SND_UNA, 100)
  progress.moved(60_010)
  expect(progress.dueMs).toBe(Number.POSITIVE_INFINITY)
})

it('leaves a FIN to its own repeats', () => {
  const { progress, set, run } = watched()
  set(S_SND_NXT, 100)
  progress.sent(0, false, false)
  set(S_SND_UNA, 100)
  progress.moved(10)
  set(S_SND_NXT, 101)
  progress.sent(20, false, true)
  expect(run(1e6)).toEqual({ asked: [] })
})

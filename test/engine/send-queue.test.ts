// What is numbered towards a real TCP, and what waits: the window is never left.
import { expect, it } from 'vitest'
import { LinkChoice } from '../../lib/engine/link-choice.ts'
import { Segments } from '../../lib/engine/segments.ts'
import { SendQueue } from '../../lib/engine/send-queue.ts'
import { Slot } from '../../lib/engine/slot.ts'
import { S_MAX_MESSAGE, S_SND_MAX, S_SND_NXT, S_SND_UNA, S_SND_WND } from '../../lib/flow/layout.ts'
import { FlowTable } from '../../lib/flow/table.ts'
import { Outbox } from '../../lib/link/outbox.ts'
import { ACK, D_FLAGS, D_LENGTH, D_OFFSET, D_SEQ, D_WORDS, PSH } from '../../lib/native/layout.ts'

/** A stream from sequence number `first` on, and what leaves of it: sequence numbers and texts. */
function stream(first: number, window: number) {
  const slot = new Slot(FlowTable.create({ capacity: 1 }), 0)
  const { words: w, base: b } = slot
  w[b + S_SND_NXT] = w[b + S_SND_MAX] = w[b + S_SND_UNA] = first
  w[b + S_SND_WND] = window
  w[b + S_MAX_MESSAGE] = 1448
  const sent: [number, string][] = []
  const sender = {
    errno: 0,
    send(words: Int32Array, from: number, count: number, buffers: readonly Uint8Array[]): number {
      for (let i = from; i < from + count; i++) {
        const d = words.subarray(i * D_WORDS)
        expect(d[D_FLAGS]).toBe(ACK | PSH)
        const own = buffers.slice(d[D_OFFSET], d[D_OFFSET] + d[D_LENGTH])
        sent.push([(d[D_SEQ] - first) | 0, Buffer.concat(own).toString()])
      }
      return count
    },
    close() {},
  }
  const outbox = new Outbox(
    () => sender,
    () => {},
  )
  let done = 0
  const queue: SendQueue = new SendQueue(slot, new Segments(slot, new LinkChoice()), {
    trainDone: () => queue.trainDone(),
    segmentRefused() {},
    outgrown() {},
  })
  queue.stream = true
  queue.unhold()
  let now = 0
  const flush = () => {
    if (now >= queue.holdDue) queue.holdNoLonger()
    queue.fill(outbox, now, (one) => one.makeRoom())
    outbox.transmit()
    outbox.settle()
    return sent.splice(0)
  }
  return {
    done: () => done,
    write: (...texts: string[]) => {
      queue.put(
        texts.map((text) => Buffer.from(text)),
        () => done++,
      )
      return flush()
    },
    /** The peer acknowledges up to here, and says how large its window is now. */
    acknowledge: (to: number, wnd: number) => {
      w[b + S_SND_UNA] = (first + to) | 0
      w[b + S_SND_WND] = wnd
      queue.unhold()
      return flush()
    },
    /** As a flow does, if it is to be woken by then. */
    wait: (ms: number) => {
      now += ms
      return flush()
    },
  }
}

it('sends what the window takes, each message a segment, and the rest as it opens', () => {
  const { write, acknowledge, done } = stream(0x7ffffffe, 10)
  expect(write('aaaa', 'bbbb', 'cccc', 'd')).toEqual([
    [0, 'aaaa'],
    [4, 'bbbb'],
  ])
  expect(acknowledge(4, 6)).toEqual([])
  expect([acknowledge(8, 8), done()]).toEqual([
    [
      [8, 'cccc'],
      [12, 'd'],
    ],
    1,
  ])
})

it('cuts a message that the window does not take only while nothing is under way: it would wait for ever', () => {
  const { write, acknowledge, done } = stream(0, 4)
  expect(write('a', 'bbbbbb')).toEqual([[0, 'a']])
  expect(acknowledge(1, 4)).toEqual([[1, 'bbbb']])
  expect(acknowledge(5, 0)).toEqual([])
  expect([acknowledge(5, 4), done()]).toEqual([[[5, 'bb']], 1])
})

it('a window below half of its widest gets no part of a message, until it has been so for 5 s', () => {
  const { write, acknowledge, wait, done } = stream(0, 512)
  expect(write('a'.repeat(1448)).map(([seq, { length }]) => [seq, length])).toEqual([[0, 512]])
  expect(acknowledge(512, 255)).toEqual([])
  expect(acknowledge(512, 256).map(([seq, { length }]) => [seq, length])).toEqual([[512, 256]])
  expect(acknowledge(768, 128)).toEqual([])
  expect(wait(4999)).toEqual([])
  // This is what its windows are like from here on.
  expect(wait(1).map(([seq, { length }]) => [seq, length])).toEqual([[768, 128]])
  expect(acknowledge(896, 128).map(([seq, { length }]) => [seq, length])).toEqual([[896, 128]])
  expect([acknowledge(1024, 424).map(([seq, { length }]) => [seq, length]), done()]).toEqual([[[1024, 424]], 1])
})

it('knows how wide the window was when it took whole messages', () => {
  const { write, acknowledge } = stream(0, 512)
  expect(write('a'.repeat(424), 'b'.repeat(424))).toHaveLength(1)
  expect(acknowledge(424, 128)).toEqual([])
  expect(acknowledge(424, 512)).toEqual([[424, 'b'.repeat(424)]])
})

it('a closed window is waited for, however long', () => {
  const { write, acknowledge, wait } = stream(0, 10)
  expect(write('a'.repeat(10), 'b')).toHaveLength(1)
  expect(acknowledge(10, 0)).toEqual([])
  expect(wait(60_000)).toEqual([])
  expect(acknowledge(10, 1)).toEqual([[10, 'b']])
})

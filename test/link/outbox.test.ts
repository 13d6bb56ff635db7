// The outbox against a sender that answers as told: what waits, what is refused, what another link takes over.
import { setTimeout as delay } from 'node:timers/promises'
import { expect, it } from 'vitest'
import { type Hops, Outbox, type TrainOwner } from '../../lib/link/outbox.ts'
import { D_HOP, D_LENGTH, D_OFFSET, D_SEQ, D_SKIP, D_WORDS } from '../../lib/native/layout.ts'

const [EPERM, EAGAIN, EINVAL, ENOBUFS] = [-1, -11, -22, -105]

/** Takes as many segments as `takes` says, call by call (all when it says nothing more), and refuses the next one. */
class Script {
  readonly calls: Array<{ seq: number; skip: number; hop: number; bytes: string }[]> = []
  readonly takes: Array<readonly [segments: number, errno: number]> = []
  errno = 0
  onWritable = () => {}

  send(words: Int32Array, from: number, count: number, buffers: readonly Uint8Array[]): number {
    const trains = Array.from({ length: count }, (_, i) => {
      const d = words.subarray((from + i) * D_WORDS)
      const own = buffers.slice(d[D_OFFSET], d[D_OFFSET] + d[D_LENGTH])
      return { seq: d[D_SEQ], skip: d[D_SKIP], hop: d[D_HOP], bytes: Buffer.concat(own).toString() }
    })
    const used = trains.flatMap((_, i) => {
      const d = words.subarray((from + i) * D_WORDS)
      return buffers.slice(d[D_OFFSET], d[D_OFFSET] + d[D_LENGTH])
    })
    if (used.some(({ length }) => length === 0)) throw new RangeError('a buffer is empty')
    this.calls.push(trains)
    const [taken, errno] = this.takes.shift() ?? [Number.POSITIVE_INFINITY, 0]
    this.errno = errno
    return Math.min(
      taken,
      trains.reduce((sum, { skip, bytes }) => sum + Math.max(1, bytes.length) - skip, 0),
    )
  }

  close(): void {}
}

class Owner implements TrainOwner {
  readonly news: string[] = []
  trainDone(): void {
    this.news.push('done')
  }
  segmentRefused(errno: number, size: number): void {
    this.news.push(`refused ${errno} ${size}`)
  }
}

function scripted(hops?: Hops) {
  const script = new Script()
  const room: string[] = []
  const outbox = new Outbox(
    (onWritable) => Object.assign(script, { onWritable }),
    () => room.push('room'),
    hops,
  )
  return { script, outbox, room }
}

/** A train of one-byte messages, one buffer for each. */
function add(outbox: Outbox, owner: Owner | undefined, seq: number, text: string): void {
  const at = outbox.open(owner, text.length, 1)
  outbox.words[at + D_SEQ] = seq
  for (const letter of text) outbox.add(Buffer.from(letter))
}

it('tells owners of their trains only when asked to', () => {
  const { script, outbox } = scripted()
  const owner = new Owner()
  add(outbox, owner, 1, 'ab')
  add(outbox, owner, 3, 'c')
  outbox.transmit()
  expect([script.calls.length, owner.news, outbox.unsettled]).toEqual([1, [], true])
  outbox.settle()
  expect([owner.news, outbox.unsettled]).toEqual([['done', 'done'], false])
})

it('goes on where a full socket buffer cut a train, when there is room again', () => {
  const { script, outbox, room } = scripted()
  const owner = new Owner()
  script.takes.push([3, EAGAIN])
  add(outbox, owner, 1, 'ab')
  add(outbox, owner, 3, 'cde')
  outbox.transmit()
  expect([outbox.blocked, outbox.makeRoom(), room]).toEqual([true, false, []])
  script.onWritable()
  expect(script.calls[1]).toMatchObject([{ seq: 3, skip: 1, bytes: 'cde' }])
  expect([outbox.blocked, room]).toEqual([false, ['room']])
})

it('refuses one segment for good, and sends the others', () => {
  const { script, outbox } = scripted()
  const owner = new Owner()
  script.takes.push([1, EPERM])
  add(outbox, owner, 1, 'abc')
  outbox.transmit()
  outbox.settle()
  expect(owner.news).toEqual([`refused ${EPERM} 1`, 'done'])
  expect(script.calls[1]).toMatchObject([{ skip: 2 }])
})

it('hands the rest of a refused train to another link, whose owner is told by that one', () => {
  const other = scripted()
  const asked: number[] = []
  const divert = (errno: number) => {
    asked.push(errno)
    return other.outbox
  }
  const { script, outbox } = scripted({ renew: () => {}, divert })
  const owner = new Owner()
  script.takes.push([1, EINVAL])
  add(outbox, owner, 1, 'abc')
  add(outbox, owner, 4, 'd')
  outbox.transmit()
  outbox.settle()
  expect([asked, owner.news]).toEqual([[EINVAL], ['done']])
  expect(script.calls[1]).toMatchObject([{ seq: 4, bytes: 'd' }])
  other.outbox.transmit()
  other.outbox.settle()
  expect(other.script.calls).toMatchObject([[{ seq: 1, skip: 1, bytes: 'abc' }]])
  expect(owner.news).toEqual(['done', 'done'])
})

it('looks its hops up again before what has waited is sent', () => {
  const { script, outbox } = scripted({
    renew: (words, at) => {
      words[at + D_HOP] = 7
    },
    divert: () => undefined,
  })
  script.takes.push([0, EAGAIN])
  add(outbox, new Owner(), 1, 'a')
  outbox.transmit()
  script.onWritable()
  expect(script.calls.map(([{ hop }]) => hop)).toEqual([0, 7])
})

it('tries a full device again, but not for ever', async () => {
  const { script, outbox, room } = scripted()
  const owner = new Owner()
  script.takes.push([0, ENOBUFS])
  add(outbox, owner, 1, 'a')
  outbox.transmit()
  while (outbox.blocked) await delay(1)
  expect([script.calls.length, room]).toEqual([2, ['room']])

  for (let i = 0; i < 10_000; i++) script.takes.push([0, ENOBUFS])
  add(outbox, owner, 2, 'b')
  outbox.transmit()
  while (outbox.blocked) await delay(1)
  outbox.settle()
  expect(owner.news).toEqual(['done', `refused ${ENOBUFS} 1`, 'done'])
})

it('loses a message whose buffer was detached, and nothing of anybody else', () => {
  const { script, outbox } = scripted()
  const [careless, other] = [new Owner(), new Owner()]
  add(outbox, other, 1, 'ab')
  add(outbox, careless, 3, 'c')
  const mine = new Uint8Array(1)
  outbox.open(careless, 1, 1)
  outbox.add(mine)
  add(outbox, other, 5, 'de')
  script.takes.push([3, EAGAIN], [0, EPERM])
  structuredClone(mine.buffer, { transfer: [mine.buffer] })
  outbox.transmit()
  // What is refused now is the first of those that are left.
  script.onWritable()
  outbox.settle()
  expect(script.calls.map((trains) => trains.map(({ bytes }) => bytes))).toEqual([['ab', 'c', '', 'de'], ['de'], ['de']])
  expect([other.news, careless.news]).toEqual([
    ['done', `refused ${EPERM} 1`, 'done'],
    [`refused ${EINVAL} 1`, 'done', 'done'],
  ])
  add(outbox, other, 7, 'f')
  outbox.transmit()
  expect(script.calls.at(-1)).toMatchObject([{ seq: 7, bytes: 'f' }])
})

it('what a blocked outbox has kept can be discarded: owners hear of each segment, and what comes afterwards is sent', () => {
  const { script, outbox, room } = scripted()
  const [first, second] = [new Owner(), new Owner()]
  script.takes.push([1, EAGAIN])
  add(outbox, first, 1, 'abc')
  add(outbox, second, 2, 'd')
  outbox.transmit()
  expect(outbox.blocked).toBe(true)
  outbox.discard()
  outbox.settle()
  expect([first.news, second.news]).toEqual([
    [`refused ${EAGAIN} 1`, `refused ${EAGAIN} 1`, 'done'],
    [`refused ${EAGAIN} 1`, 'done'],
  ])
  script.onWritable()
  expect([outbox.blocked, room]).toEqual([false, ['room']])
  add(outbox, first, 3, 'e')
  outbox.transmit()
  expect(script.calls.slice(1).map((trains) => trains.map(({ seq, bytes }) => [seq, bytes]))).toEqual([[[3, 'e']]])
})

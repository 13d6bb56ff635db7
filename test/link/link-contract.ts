// What the engine relies on in every link, whichever way it captures and sends: one suite, run over each combination by link-contract.test.ts. On
// loopback, on ports of this process, by the interfaces of lib/link/capture.ts and sender.ts; payload is judged message by message, so that
// it does not matter in how many pieces a train crosses.
import { setImmediate } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { Capture, type CaptureFilter, type CaptureMode } from '../../lib/link/capture.ts'
import { NextHops } from '../../lib/link/next-hops.ts'
import { type LinkMode, openPacketSender, openRawSender, type Sender } from '../../lib/link/sender.ts'
import {
  ACK,
  D_ACK,
  D_FLAGS,
  D_HOP,
  D_KEY,
  D_LENGTH,
  D_OFFSET,
  D_SEGMENT,
  D_SEQ,
  D_TSECR,
  D_TSVAL,
  D_WINDOW,
  D_WORDS,
  FIN,
  HAS_TIMESTAMPS,
  HOP_IFINDEX,
  HOP_WORDS,
  KEY_LOCAL,
  KEY_REMOTE,
  KEY_WORDS,
  PSH,
  RST,
  SYN,
} from '../../lib/native/layout.ts'
import { addressWords } from '../native/packets.ts'
import { binding, type Family, loopback, unusedPort } from '../native/rig.ts'
import { describeTrains, type TrainToSend } from '../native/sender-rig.ts'

export interface Combination {
  readonly family: Family
  readonly capture: CaptureMode
  readonly sender: LinkMode
}

/** One message as it was captured. */
interface Message {
  readonly fromPort: number
  readonly seq: number
  readonly text: string
}

/** One captured train. */
interface Piece {
  readonly key: number[]
  readonly seq: number
  readonly ack: number
  readonly flags: number
  readonly window: number
  readonly timestamps: [number, number]
  readonly segment: number
  readonly payload: Buffer
}

const HELD_MS = 5000

class Link implements Disposable {
  readonly pieces: Piece[] = []
  readonly fromPort = unusedPort()
  readonly toPort = unusedPort()
  readonly capture: Capture
  readonly sender: Sender
  readonly hops: NextHops
  readonly #combination: Combination
  readonly #hop: number
  #wake: () => void = () => {}

  constructor(combination: Combination, filter?: CaptureFilter) {
    const { family, capture, sender } = combination
    this.#combination = combination
    this.capture = new Capture(binding, capture, family, filter ?? { ports: [this.toPort] }, (from, count) => this.#take(from, count))
    this.hops = new NextHops(binding, () => {})
    this.sender = sender === 'packet' ? openPacketSender(binding, this.hops, () => {}) : openRawSender(binding, family, () => {})
    const key = new Int32Array(KEY_WORDS)
    key.set(addressWords(loopback(family)), KEY_REMOTE)
    key.set(addressWords(loopback(family)), KEY_LOCAL)
    this.#hop = this.hops.open(key, 0, 0).hop
  }

  /** Sends trains, each from `fromPort` to `toPort` unless it says otherwise. Returns the segments that were taken. */
  send(...trains: (Partial<TrainToSend> & { hop?: number })[]): number {
    const address = loopback(this.#combination.family)
    const whole = trains.map((train) => ({ from: address, to: address, fromPort: this.fromPort, toPort: this.toPort, ...train }))
    const { descriptors, buffers } = describeTrains(whole)
    for (const [i, { hop = this.#hop }] of whole.entries()) descriptors[i * D_WORDS + D_HOP] = hop
    return this.sender.send(descriptors, 0, whole.length, buffers)
  }

  /** Resolves once so many messages, or segments without payload, have been captured. */
  async received(count: number): Promise<Message[]> {
    const deadline = performance.now() + HELD_MS
    while (this.messages.length < count) {
      if (performance.now() > deadline) throw new Error(`${this.messages.length} of ${count} messages came`)
      await new Promise<void>((resolve) => {
        this.#wake = resolve
        setTimeout(resolve, 100)
      })
    }
    return this.messages
  }

  get messages(): Message[] {
    return this.pieces.flatMap(({ key, seq, segment, payload }) => {
      const fromPort = key[KEY_WORDS - 1] >>> 16
      if (payload.length === 0) return [{ fromPort, seq, text: '' }]
      const messages: Message[] = []
      for (let at = 0; at < payload.length; at += segment)
        messages.push({ fromPort, seq: (seq + at) >>> 0, text: payload.toString('latin1', at, Math.min(at + segment, payload.length)) })
      return messages
    })
  }

  #take({ descriptors, slab }: Capture, count: number): void {
    for (let i = 0; i < count; i++) {
      const d = descriptors.subarray(i * D_WORDS, (i + 1) * D_WORDS)
      this.pieces.push({
        key: [...d.subarray(D_KEY, D_KEY + KEY_WORDS)],
        seq: d[D_SEQ] >>> 0,
        ack: d[D_ACK] >>> 0,
        flags: d[D_FLAGS],
        window: d[D_WINDOW],
        timestamps: [d[D_TSVAL], d[D_TSECR]],
        segment: d[D_SEGMENT],
        payload: Buffer.from(slab.subarray(d[D_OFFSET], d[D_OFFSET] + d[D_LENGTH])),
      })
    }
    this.#wake()
  }

  [Symbol.dispose](): void {
    this.sender.close()
    this.hops.close()
    this.capture.close()
  }
}

const texts = (count: number, size: number) => Array.from({ length: count }, (_, i) => String(i).padEnd(size))

export function linkContract(combination: Combination): void {
  const { family, capture, sender } = combination
  const inOnePiece = sender === 'packet'

  describe(`captured by ${capture}, sent by ${sender}, IPv${family}`, () => {
    it('a segment without payload arrives word for word', async () => {
      using link = new Link(combination)
      const words = { seq: 0xfffffffe, ack: 0x80000001, window: 4321 }
      expect(link.send({ ...words, flags: ACK, timestamps: [77, 88] }, { ...words, flags: FIN | ACK }, { ...words, flags: RST })).toBe(3)
      await link.received(3)
      expect(link.pieces.map(({ flags }) => flags & 0xff)).toEqual([ACK, FIN | ACK, RST])
      const [first] = link.pieces
      expect(first).toMatchObject({ ...words, segment: 0, timestamps: [77, 88], payload: Buffer.alloc(0) })
      expect(first.flags & HAS_TIMESTAMPS).toBe(HAS_TIMESTAMPS)
      expect(first.key).toEqual([
        ...addressWords(loopback(family)),
        ...addressWords(loopback(family)),
        ((link.fromPort << 16) | link.toPort) >> 0,
      ])
    })

    it('one message arrives word for word', async () => {
      using link = new Link(combination)
      expect(link.send({ seq: 5, ack: 6, window: 7, timestamps: [8, 9], flags: ACK | PSH, buffers: ['hello'] })).toBe(1)
      await link.received(1)
      expect(link.pieces).toMatchObject([{ seq: 5, ack: 6, window: 7, timestamps: [8, 9], flags: ACK | PSH | HAS_TIMESTAMPS }])
      expect(link.messages).toEqual([{ fromPort: link.fromPort, seq: 5, text: 'hello' }])
    })

    it('a train arrives message by message, PSH at its end only', async () => {
      using link = new Link(combination)
      const sent = [...texts(30, 1000), 'and a shorter one']
      expect(link.send({ seq: 1000, segment: 1000, buffers: sent, flags: ACK | PSH })).toBe(31)
      expect(await link.received(31)).toEqual(sent.map((text, i) => ({ fromPort: link.fromPort, seq: 1000 + i * 1000, text })))
      expect(link.pieces.map(({ flags }) => (flags & PSH) !== 0)).toEqual([...Array(link.pieces.length - 1).fill(false), true])
      if (inOnePiece) expect(link.pieces).toHaveLength(1)
    })

    it('a train whose messages lie one behind the other is the same, and what has gone of it is skipped', async () => {
      using link = new Link(combination)
      const sent = texts(10, 500)
      expect(link.send({ seq: 1, segment: 500, buffers: [sent.join('')] })).toBe(10)
      expect(link.send({ seq: 1, segment: 500, buffers: [sent.join('')], skip: 7 })).toBe(3)
      const all = sent.map((text, i) => ({ fromPort: link.fromPort, seq: 1 + i * 500, text }))
      expect(await link.received(13)).toEqual([...all, ...all.slice(7)])
    })

    it('what is sent in one call arrives in order, control segments, messages and trains of two flows', async () => {
      using link = new Link(combination)
      const other = unusedPort()
      const trains = Array.from({ length: 40 }, (_, i) => ({
        fromPort: i % 2 === 0 ? link.fromPort : other,
        seq: i * 10_000,
        ...(i % 5 === 4 ? {} : { buffers: texts(1 + (i % 7), 100 + i) }),
      }))
      const expected = trains.flatMap(({ fromPort, seq, buffers }) =>
        (buffers ?? ['']).map((text, i) => ({ fromPort, seq: seq + i * text.length, text })),
      )
      expect(link.send(...trains)).toBe(expected.length)
      expect(await link.received(expected.length)).toEqual(expected)
    })

    it('what the kernel refuses ends the call; what was before it has gone, what is sent later goes', async () => {
      using link = new Link(combination)
      // No such interface; broadcast without SO_BROADCAST; a source that is not ours.
      const refused = inOnePiece ? { hop: noSuchHop(link) } : family === 4 ? { to: '255.255.255.255' } : { from: '2001:db8::1' }
      expect(link.send({ seq: 1, segment: 1, buffers: ['abc'] }, { ...refused, buffers: ['never'] }, { buffers: ['nor this'] })).toBe(3)
      expect(link.sender.errno).toBeLessThan(0)
      expect(link.send({ seq: 9, buffers: ['later'] })).toBe(1)
      expect(link.sender.errno).toBe(0)
      expect((await link.received(4)).map(({ text }) => text)).toEqual(['a', 'b', 'c', 'later'])
    })

    it('only what the filter names is captured, and a new filter counts from then on', async () => {
      using link = new Link(combination)
      const other = unusedPort()
      link.send({ toPort: other, buffers: ['not for us'] }, { buffers: ['for us'] })
      await link.received(1)
      link.capture.setFilter({ ports: [other] })
      link.send({ buffers: ['not any more'] }, { toPort: other, buffers: ['for us now'] })
      expect((await link.received(2)).map(({ text }) => text)).toEqual(['for us', 'for us now'])
      link.capture.setFilter({ ports: [link.toPort, other], addresses: [[1, 2, 3, 4]] })
      link.send({ buffers: ['another address'] })
      link.capture.setFilter({ ports: [link.toPort], addresses: [addressWords(loopback(family)) as [number, number, number, number]] })
      link.send({ buffers: ['this address'] })
      expect((await link.received(3)).map(({ text }) => text)).toEqual(['for us', 'for us now', 'this address'])
    })

    it('drain hands over at once what has been captured', () => {
      using link = new Link(combination)
      link.send({ flags: SYN }, { buffers: texts(5, 50) })
      link.capture.drain()
      expect(link.messages.map(({ text }) => text.trim())).toEqual(['', '0', '1', '2', '3', '4'])
      link.capture.drain()
      expect(link.messages).toHaveLength(6)
    })

    it('closing twice is closing once, and nothing comes afterwards', async () => {
      using link = new Link(combination)
      link.send({ buffers: ['waiting'] })
      link.capture.close()
      link.capture.close()
      await setImmediate()
      await setImmediate()
      expect(link.pieces).toEqual([])
      link.sender.close()
      link.sender.close()
      expect(() => link.send({ buffers: ['late'] })).toThrow(expect.objectContaining({ code: 'EBADF' }))
    })

    it('says whether it tells the sizes of what was merged', () => {
      using link = new Link(combination)
      expect(link.capture.splitsTrains).toBe(capture === 'packet')
    })
  })
}

/** A row of the table, which nobody uses, for an interface that nobody has. */
function noSuchHop({ hops }: Link): number {
  const row = hops.table.length / HOP_WORDS - 1
  hops.table[row * HOP_WORDS + HOP_IFINDEX] = 0x7fffffff
  return row
}

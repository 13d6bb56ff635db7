// What a capture puts together of the packets that one system call brings: through the real thing on loopback, and, against a model and with
// mutations, outside of Node under AddressSanitizer (native/test/parse_tool.cc).
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ACK, D_FLAGS, D_LENGTH, D_SEGMENT, D_SEQ, D_WORDS, FIN, PSH, RST, SYN } from '../../lib/native/layout.ts'
import { type Arrival, gathered } from './coalesce-model.ts'
import { compile, type Helper } from './compile.ts'
import { packet, tcpSegment } from './packets.ts'
import { CaptureRig, type Family, loopback, type Train, unusedPort } from './rig.ts'
import { packetSender, type SenderRig, sender, sendTrains, type TrainToSend } from './sender-rig.ts'

const URG = 0x20
const ECE = 0x40
/** The least that a capture takes: 65 535 and the headers of link and virtio. */
const LEAST_SLOT_BYTES = 65_559

const kinds = (['packet', 'raw'] as const).flatMap((mode) => ([4, 6] as const).map((family) => ({ mode, family })))

/** Trains that come of `sent` over loopback when one system call brings them all. */
function trainsOf(
  { slotBytes, ...kind }: { mode: 'packet' | 'raw'; family: Family; slotBytes?: number | undefined },
  sent: readonly Partial<TrainToSend>[],
  by: SenderRig,
): Train[] {
  const [fromPort, toPort] = [unusedPort(), unusedPort()]
  const address = loopback(kind.family)
  // Opened first, it is served last (packet sockets are put at the head of their list), or at the same time: when it has all, the other has.
  using gauge = new CaptureRig({ ...kind, ports: [toPort], slots: 1 })
  using capture = new CaptureRig({ ...kind, ports: [toPort], slots: 32, ...(slotBytes ? { slotBytes } : {}) })
  using _closing = by
  sendTrains(
    by.native,
    sent.map((fields) => ({ from: address, to: address, fromPort, toPort, flags: ACK, ...fields })),
  )
  gauge.drained(sent.length)
  capture.native.drain()
  expect(capture.batches.length).toBe(1)
  return capture.trains
}

const shape = (trains: readonly Train[]) => trains.map(({ seq, payload, segment }) => `${seq}: ${payload.toString('latin1')} by ${segment}`)

describe.each(kinds)('a $mode capture of IPv$family', ({ mode, family }) => {
  const together = (sent: readonly Partial<TrainToSend>[], slotBytes?: number) =>
    trainsOf({ mode, family, slotBytes }, sent, sender(family))

  it('makes one train of equal segments in sequence, a shorter one last, with the flags of the last', () => {
    const trains = together([
      { seq: 0xfffffffc, buffers: ['aaaa'] },
      { seq: 0, buffers: ['bbbb'] },
      { seq: 4, buffers: ['cc'], flags: ACK | PSH },
    ])
    expect(shape(trains)).toEqual([`${0xfffffffc}: aaaabbbbcc by 4`])
    expect(trains[0].flags).toBe(ACK | PSH)
    expect([trains[0].ack, trains[0].window, trains[0].ttl]).toEqual([2000, 500, 64])
  })

  it('begins a new train behind a shorter segment', () => {
    const sent = ['aaaa', 'bb', 'cc', 'dd', 'd'].map((text, i) => ({ seq: [0, 4, 6, 8, 10][i], buffers: [text] }))
    expect(shape(together(sent))).toEqual(['0: aaaabb by 4', '6: ccddd by 2'])
  })

  it('begins a new train at a larger segment', () => {
    const sent = [
      { seq: 0, buffers: ['aa'] },
      { seq: 2, buffers: ['bbbb'] },
      { seq: 6, buffers: ['cccc'] },
    ]
    expect(shape(together(sent))).toEqual(['0: aa by 2', '2: bbbbcccc by 4'])
  })

  it('begins a new train behind PSH', () => {
    const sent = [PSH, PSH, 0, 0].map((push, i) => ({ seq: 2 * i, buffers: ['xx'], flags: ACK | push }))
    expect(shape(together(sent))).toEqual(['0: xx by 2', '2: xx by 2', '4: xxxx by 2'])
  })

  it('keeps apart flows that take turns', () => {
    const sent = [1, 2, 1, 2].map((fromPort, i) => ({ fromPort, seq: i < 2 ? 0 : 2, buffers: ['xx'] }))
    expect(shape(together(sent))).toEqual(['0: xx by 2', '0: xx by 2', '2: xx by 2', '2: xx by 2'])
  })

  const base: Partial<TrainToSend> = { timestamps: [5, 6], window: 9, ttl: 7, tos: 0x10 }
  it.each([
    ['behind a gap', 3],
    ['that overlaps', 1],
    ['that repeats the last one', 0],
    ['that comes before it', 0xfffffffe],
  ])('keeps apart a segment %s', (_what, seq) => {
    const sent = [0, seq].map((at) => ({ seq: at, buffers: ['aa'] }))
    expect(shape(together(sent))).toEqual(['0: aa by 2', `${seq}: aa by 2`])
  })

  it.each<[string, Partial<TrainToSend>]>([
    ['of another flow', { fromPort: 9 }],
    ['with another acknowledgement', { ack: 2001 }],
    ['with another window', { window: 10 }],
    ['with a later TSval', { timestamps: [6, 6] }],
    ['with a later TSecr', { timestamps: [5, 7] }],
    ['without timestamps', { timestamps: undefined }],
    ['with another TTL', { ttl: 8 }],
    ['with another traffic class', { tos: 0x12 }],
    ['with FIN', { flags: ACK | FIN }],
    ['with SYN', { flags: ACK | SYN }],
    ['with RST', { flags: ACK | RST }],
    ['with URG', { flags: ACK | URG }],
    ['with ECE', { flags: ACK | ECE }],
    ['without ACK', { flags: PSH }],
    ['without payload', { buffers: [] }],
  ])('keeps apart a segment %s', (_what, fields) => {
    const first = { ...base, seq: 0, buffers: ['aa'] }
    const next = { ...base, seq: 2, buffers: ['bb'], ...fields }
    expect(together([first, next]).map(({ payload }) => payload.length)).toEqual([2, next.buffers.length * 2])
    // The other way round it is kept apart too, and without the difference it is not.
    expect(
      together([
        { ...next, seq: 0 },
        { ...first, seq: next.buffers.length * 2 },
      ]).length,
    ).toBe(2)
    expect(together([first, { ...base, seq: 2, buffers: ['bb'] }]).length).toBe(1)
  })

  it('keeps pure acknowledgements apart', () => {
    expect(together([{ seq: 5 }, { seq: 5 }, { seq: 5 }]).map(({ payload, segment }) => [payload.length, segment])).toEqual([
      [0, 0],
      [0, 0],
      [0, 0],
    ])
  })

  it('ends a train where its slot has no room for another segment', () => {
    const headers = (mode === 'packet' ? 24 : 0) + (mode === 'raw' && family === 6 ? 20 : family === 6 ? 60 : 40)
    const room = LEAST_SLOT_BYTES - headers
    const fill = (size: number, count: number) =>
      together(
        Array.from({ length: count }, (_, i) => ({ seq: i * size, buffers: [Buffer.alloc(size, i)] })),
        LEAST_SLOT_BYTES,
      )
    const exact = [2, 3, 4, 5, 7, 9, 11, 13].find((count) => room % count === 0 || (room - 1) % count === 0) as number
    const size = Math.floor(room / exact)
    const whole = fill(size, exact + 1)
    expect(whole.map(({ payload }) => payload.length)).toEqual([exact * size, size])
    expect(whole[0].payload.equals(Buffer.concat(Array.from({ length: exact }, (_, i) => Buffer.alloc(size, i))))).toBe(true)
    expect(fill(size + 1, exact).map(({ payload }) => payload.length)).toEqual([(exact - 1) * (size + 1), size + 1])
  })
})

describe.each([4, 6] as const)('trains that the kernel has put together (IPv%i)', (family) => {
  const together = (sent: readonly Partial<TrainToSend>[]) => trainsOf({ mode: 'packet', family }, sent, packetSender())
  const train = (seq: number, segment: number, text: string) => ({ seq, segment, buffers: [text] })

  it('become one when they are cut alike', () => {
    const sent = [train(0, 2, 'aabbcc'), train(6, 2, 'ddee'), train(10, 2, 'fff'), train(13, 3, 'ggghhh')]
    expect(shape(together(sent))).toEqual(['0: aabbccddeefff by 2', '13: ggghhh by 3'])
  })

  it('stay apart where segments are shorter, also when they would fit into a single one', () => {
    expect(shape(together([train(0, 8, 'aaaaaaaa'), train(8, 2, 'bbcc')]))).toEqual(['0: aaaaaaaa by 8', '8: bbcc by 2'])
  })
})

describe('outside of Node', () => {
  const ADDRESSES = { 4: { source: '10.0.0.1', destination: '10.0.0.2' }, 6: { source: 'fd00::1', destination: 'fd00::2' } } as const
  let tool: Helper

  beforeAll(() => {
    tool = compile(['test/parse_tool.cc', 'parse.cc', 'coalesce.cc'], { sanitize: true })
  })
  afterAll(() => tool?.[Symbol.dispose]())

  interface Step {
    readonly family: 4 | 6
    readonly port: number
    /** Added to the sequence number that would follow. */
    readonly jump: number
    readonly size: number
    readonly count: number
    readonly last: number
    readonly flags: number
    readonly ack: number
    readonly window: number
    /** TSval and TSecr; left out when both are 0. */
    readonly timestamps: readonly [number, number]
    readonly ttl: number
    readonly tos: number
    readonly link: readonly [ifindex: number, macHigh: number, macLow: number, vlan: number]
  }

  /** Mostly the first value: runs that belong together must be common. */
  const mostly = <T>(usual: T, ...others: T[]) => fc.oneof({ weight: 12, arbitrary: fc.constant(usual) }, fc.constantFrom(usual, ...others))
  const step: fc.Arbitrary<Step> = fc.record({
    family: mostly<4 | 6>(4, 6),
    port: mostly(1, 2),
    jump: mostly(0, 1, -1, 7, 2 ** 31),
    size: fc.constantFrom(1, 3, 4, 6, 8),
    count: mostly(1, 0, 2, 3),
    last: fc.oneof({ weight: 3, arbitrary: fc.constant(8) }, fc.constantFrom(1, 2, 3, 4, 6)),
    flags: mostly(ACK, ACK | PSH, ACK | FIN, ACK | URG, SYN, RST, 0, PSH),
    ack: mostly(0, 1),
    window: mostly(5, 6),
    timestamps: mostly<readonly [number, number]>([1, 1], [1, 2], [2, 1], [0, 0]),
    ttl: mostly(64, 63),
    tos: mostly(0, 1),
    link: fc.tuple(mostly(1, 2), mostly(0, 0x80000001), mostly(0, 3), mostly(0, 4)),
  })

  /** What each step is as a packet, for the tool and for the model. */
  function arrivalsOf(steps: readonly Step[], start: number, slotBytes: number): { lines: string[]; arrivals: Arrival[] } {
    let seq = start
    let byte = 0
    const lines: string[] = []
    const arrivals: Arrival[] = []
    for (const { family, port, jump, size, count, last, flags, link, ...rest } of steps) {
      seq = (seq + jump) >>> 0
      const messages = Array.from({ length: count }, (_, i) => Buffer.alloc(i < count - 1 ? size : Math.min(size, last), ++byte & 0xff))
      const payload = Buffer.concat(messages)
      const [tsval, tsecr] = rest.timestamps
      const options = tsval === 0 ? [] : [1, 1, 8, 10, 0, 0, 0, tsval, 0, 0, 0, tsecr]
      const bytes = packet({ ...ADDRESSES[family], ...rest, sourcePort: port, seq, flags, options, payload })
      lines.push([family, count > 1 ? size : 0, ...link, bytes.toString('hex')].join(' '))
      arrivals.push({
        headers: JSON.stringify([family, port, rest, link]),
        seq,
        flags,
        messages,
        room: slotBytes - bytes.length + payload.length,
      })
      seq = (seq + payload.length) >>> 0
    }
    return { lines, arrivals }
  }

  function gather(batches: readonly (readonly string[])[], slotBytes: number) {
    const { stdout, stderr, status } = tool.run(
      ['gather', String(slotBytes)],
      batches.map((lines) => [...lines, '.\n'].join('\n')).join(''),
    )
    if (status !== 0) throw new Error(stderr)
    const answers = stdout.split('.\n').slice(0, -1)
    return answers.map((answer) =>
      answer
        .split('\n')
        .slice(0, -1)
        .map((line) => {
          const fields = line.split(' ')
          const words = fields.slice(0, D_WORDS).map(Number)
          return {
            seq: words[D_SEQ] >>> 0,
            flags: words[D_FLAGS] & 0xff,
            segment: words[D_SEGMENT],
            length: words[D_LENGTH],
            payload: fields[D_WORDS],
          }
        }),
    )
  }

  it('any batch becomes the trains that a model says, no message merged, lost or changed', () => {
    const batch = fc.tuple(fc.array(step, { minLength: 1, maxLength: 12 }), fc.constantFrom(0, 0xfffffff0, 0x7ffffff8))
    let merged = 0
    fc.assert(
      // Many batches for one start of the tool; slots with little room beside the headers, and with plenty.
      fc.property(fc.array(batch, { minLength: 20, maxLength: 60 }), fc.constantFrom(24, 25, 31, 40, 200), (batches, payloadRoom) => {
        const slotBytes = 72 + payloadRoom
        const all = batches.map(([steps, start]) => arrivalsOf(steps, start, slotBytes))
        const results = gather(
          all.map(({ lines }) => lines),
          slotBytes,
        )
        for (const [i, { arrivals }] of all.entries()) {
          const expected = gathered(arrivals)
          merged += arrivals.length - expected.length
          expect(results[i]).toEqual(
            expected.map(({ seq, flags, messages }) => {
              const payload = Buffer.concat(messages)
              return { seq, flags, segment: messages[0]?.length ?? 0, length: payload.length, payload: payload.toString('hex') }
            }),
          )
        }
      }),
      { numRuns: 40 },
    )
    // The property says nothing when nothing belongs together. How much does is drawn, too: some 1 000 to 1 300 of them.
    expect(merged).toBeGreaterThan(200)
  })

  it.each([1, 2, 3, 4])('survives 40 000 mutated runs without touching another slot or moving a boundary (seed %i)', (seed) => {
    const timestamps = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]
    const seeds = [
      { payload: 'x'.repeat(40), options: timestamps, flags: ACK },
      { payload: 'y'.repeat(40), flags: ACK },
      { payload: 'z'.repeat(7), flags: ACK | PSH },
      { flags: ACK },
      { payload: 'end', flags: ACK | FIN },
    ].map((fields) => tcpSegment({ source: '::', destination: '::', ...fields }))
    const { status, stdout, stderr } = tool.run(['mingle', String(seed), '40000', ...seeds.map((bytes) => bytes.toString('hex'))])
    expect(stderr).toBe('')
    expect([status, stdout]).toEqual([0, expect.stringMatching(/^packets \d{5,}\nmerged \d{4,}\n$/)])
  })
})

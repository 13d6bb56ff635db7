// What every sender does alike, as tests on loopback, watched by the addon's own capture; the bytes are judged by packets.ts, which shares no
// code with native/. It knows nothing of how a sender's packets leave.
import { setImmediate } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { ACK, D_WORDS, FIN, HAS_TIMESTAMPS, PSH, RST, SYN } from '../../lib/native/layout.ts'
import { packet } from './packets.ts'
import { CaptureRig, type Family, loopback, unusedPort } from './rig.ts'
import { describeTrains, type SenderRig, sendTrains, type TrainToSend } from './sender-rig.ts'

export interface SenderKind {
  readonly open: (family: Family) => SenderRig
  /** What stands in the checksum field: 'partial' where it is left to the kernel. */
  readonly checksum: 'right' | 'partial'
  /** A train that the kernel refuses on loopback, and its negative errno. */
  readonly refused: (family: Family) => { readonly fields: Partial<TrainToSend>; readonly errno: number }
  /** Further trains that are errors of the caller, with what is thrown. */
  readonly wrong: (family: Family) => readonly [string, Partial<TrainToSend>, RegExp][]
}

export function senderContract(kind: SenderKind): void {
  describe.each([4, 6] as const)('IPv%i', (family) => familyContract(kind, family))
  argumentContract(() => kind.open(4))
}

/** A sender, and a capture of what goes to one port, packet by packet. */
export function loopbackRig(family: Family, { native }: SenderRig) {
  const [fromPort, toPort] = [unusedPort(), unusedPort()]
  const capture = new CaptureRig({ mode: 'packet', family, ports: [toPort], slots: 1 })
  const train = (fields: Partial<TrainToSend>) => ({ from: loopback(family), to: loopback(family), fromPort, toPort, ...fields })
  const close = () => {
    capture.native.close()
    native.close()
  }
  return { capture, native, train, fromPort, toPort, [Symbol.dispose]: close }
}

function familyContract(kind: SenderKind, family: Family): void {
  const rig = () => loopbackRig(family, kind.open(family))
  const addresses = { source: loopback(family), destination: loopback(family), checksum: kind.checksum }

  it('writes the very packet that the RFCs describe', async () => {
    using r = rig()
    const fields = { seq: 0xfffffffe, ack: 0x80000001, window: 4321, flags: ACK | PSH, ttl: 9, tos: 0x2c, id: 0xabcd }
    expect(sendTrains(r.native, [r.train({ ...fields, buffers: ['hello'] })])).toBe(1)
    const [train] = await r.capture.received(1)
    const expected = packet({ ...addresses, sourcePort: r.fromPort, destinationPort: r.toPort, ...fields, payload: 'hello' })
    expect(train.packet.toString('hex')).toBe(expected.toString('hex'))
  })

  it('writes NOP NOP timestamps when asked to, and a TTL of 64 unless told', async () => {
    using r = rig()
    sendTrains(r.native, [r.train({ timestamps: [0xdeadbeef, 7], buffers: ['x'] })])
    const [train] = await r.capture.received(1)
    expect(train.flags).toBe(ACK | PSH | HAS_TIMESTAMPS)
    expect([train.tsval, train.tsecr, train.ttl]).toEqual([0xdeadbeef, 7, 64])
    expect(train.packet.subarray(r.capture.bareHeaders, r.capture.bareHeaders + 4).toString('hex')).toBe('0101080a')
  })

  it.each([
    { timestamps: undefined, before: [] },
    { timestamps: [1, 2], before: [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2] },
  ] as const)('writes NOP NOP and one SACK block, behind timestamps $timestamps', async ({ timestamps, before }) => {
    using r = rig()
    sendTrains(r.native, [r.train({ flags: ACK, timestamps, sack: [0xfffffff0, 0x10] })])
    const [train] = await r.capture.received(1)
    const options = [...before, 1, 1, 5, 10, 0xff, 0xff, 0xff, 0xf0, 0, 0, 0, 0x10]
    const fields = { seq: 1000, ack: 2000, window: 500, flags: ACK, options }
    const expected = packet({ ...addresses, sourcePort: r.fromPort, destinationPort: r.toPort, ...fields })
    expect(train.packet.toString('hex')).toBe(expected.toString('hex'))
  })

  it('sends one segment without payload for a train of no buffers', async () => {
    using r = rig()
    expect(sendTrains(r.native, [r.train({ flags: SYN }), r.train({ flags: RST | ACK }), r.train({ flags: FIN | ACK })])).toBe(3)
    const trains = await r.capture.received(3)
    expect(trains.map(({ flags, payload, seq }) => [flags, payload.length, seq])).toEqual([
      [SYN, 0, 1000],
      [RST | ACK, 0, 1000],
      [FIN | ACK, 0, 1000],
    ])
  })

  it('cuts each buffer at multiples of the segment size; PSH and FIN stand on the last segment of the train only', async () => {
    using r = rig()
    expect(sendTrains(r.native, [r.train({ flags: ACK | PSH | FIN, segment: 4, buffers: ['aaaabbbbcc', 'dddd', 'eeeef'] })])).toBe(6)
    const messages = await r.capture.messages(6)
    expect(messages.map(({ payload }) => payload.toString())).toEqual(['aaaa', 'bbbb', 'cc', 'dddd', 'eeee', 'f'])
    expect(messages.map(({ seq }) => seq)).toEqual([1000, 1004, 1008, 1010, 1014, 1018])
    expect(messages.map(({ flags }) => flags)).toEqual([ACK, ACK, ACK, ACK, ACK, ACK | PSH | FIN])
  })

  it('leaves out the segments that are to be skipped, their sequence numbers counted', async () => {
    using r = rig()
    expect(sendTrains(r.native, [r.train({ segment: 2, buffers: ['aabb', 'ccd'], skip: 3 })])).toBe(1)
    expect(sendTrains(r.native, [r.train({ segment: 2, buffers: ['aabb'], skip: 2 }), r.train({ skip: 1 })])).toBe(0)
    expect(sendTrains(r.native, [r.train({ segment: 2, buffers: ['aabbcc', 'dd'], skip: 2 })])).toBe(2)
    const messages = await r.capture.messages(3)
    expect(messages.map(({ seq, payload, flags }) => [seq, payload.toString(), flags])).toEqual([
      [1006, 'd', ACK | PSH],
      [1004, 'cc', ACK],
      [1006, 'dd', ACK | PSH],
    ])
  })

  it('counts the IPv4 identification up from segment to segment, those that are skipped too, across 2^16', async () => {
    using r = rig()
    // What a shorter segment ends is a packet of its own, whichever way it is sent.
    sendTrains(r.native, [r.train({ id: 0xfffd, segment: 4, buffers: ['aaaa', 'bb', 'c', 'd'], skip: 1 })])
    const trains = await r.capture.received(3)
    const ids = trains.map((train) => train.packet.readUInt16BE(4))
    if (family === 4) expect(ids).toEqual([0xfffe, 0xffff, 0])
  })

  it('counts sequence numbers across 2^32', async () => {
    using r = rig()
    sendTrains(r.native, [r.train({ seq: 0xfffffffd, segment: 2, buffers: ['aab', 'ccd'] })])
    const messages = await r.capture.messages(4)
    expect(messages.map(({ seq }) => seq)).toEqual([0xfffffffd, 0xffffffff, 0, 2])
  })

  it('sends any number of segments in one call, in order, checksums as they should be at every length', async () => {
    using r = rig()
    const whole = Buffer.from(Array.from({ length: 5000 }, (_, i) => i & 0xff))
    const payload = (i: number) => whole.subarray(i, 2 * i + 1)
    const trains = Array.from({ length: 150 }, (_, i) => r.train({ seq: i, buffers: [payload(i)] }))
    expect(sendTrains(r.native, trains)).toBe(150)
    const received = await r.capture.received(150)
    const ports = { sourcePort: r.fromPort, destinationPort: r.toPort }
    for (const [seq, train] of received.entries()) {
      const expected = packet({ ...addresses, ...ports, seq, ack: 2000, window: 500, payload: payload(seq) })
      expect(train.packet.equals(expected), `packet ${seq}`).toBe(true)
    }
  })

  it('sends the largest packet that IP knows, and refuses a larger one', async () => {
    using r = rig()
    const most = 65535 - r.capture.bareHeaders
    expect(sendTrains(r.native, [r.train({ buffers: [Buffer.alloc(most, 1)] })])).toBe(1)
    const [train] = await r.capture.received(1)
    expect(train.payload.length).toBe(most)
    const withTimestamps = { timestamps: [1, 2], buffers: [Buffer.alloc(most)] } as const
    for (const tooLarge of [{ buffers: [Buffer.alloc(most + 1)] }, withTimestamps]) {
      expect(() => sendTrains(r.native, [r.train(tooLarge)])).toThrow(/1 to \d+ can be sent/)
    }
  })

  it('takes payload from a SharedArrayBuffer', async () => {
    using r = rig()
    const shared = new Uint8Array(new SharedArrayBuffer(64), 3, 5)
    shared.set(Buffer.from('cells'))
    sendTrains(r.native, [r.train({ buffers: [shared] })])
    const [train] = await r.capture.received(1)
    expect(train.payload.toString()).toBe('cells')
  })

  it('sends from the middle of a table of descriptors', async () => {
    using r = rig()
    const { descriptors, buffers } = describeTrains(['a', 'b', 'c'].map((text) => r.train({ buffers: [text] })))
    expect(r.native.send(descriptors, 1, 1, buffers)).toBe(1)
    const [train] = await r.capture.received(1)
    expect(train.payload.toString()).toBe('b')
  })

  it('stops at the first segment that the kernel refuses, says how many went, and why in errno', async () => {
    using r = rig()
    const { fields, errno } = kind.refused(family)
    const trains = [r.train({ segment: 1, buffers: ['abc'] }), r.train({ ...fields, buffers: ['x'] }), r.train({ buffers: ['never'] })]
    expect(sendTrains(r.native, trains)).toBe(3)
    expect(r.native.errno).toBe(errno)
    expect(sendTrains(r.native, [r.train({ buffers: ['last'] })])).toBe(1)
    expect(r.native.errno).toBe(0)
    const messages = await r.capture.messages(4)
    expect(messages.map(({ payload }) => payload.toString())).toEqual(['a', 'b', 'c', 'last'])
  })

  it.each([63, 64, 65, 130])('counts right when message %i of a call is the one that is refused', async (accepted) => {
    using r = rig()
    const { fields, errno } = kind.refused(family)
    const trains = Array.from({ length: 140 }, (_, i) => r.train({ seq: i, buffers: ['x'], ...(i === accepted ? fields : {}) }))
    expect([sendTrains(r.native, trains), r.native.errno]).toEqual([accepted, errno])
    sendTrains(r.native, [r.train({ seq: 999, buffers: ['end'] })])
    const messages = await r.capture.messages(accepted + 1)
    expect(messages.map(({ seq }) => seq)).toEqual([...Array.from({ length: accepted }, (_, i) => i), 999])
  })

  it.each<[string, Partial<TrainToSend>, RegExp]>([
    ['buffers that are not there', { offset: 1, length: 1, segment: 1 }, /names buffers 1 to 2 of 0/],
    ['a negative first buffer', { offset: -1, length: 1, segment: 1 }, /names buffers -1 to 0 of 0/],
    ['a negative number of buffers', { length: -1 }, /names buffers/],
    ['a segment size of 0', { buffers: ['x'], segment: 0 }, /segments of 0 bytes/],
    ['a negative segment size', { buffers: ['x'], segment: -5 }, /segments of -5 bytes/],
    ['an empty buffer', { buffers: [''], segment: 5 }, /buffer 0 is empty/],
    ['more to skip than there is', { buffers: ['abc'], segment: 2, skip: 3 }, /skips 3 of 2 segments/],
    ['a negative number to skip', { buffers: ['abc'], skip: -1 }, /skips -1 of 1 segments/],
    ...kind.wrong(family),
  ])('throws for %s, and sends nothing of the whole call', async (_what, fields, message) => {
    using r = rig()
    const { descriptors, buffers } = describeTrains([r.train({ flags: SYN }), r.train(fields)])
    const own = fields.length === undefined ? buffers : []
    expect(() => r.native.send(descriptors, 0, 2, own)).toThrow(message)
    r.native.send(descriptors, 0, 1, [])
    await r.capture.received(1)
    await setImmediate()
    r.capture.native.drain()
    expect(r.capture.trains.length).toBe(1)
  })
}

function argumentContract(open: () => SenderRig): void {
  it('throws for arguments of the wrong kind or out of range', () => {
    using rig = open()
    const s = rig.native
    const table = new Int32Array(2 * D_WORDS)
    expect(() => s.send([] as never, 0, 0, [])).toThrow(/descriptors must be an Int32Array, it is another object/)
    expect(() => s.send(new Uint32Array(24) as never, 0, 1, [])).toThrow(TypeError)
    expect(() => s.send(table, 0, 3, [])).toThrow(/count must be an integer from 0 to 2, it is 3/)
    expect(() => s.send(table, 2, 1, [])).toThrow(/count must be an integer from 0 to 0/)
    expect(() => s.send(table, -1, 1, [])).toThrow(RangeError)
    expect(() => s.send(table, Number.NaN, 1, [])).toThrow(RangeError)
    expect(() => s.send(table, 0.5, 1, [])).toThrow(RangeError)
    expect(() => s.send(table, 0, 0, {} as never)).toThrow(/buffers must be an array/)
    const { descriptors } = describeTrains([
      { from: '127.0.0.1', to: '127.0.0.1', fromPort: 1, toPort: 2, offset: 0, length: 1, segment: 1 },
    ])
    for (const wrong of ['text', new Float64Array(1), new DataView(new ArrayBuffer(4)), null]) {
      expect(() => s.send(descriptors, 0, 1, [wrong as never])).toThrow(/each of buffers must be a Uint8Array/)
    }
  })

  it('may be closed twice; sending then throws EBADF', () => {
    const s = open().native
    s.close()
    s.close()
    expect(() => s.send(new Int32Array(D_WORDS), 0, 1, [])).toThrow(
      expect.objectContaining({ code: 'EBADF', errno: -9, syscall: 'sendmmsg' }),
    )
  })
}

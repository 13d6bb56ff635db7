// The sender by AF_PACKET on loopback: the contract of senders, and what only it has: trains in one piece, and the table of hops.
import { describe, expect, it } from 'vitest'
import { ACK, FIN, HOP_BYTES, HOP_WORDS, PSH } from '../../lib/native/layout.ts'
import { packet } from './packets.ts'
import { binding, loopback, messagesOf } from './rig.ts'
import { loopbackRig, senderContract } from './sender-contract.ts'
import { describeHops, describeTrains, LOOPBACK_HOPS, packetSender, sendTrains } from './sender-rig.ts'

const NO_SUCH_INTERFACE = 2
const LONG_HEADER = 3
const NEGATIVE_HEADER = 4

/** Rows beside those of LOOPBACK_HOPS that cannot be sent by. */
function hops(): Int32Array {
  const table = describeHops([...LOOPBACK_HOPS, { ifindex: 0x7ffffffe, header: LOOPBACK_HOPS[0].header }, ...LOOPBACK_HOPS])
  table[LONG_HEADER * HOP_WORDS + HOP_BYTES] = 25
  table[NEGATIVE_HEADER * HOP_WORDS + HOP_BYTES] = -1
  return table
}

senderContract({
  open: () => packetSender(hops()),
  checksum: 'partial',
  refused: () => ({ fields: { hop: NO_SUCH_INTERFACE }, errno: -6 }),
  wrong: (family) => [
    ['addresses of both families', { to: family === 4 ? '::1' : '127.0.0.1' }, /descriptor 1 has addresses of both families/],
    ['a hop beyond the table', { hop: 5 }, /descriptor 1 names hop 5 of 5/],
    ['a negative hop', { hop: -1 }, /descriptor 1 names hop -1 of 5/],
    ['a link header that is too long', { hop: LONG_HEADER }, /hop 3 has a link header of 25 bytes, 0 to 24 can be sent/],
    ['a link header of less than nothing', { hop: NEGATIVE_HEADER }, /hop 4 has a link header of -1 bytes/],
  ],
})

describe.each([4, 6] as const)('a train over IPv%i', (family) => {
  const rig = () => loopbackRig(family, packetSender())
  const bytes = (length: number) => Buffer.from(Array.from({ length }, (_, i) => (i * 7 + (i >> 8)) & 0xff))

  it('leaves as one packet that tells its segment size', async () => {
    using r = rig()
    const payload = bytes(35 * 1000 + 1)
    const fields = { seq: 5, ack: 6, window: 7, flags: ACK | PSH | FIN }
    expect(sendTrains(r.native, [r.train({ ...fields, segment: 1000, buffers: [payload] })])).toBe(36)
    const [train] = await r.capture.received(1)
    expect([train.segment, train.flags]).toEqual([1000, ACK | PSH | FIN])
    const ports = { sourcePort: r.fromPort, destinationPort: r.toPort }
    const addresses = { source: loopback(family), destination: loopback(family) }
    expect(train.packet.equals(packet({ ...addresses, ...ports, ...fields, payload, checksum: 'partial' }))).toBe(true)
  })

  it('is put together from buffers that lie apart, and from such that touch', async () => {
    using r = rig()
    const whole = bytes(64)
    const buffers = [whole.subarray(0, 8), whole.subarray(8, 16), whole.subarray(40, 48), whole.subarray(24, 32), whole.subarray(60, 63)]
    expect(sendTrains(r.native, [r.train({ segment: 8, buffers })])).toBe(5)
    const [train] = await r.capture.received(1)
    expect([train.segment, train.payload.toString('hex')]).toEqual([8, Buffer.concat(buffers).toString('hex')])
  })

  it('of one segment has no segment size of its own', async () => {
    using r = rig()
    sendTrains(r.native, [r.train({ segment: 1400, buffers: ['short'] })])
    const [train] = await r.capture.received(1)
    expect([train.payload.toString(), train.segment]).toEqual(['short', 5])
  })

  it('with unequal buffers is several packets, in order: a shorter segment ends a packet', async () => {
    using r = rig()
    const buffers = ['aaaa', 'bbbb', 'ccc', 'dd', 'eeee', 'ffffgg', 'hhhh']
    expect(sendTrains(r.native, [r.train({ segment: 4, buffers })])).toBe(8)
    const trains = await r.capture.received(4)
    expect(trains.map(({ payload }) => payload.toString())).toEqual(['aaaabbbbccc', 'dd', 'eeeeffffgg', 'hhhh'])
    expect(trains.map(({ seq }) => seq)).toEqual([1000, 1011, 1013, 1023])
    expect(trains.map(({ flags }) => flags)).toEqual([ACK, ACK, ACK, ACK | PSH])
  })

  it('that is longer than a packet may be is cut between segments', async () => {
    using r = rig()
    const size = 1000
    const payload = bytes(2 * 65_000 + 1500)
    expect(sendTrains(r.native, [r.train({ segment: size, buffers: [payload] })])).toBe(132)
    const trains = await r.capture.received(3)
    expect(trains.map(({ payload: { length }, segment }) => [length, segment])).toEqual([
      [65_000, size],
      [65_000, size],
      [1500, size],
    ])
    expect(Buffer.concat(trains.map((train) => train.payload)).equals(payload)).toBe(true)
    expect(trains.map(({ flags }) => flags)).toEqual([ACK, ACK, ACK | PSH])
  })

  it('fills a packet to the last byte that the kernel passes on uncut, link header and timestamps counted', async () => {
    using r = rig()
    const room = 65535 - LOOPBACK_HOPS[0].header.length - r.capture.bareHeaders - 12
    const size = 1045
    const last = room % size
    expect(last).toBeGreaterThan(1)
    const trains = [bytes(room), bytes(room + 1)].map((payload) => r.train({ segment: size, buffers: [payload], timestamps: [1, 2] }))
    sendTrains(r.native, trains)
    const received = await r.capture.received(3)
    expect(received.map(({ payload }) => payload.length)).toEqual([room, room - last, last + 1])
    expect(received[0].payload.equals(bytes(room))).toBe(true)
  })

  it('of more buffers than a packet is put together from is cut between them, and loses nothing', async () => {
    using r = rig()
    const spread = bytes(200 * 20)
    // Every other piece, so that none touches the next.
    const buffers = Array.from({ length: 200 }, (_, i) => spread.subarray(i * 20, i * 20 + 10))
    expect(sendTrains(r.native, [r.train({ segment: 10, buffers })])).toBe(200)
    const messages = await r.capture.messages(200)
    expect(Buffer.concat(messages.map(({ payload }) => payload)).equals(Buffer.concat(buffers))).toBe(true)
    expect(r.capture.trains.map(({ payload }) => payload.length)).toEqual([640, 640, 640, 80])
    expect(messages.map(({ flags }) => flags)).toEqual([...Array<number>(199).fill(ACK), ACK | PSH])
  })

  it('that went in part is taken up where it stopped, in the middle of a packet too', async () => {
    using r = rig()
    const payload = bytes(95)
    for (const skip of [0, 1, 5, 9]) expect(sendTrains(r.native, [r.train({ segment: 10, buffers: [payload], skip })])).toBe(10 - skip)
    const trains = await r.capture.received(4)
    expect(trains.map((train) => [train.seq, train.payload.length])).toEqual([
      [1000, 95],
      [1010, 85],
      [1050, 45],
      [1090, 5],
    ])
    for (const train of trains) expect(train.payload.equals(payload.subarray(train.seq - 1000))).toBe(true)
  })

  it('with the refused one behind it counts every segment of its packets', async () => {
    using r = rig()
    const table = hops()
    using both = packetSender(table)
    const trains = [r.train({ segment: 10, buffers: [bytes(95), bytes(15)] }), r.train({ hop: NO_SUCH_INTERFACE, buffers: ['x'] })]
    expect([sendTrains(both.native, trains), both.native.errno]).toEqual([12, -6])
    expect((await r.capture.messages(12)).length).toBe(12)
  })

  it('is sent beside trains of other sizes and flows in one call, each in its own packets', async () => {
    using r = rig()
    const trains = Array.from({ length: 100 }, (_, i) =>
      r.train({ fromPort: 1000 + i, seq: i * 100, segment: i + 1, buffers: [bytes(3 * (i + 1)), bytes(1)] }),
    )
    expect(sendTrains(r.native, trains)).toBe(400)
    const received = await r.capture.received(100)
    for (const [i] of trains.entries()) {
      const own = received.filter(({ remotePort }) => remotePort === 1000 + i)
      const sizes = [...Array<number>(3).fill(i + 1), 1]
      expect(messagesOf(own).map(({ payload }) => payload.length)).toEqual(sizes)
      expect(Buffer.concat(own.map(({ payload }) => payload)).equals(Buffer.concat([bytes(3 * (i + 1)), bytes(1)]))).toBe(true)
    }
  })
})

it('sends over IPv4 and IPv6 in one call', async () => {
  using four = loopbackRig(4, packetSender())
  using six = loopbackRig(6, packetSender())
  const trains = [four, six, four, six].map(({ train }, i) => train({ seq: i, buffers: [`message ${i}`] }))
  expect(sendTrains(four.native, trains)).toBe(4)
  expect((await four.capture.received(2)).map(({ payload }) => payload.toString())).toEqual(['message 0', 'message 2'])
  expect((await six.capture.received(2)).map(({ payload }) => payload.toString())).toEqual(['message 1', 'message 3'])
})

it('needs a table of hops', () => {
  const sender = new binding.PacketSender({ sendBufferBytes: 4096, onWritable() {} })
  const { descriptors } = describeTrains([{ from: '127.0.0.1', to: '127.0.0.1', fromPort: 1, toPort: 2 }])
  const send = sender.send.bind(sender) as (...args: unknown[]) => number
  expect(() => send(descriptors, 0, 1, [])).toThrow(/hops must be an Int32Array, it is undefined/)
  expect(() => send(descriptors, 0, 1, [], new Uint8Array(64))).toThrow(/hops must be an Int32Array/)
  expect(() => send(descriptors, 0, 1, [], new Int32Array(HOP_WORDS - 1))).toThrow(/descriptor 0 names hop 0 of 0/)
  sender.close()
})

it('throws for options that it cannot use', () => {
  const options = { sendBufferBytes: 4096, onWritable() {} }
  expect(() => new binding.PacketSender({ ...options, sendBufferBytes: 0 })).toThrow(RangeError)
  expect(() => new binding.PacketSender({ ...options, onWritable: {} as never })).toThrow(/onWritable must be a function/)
  expect(() => (binding.PacketSender as unknown as (options: unknown) => void)(options)).toThrow(TypeError)
})

// The raw sender on loopback, watched by the addon's own capture; the bytes are judged by packets.ts, which shares no code with it.
import { setImmediate } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { ACK, D_WORDS, FIN, HAS_TIMESTAMPS, PSH, RST, SYN } from '../../lib/native/layout.ts'
import { checksumsHold, packet } from './packets.ts'
import { binding, CaptureRig, describeTrains, type Family, loopback, sender, sendTrains, type TrainToSend, unusedPort } from './rig.ts'

describe.each([4, 6] as const)('IPv%i', (family) => {
  function rig() {
    const [fromPort, toPort] = [unusedPort(), unusedPort()]
    const capture = new CaptureRig({ mode: 'packet', family, ports: [toPort], slots: 32 })
    const { native } = sender(family)
    const train = (fields: Partial<TrainToSend>) => ({ from: loopback(family), to: loopback(family), fromPort, toPort, ...fields })
    const close = () => {
      capture.native.close()
      native.close()
    }
    return { capture, native, train, [Symbol.dispose]: close }
  }

  it('writes the very packet that the RFCs describe', async () => {
    using r = rig()
    const fields = { seq: 0xfffffffe, ack: 0x80000001, window: 4321, flags: ACK | PSH }
    expect(sendTrains(r.native, [r.train({ ...fields, buffers: ['hello'], ttl: 9, tos: 0x2c })])).toBe(1)
    const [train] = await r.capture.received(1)
    const ports = { sourcePort: train.remotePort, destinationPort: train.localPort }
    const addresses = { source: loopback(family), destination: loopback(family) }
    expect(train.packet.toString('hex')).toBe(
      packet({ ...addresses, ...ports, ...fields, payload: 'hello', ttl: 9, tos: 0x2c }).toString('hex'),
    )
  })

  it('writes NOP NOP timestamps when asked to, and a TTL of 64 unless told', async () => {
    using r = rig()
    sendTrains(r.native, [r.train({ timestamps: [0xdeadbeef, 7], buffers: ['x'] })])
    const [train] = await r.capture.received(1)
    expect(train.flags).toBe(ACK | PSH | HAS_TIMESTAMPS)
    expect([train.tsval, train.tsecr, train.ttl]).toEqual([0xdeadbeef, 7, 64])
    expect(train.packet.subarray(r.capture.bareHeaders, r.capture.bareHeaders + 4).toString('hex')).toBe('0101080a')
  })

  it('sends one segment without payload for a train of no buffers', async () => {
    using r = rig()
    expect(sendTrains(r.native, [r.train({ flags: SYN }), r.train({ flags: RST | ACK })])).toBe(2)
    const trains = await r.capture.received(2)
    expect(trains.map(({ flags, payload, seq }) => [flags, payload.length, seq])).toEqual([
      [SYN, 0, 1000],
      [RST | ACK, 0, 1000],
    ])
  })

  it('cuts each buffer at multiples of the segment size; PSH and FIN stand on the last segment of the train only', async () => {
    using r = rig()
    expect(sendTrains(r.native, [r.train({ flags: ACK | PSH | FIN, segment: 4, buffers: ['aaaabbbbcc', 'dddd', 'eeeef'] })])).toBe(6)
    const trains = await r.capture.received(6)
    expect(trains.map(({ payload }) => payload.toString())).toEqual(['aaaa', 'bbbb', 'cc', 'dddd', 'eeee', 'f'])
    expect(trains.map(({ seq }) => seq)).toEqual([1000, 1004, 1008, 1010, 1014, 1018])
    expect(trains.map(({ flags }) => flags)).toEqual([ACK, ACK, ACK, ACK, ACK, ACK | PSH | FIN])
  })

  it('leaves out the segments that are to be skipped, their sequence numbers counted', async () => {
    using r = rig()
    expect(sendTrains(r.native, [r.train({ segment: 2, buffers: ['aabb', 'ccd'], skip: 3 })])).toBe(1)
    expect(sendTrains(r.native, [r.train({ segment: 2, buffers: ['aabb'], skip: 2 }), r.train({ skip: 1 })])).toBe(0)
    expect(sendTrains(r.native, [r.train({ segment: 2, buffers: ['ee'] })])).toBe(1)
    const trains = await r.capture.received(2)
    expect(trains.map(({ seq, payload, flags }) => [seq, payload.toString(), flags])).toEqual([
      [1006, 'd', ACK | PSH],
      [1000, 'ee', ACK | PSH],
    ])
  })

  it('sends any number of segments in one call, in order, checksums right at every length', async () => {
    using r = rig()
    const whole = Buffer.from(Array.from({ length: 5000 }, (_, i) => i & 0xff))
    const trains = Array.from({ length: 150 }, (_, i) => r.train({ seq: i, buffers: [whole.subarray(i, 2 * i + 1)] }))
    expect(sendTrains(r.native, trains)).toBe(150)
    const received = await r.capture.received(150)
    expect(received.map(({ seq }) => seq)).toEqual(trains.map(({ seq }) => seq))
    for (const [i, train] of received.entries()) {
      expect(train.payload.equals(whole.subarray(i, 2 * i + 1))).toBe(true)
      expect(checksumsHold(train.packet)).toBe(true)
    }
  })

  it('sends the largest packet that IP knows, and refuses a larger one', async () => {
    using r = rig()
    const most = 65535 - r.capture.bareHeaders
    expect(sendTrains(r.native, [r.train({ buffers: [Buffer.alloc(most, 1)] })])).toBe(1)
    const [train] = await r.capture.received(1)
    expect(train.payload.length).toBe(most)
    expect(() => sendTrains(r.native, [r.train({ buffers: [Buffer.alloc(most + 1)] })])).toThrow(new RegExp(`1 to ${most} can be sent`))
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
    // No packet leaves: broadcast is refused without SO_BROADCAST, and so is a source that is not ours in IPv6.
    const refused = family === 4 ? { to: '255.255.255.255' } : { from: '2001:db8::1' }
    const trains = [r.train({ segment: 1, buffers: ['abc'] }), r.train({ ...refused, buffers: ['x'] }), r.train({ buffers: ['never'] })]
    expect(sendTrains(r.native, trains)).toBe(3)
    expect(r.native.errno).toBe(family === 4 ? -13 : -22)
    expect(sendTrains(r.native, [r.train({ buffers: ['last'] })])).toBe(1)
    expect(r.native.errno).toBe(0)
    const received = await r.capture.received(4)
    expect(received.map(({ payload }) => payload.toString())).toEqual(['a', 'b', 'c', 'last'])
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
    ['an address of the other family', { to: family === 4 ? '::1' : '127.0.0.1' }, /this sender is for IPv/],
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
})

const native = (family: Family = 4) => sender(family).native

it('throws for arguments of the wrong kind or out of range', () => {
  const s = native()
  const table = new Int32Array(2 * D_WORDS)
  expect(() => s.send([] as never, 0, 0, [])).toThrow(/descriptors must be an Int32Array, it is another object/)
  expect(() => s.send(new Uint32Array(24) as never, 0, 1, [])).toThrow(TypeError)
  expect(() => s.send(table, 0, 3, [])).toThrow(/count must be an integer from 0 to 2, it is 3/)
  expect(() => s.send(table, 2, 1, [])).toThrow(/count must be an integer from 0 to 0/)
  expect(() => s.send(table, -1, 1, [])).toThrow(RangeError)
  expect(() => s.send(table, Number.NaN, 1, [])).toThrow(RangeError)
  expect(() => s.send(table, 0.5, 1, [])).toThrow(RangeError)
  expect(() => s.send(table, 0, 0, {} as never)).toThrow(/buffers must be an array/)
  const { descriptors } = describeTrains([{ from: '127.0.0.1', to: '127.0.0.1', fromPort: 1, toPort: 2, offset: 0, length: 1, segment: 1 }])
  for (const wrong of ['text', new Float64Array(1), new DataView(new ArrayBuffer(4)), null]) {
    expect(() => s.send(descriptors, 0, 1, [wrong as never])).toThrow(/each of buffers must be a Uint8Array/)
  }
  s.close()
})

it('throws for options that it cannot use', () => {
  const options = { family: 4, sendBufferBytes: 4096, onWritable() {} } as const
  expect(() => new binding.RawSender({ ...options, family: 5 as never })).toThrow(RangeError)
  expect(() => new binding.RawSender({ ...options, sendBufferBytes: -1 })).toThrow(RangeError)
  expect(() => new binding.RawSender({ ...options, onWritable: undefined as never })).toThrow(/onWritable must be a function/)
  expect(() => (binding.RawSender as unknown as (options: unknown) => void)(options)).toThrow(TypeError)
})

it('may be closed twice; sending then throws EBADF', () => {
  const s = native()
  s.close()
  s.close()
  expect(() => s.send(new Int32Array(D_WORDS), 0, 1, [])).toThrow(
    expect.objectContaining({ code: 'EBADF', errno: -9, syscall: 'sendmmsg' }),
  )
  expect(() => s.close.call({} as never)).toThrow(TypeError)
})

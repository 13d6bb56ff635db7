// Both kinds of capture on loopback: what they deliver, what they refuse, and how they end.
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { setImmediate } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import * as layout from '../../lib/native/layout.ts'
import { Assembler } from '../../lib/wire/bpf.ts'
import { captureProgram } from '../../lib/wire/programs.ts'
import { addressWords } from './packets.ts'
import { binding, CaptureRig, carrierPair, loopback, MUTE, SLOT_BYTES, unusedPort } from './rig.ts'
import { type SenderRig, sender, sendTrains } from './sender-rig.ts'

const { ACK, D_WORDS, HAS_SACK, HAS_SCALE, HAS_TIMESTAMPS, PSH, SYN } = layout
const EVERYTHING = new Assembler().ret(0xffffffff).assemble()

const kinds = (['packet', 'raw'] as const).flatMap((mode) => ([4, 6] as const).map((family) => ({ mode, family })))

describe.each(kinds)('$mode capture of IPv$family', ({ mode, family }) => {
  const local = loopback(family)

  function rig(options: Partial<ConstructorParameters<typeof CaptureRig>[0]> = {}) {
    const port = unusedPort()
    const capture = new CaptureRig({ mode, family, ports: [port], ...options })
    const { native } = sender(family)
    const send = (...payloads: (string | Buffer)[]) =>
      sendTrains(
        native,
        payloads.map((payload, seq) => ({
          from: local,
          fromPort: 55_555,
          to: local,
          toPort: port,
          seq,
          buffers: [payload],
          timestamps: [1, 2],
        })),
      )
    const close = () => {
      capture.native.close()
      native.close()
    }
    return { capture, native, port, send, [Symbol.dispose]: close } satisfies Disposable &
      Record<string, unknown> & { native: SenderRig['native'] }
  }

  it('describes each packet: flow key, sequence, flags, window, timestamps, TTL, device, payload', async () => {
    using r = rig()
    const fields = { seq: 0xf0000000, ack: 0xf0000001, window: 77, timestamps: [0x80000000, 3], ttl: 5, tos: 0x10 } as const
    sendTrains(r.native, [{ from: local, fromPort: 4321, to: local, toPort: r.port, ...fields, buffers: ['message'] }])
    const [train] = await r.capture.received(1)
    expect(train.key.slice(0, 8)).toEqual([...addressWords(local), ...addressWords(local)])
    expect([train.remotePort, train.localPort]).toEqual([4321, r.port])
    expect([train.seq, train.ack, train.window, train.tsval, train.tsecr]).toEqual([0xf0000000, 0xf0000001, 77, 0x80000000, 3])
    expect([train.flags, train.ttl, train.ifindex]).toEqual([ACK | PSH | HAS_TIMESTAMPS, 0x1005, 1])
    expect([train.payload.toString(), train.segment, train.mss]).toEqual(['message', 7, 0])
  })

  it('reads the options of the kernel’s own SYN, and sees the handshake complete', async () => {
    using capture = new CaptureRig({ mode, family, program: EVERYTHING })
    using pair = await carrierPair(family)
    const key = new Int32Array(layout.KEY_WORDS)
    pair.server.key(key)
    const ours = () => capture.trains.filter((train) => train.key.join() === key.join())
    while (ours().length < 2) await capture.received(capture.trains.length + 1)
    const [syn, third] = ours()
    const info = new Int32Array(layout.INFO_WORDS)
    pair.server.info(info)
    expect(syn.flags & 0xff).toBe(SYN)
    expect(syn.flags & (HAS_TIMESTAMPS | HAS_SACK | HAS_SCALE)).toBe(HAS_TIMESTAMPS | HAS_SACK | HAS_SCALE)
    expect((syn.flags >>> layout.SCALE_SHIFT) & 0xff).toBe(info[layout.INFO_SEND_SCALE])
    expect(syn.mss).toBeGreaterThan(1200)
    expect([syn.payload.length, syn.segment]).toEqual([0, 0])
    expect([third.flags & 0xff, third.seq]).toEqual([ACK, (syn.seq + 1) >>> 0])
  })

  it('has a link address only where there is a link header', async () => {
    using r = rig()
    r.send('x')
    const [train] = await r.capture.received(1)
    expect(train.macHigh < 0).toBe(mode === 'packet')
  })

  it('calls back once for each system call, with as many packets as there are slots at most', async () => {
    using r = rig({ slots: 4 })
    r.send(...Array.from({ length: 10 }, (_, i) => `message ${i}`))
    const trains = await r.capture.received(10)
    expect(trains.map(({ payload }) => payload.toString())).toEqual(Array.from({ length: 10 }, (_, i) => `message ${i}`))
    expect(Math.max(...r.capture.batches)).toBeLessThanOrEqual(4)
    expect(r.capture.counters[layout.COUNT_PACKETS]).toBe(10)
    expect(r.capture.counters[layout.COUNT_CALLS]).toBeGreaterThanOrEqual(r.capture.batches.length)
  })

  it('reads at once what is waiting when it is drained', async () => {
    using r = rig()
    r.send('now', 'and now')
    let read = 0
    // The softirq that delivers on loopback may be late by a moment; the event loop's own poll must not get there first.
    for (let i = 0; read < 2 && i < 1e6; i++) read += r.capture.native.drain()
    expect([read, r.capture.trains.length]).toEqual([2, 2])
    expect(r.capture.native.drain()).toBe(0)
  })

  it('does nothing when it is drained inside onBatch', async () => {
    const drained: number[] = []
    using r = rig({ slots: 1, onBatch: (_count, { native }) => drained.push(native.drain()) })
    r.send('a', 'b', 'c')
    await r.capture.received(3)
    expect(drained).toEqual([0, 0, 0])
  })

  it('never calls back again once it was closed, also from inside onBatch', async () => {
    using r = rig({ slots: 1, onBatch: (_count, { native }) => native.close() })
    using later = rig()
    r.send('a', 'b', 'c')
    later.send('end')
    await later.capture.received(1)
    await setImmediate()
    expect(r.capture.trains.length).toBe(1)
    r.capture.native.close()
    expect(r.capture.native.drain()).toBe(0)
    for (const call of [
      () => r.capture.native.kernelDrops(),
      () => r.capture.native.receiveBufferBytes,
      () => r.capture.native.setFilter(MUTE),
    ]) {
      expect(call).toThrow(expect.objectContaining({ code: 'EBADF' }))
    }
  })

  it('keeps what a new filter keeps', async () => {
    using r = rig()
    r.send('before')
    await r.capture.received(1)
    r.capture.native.setFilter(MUTE)
    r.send('unheard')
    r.capture.native.setFilter(captureProgram({ link: mode, family, ports: [r.port] }))
    r.send('after')
    const trains = await r.capture.received(2)
    expect(trains.map(({ payload }) => payload.toString())).toEqual(['before', 'after'])
  })

  it('counts what the kernel dropped for want of buffer, never downwards', async () => {
    using r = rig({ receiveBufferBytes: 1 })
    expect(r.capture.native.receiveBufferBytes).toBeGreaterThan(0)
    expect(r.capture.native.kernelDrops()).toBe(0)
    r.send(...Array<Buffer>(100).fill(Buffer.alloc(10_000)))
    const drops = r.capture.native.kernelDrops()
    expect(drops).toBeGreaterThan(0)
    expect(r.capture.native.kernelDrops()).toBeGreaterThanOrEqual(drops)
  })

  it('gets the receive buffer that it asks for', () => {
    using r = rig({ receiveBufferBytes: 3 << 20 })
    expect(r.capture.native.receiveBufferBytes).toBeGreaterThanOrEqual(3 << 20)
  })

  it('stops reading, without harm, when its memory was taken away', () => {
    using r = rig()
    structuredClone(r.capture.slab.buffer, { transfer: [r.capture.slab.buffer as ArrayBuffer] })
    expect(() => r.capture.native.drain()).toThrow(/slab must have slots \* slotBytes = 528000 bytes, it has 0/)
  })
})

it('counts packets that are not TCP as foreign and delivers none of them', async () => {
  using capture = new CaptureRig({ mode: 'packet', family: 4, program: EVERYTHING })
  const socket = createSocket('udp4')
  socket.bind(0, '127.0.0.1')
  await once(socket, 'listening')
  socket.send('datagram', socket.address().port, '127.0.0.1')
  await once(socket, 'message')
  socket.close()
  capture.native.drain()
  expect(capture.counters[layout.REJECT_FOREIGN]).toBeGreaterThan(0)
})

describe('the constructor', () => {
  const slots = 2
  const options = {
    mode: 'packet',
    family: 4,
    program: MUTE,
    receiveBufferBytes: 65536,
    slab: new Uint8Array(slots * SLOT_BYTES),
    slots,
    slotBytes: SLOT_BYTES,
    descriptors: new Int32Array(slots * D_WORDS),
    counters: new Float64Array(layout.CAPTURE_COUNTERS),
    onBatch() {},
  } as const

  it.each<[string, object, RegExp]>([
    ['a mode that does not exist', { mode: 'bpf' }, /mode must be 'packet' or 'raw', it is 'bpf'/],
    ['no mode', { mode: undefined }, /mode must be a string, it is undefined/],
    ['a family that does not exist', { family: 10 }, /family must be an integer from 4 to 6, it is 10/],
    ['no slots', { slots: 0 }, /slots must be an integer from 1/],
    ['slots that do not hold a packet', { slotBytes: 2048 }, /slotBytes must be an integer from 65559/],
    ['a slab that is too small', { slab: new Uint8Array(SLOT_BYTES) }, /slab must have slots \* slotBytes = 132000 bytes, it has 66000/],
    ['a slab that is none', { slab: 'slab' }, /slab must be a typed array/],
    ['a slab of words', { slab: new Uint16Array(slots * SLOT_BYTES) }, /slab must be a Uint8Array/],
    [
      'too few descriptors',
      { descriptors: new Int32Array(D_WORDS) },
      new RegExp(`descriptors must have at least ${2 * D_WORDS} elements, it has ${D_WORDS}`),
    ],
    ['too few counters', { counters: new Float64Array(1) }, /counters must have at least 8 elements/],
    ['half an instruction', { program: new Uint8Array(12) }, /program must be 1 to 4096 BPF instructions of 8 bytes, it has 12 bytes/],
    ['no program', { program: new Uint8Array(0) }, /program must be/],
    ['no callback', { onBatch: {} }, /onBatch must be a function, it is another object/],
  ])('refuses %s', (_what, wrong, message) => {
    expect(() => new binding.Capture({ ...options, ...wrong } as never)).toThrow(message)
  })

  it('throws what the kernel says about a program that it refuses', () => {
    const jumpsNowhere = new Uint8Array(new Uint16Array([0x05, 0, 99, 0]).buffer)
    expect(() => new binding.Capture({ ...options, program: jumpsNowhere })).toThrow(
      expect.objectContaining({ code: 'EINVAL', errno: -22, syscall: 'setsockopt' }),
    )
  })

  it('needs new', () => {
    expect(() => (binding.Capture as unknown as (options: unknown) => void)(options)).toThrow(TypeError)
  })
})

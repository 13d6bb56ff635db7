// What a message of the tunnel costs: by the native codec, a train for each call, and the same messages by node:crypto, a cipher for each. One run,
// medians over rounds that take turns, so that a noisy machine treats all alike.
// Run: npm run bench:codec
import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto'
import type { TunnelKeys } from '../lib/native/binding.ts'
import { RUN_WORDS } from '../lib/native/layout.ts'
import { openCodec } from '../lib/tunnel/codec.ts'
import { median } from './figures.ts'

const ROUNDS = 101
const WARM_UP = 20
/** Between two looks at the clock. With those of 1 400 bytes the trains still fit the processor's own memory, as what the kernel has just copied does. */
const MESSAGES = 368
const HEADER_BYTES = 3
const COUNTER_BYTES = 6
const TAG_BYTES = 16

interface Shape {
  readonly size: number
  readonly messages: number
}

const SHAPES: readonly Shape[] = [
  { size: 64, messages: 64 },
  { size: 1400, messages: 46 },
  { size: 64, messages: 1 },
  { size: 1400, messages: 1 },
]

/** Packs trains and unpacks them; both in nanoseconds for each message. */
type Round = () => { pack: number; unpack: number }

function nativeRound(cipher: TunnelKeys['cipher'] | undefined, { size, messages }: Shape): Round {
  const there = keysOf(cipher)
  const back = keysOf(cipher)
  const near = openCodec({ seal: there, open: back })
  const far = openCodec({ seal: back, open: there })
  const payload = randomBytes(size * messages)
  const segment = size + near.overhead
  const length = segment * messages
  const wire = new Uint8Array(trainsOf(messages) * length)
  const runs = new Int32Array(64 * RUN_WORDS)
  return () => ({
    pack: timed(messages, (train) => near.pack(0, 1, payload, 0, payload.length, size, wire, train * length) === length),
    unpack: timed(messages, (train) => far.unpack(wire, train * length, length, segment, runs) === 1),
  })
}

/** The same format as well as JavaScript can: the masks of a train by one call, no copy that can be spared. */
function nodeRound(keys: TunnelKeys, { size, messages }: Shape): Round {
  const payload = randomBytes(size * messages)
  const segment = COUNTER_BYTES + HEADER_BYTES + size + TAG_BYTES
  const wire = Buffer.alloc(trainsOf(messages) * messages * segment)
  const plain = Buffer.alloc(messages * size)
  const header = Buffer.from([0, 0, 1])
  const nonce = Buffer.from(keys.iv)
  const samples = Buffer.alloc(messages * 16)
  const name = keys.cipher as 'aes-256-gcm'
  const options = { authTagLength: TAG_BYTES }
  const blocks = createCipheriv('aes-256-ecb', keys.mask, null).setAutoPadding(false)

  const setNonce = (number: number) => {
    nonce.writeUIntBE(number, 6, COUNTER_BYTES)
    for (let i = 6; i < 12; i++) nonce[i] ^= keys.iv[i]
  }
  const masksOf = (at: number) => {
    for (let i = 0; i < messages; i++) wire.copy(samples, 16 * i, at + i * segment + COUNTER_BYTES, at + i * segment + COUNTER_BYTES + 16)
    return blocks.update(samples)
  }
  const applyMasks = (at: number) => {
    const masks = masksOf(at)
    for (let i = 0; i < messages; i++) {
      for (let j = 0; j < COUNTER_BYTES; j++) wire[at + i * segment + j] ^= masks[16 * i + j]
    }
  }

  let next = 0
  const packTrain = (train: number) => {
    const start = train * messages * segment
    for (let i = 0, at = start; i < messages; i++, at += segment) {
      wire.writeUIntBE(next, at, COUNTER_BYTES)
      setNonce(next++)
      const cipher = createCipheriv(name, keys.key, nonce, options)
      cipher.update(header).copy(wire, at + COUNTER_BYTES)
      cipher.update(payload.subarray(i * size, (i + 1) * size)).copy(wire, at + COUNTER_BYTES + HEADER_BYTES)
      cipher.final()
      cipher.getAuthTag().copy(wire, at + segment - TAG_BYTES)
    }
    applyMasks(start)
    return true
  }
  const unpackTrain = (train: number) => {
    const start = train * messages * segment
    applyMasks(start)
    for (let i = 0, at = start; i < messages; i++, at += segment) {
      setNonce(wire.readUIntBE(at, COUNTER_BYTES))
      const cipher = createDecipheriv(name, keys.key, nonce, options).setAuthTag(wire.subarray(at + segment - TAG_BYTES, at + segment))
      const text = cipher.update(wire.subarray(at + COUNTER_BYTES, at + segment - TAG_BYTES))
      cipher.final()
      text.copy(plain, i * size, HEADER_BYTES)
    }
    return true
  }
  return () => ({ pack: timed(messages, packTrain), unpack: timed(messages, unpackTrain) })
}

function keysOf<Cipher extends TunnelKeys['cipher'] | undefined>(cipher: Cipher): Cipher extends undefined ? undefined : TunnelKeys
function keysOf(cipher: TunnelKeys['cipher'] | undefined): TunnelKeys | undefined {
  return cipher && { cipher, key: randomBytes(32), iv: randomBytes(12), mask: randomBytes(32) }
}

function trainsOf(messages: number): number {
  return Math.floor(MESSAGES / messages)
}

function timed(messages: number, run: (train: number) => boolean): number {
  const trains = trainsOf(messages)
  const start = process.hrtime.bigint()
  let good = true
  for (let train = 0; train < trains; train++) good = run(train) && good
  const ns = Number(process.hrtime.bigint() - start)
  if (!good) throw new Error('a train came out otherwise than it went in')
  return ns / (trains * messages)
}

const CASES = SHAPES.flatMap((shape) => [
  { shape, by: 'codec, plain', round: nativeRound(undefined, shape) },
  ...(['aes-256-gcm', 'chacha20-poly1305'] as const).flatMap((cipher) => [
    { shape, by: `codec, ${cipher}`, round: nativeRound(cipher, shape) },
    { shape, by: `node:crypto, ${cipher}`, round: nodeRound(keysOf(cipher), shape) },
  ]),
]).map((one) => ({ ...one, pack: [] as number[], unpack: [] as number[] }))

for (let round = -WARM_UP; round < ROUNDS; round++) {
  for (const one of CASES) {
    const { pack, unpack } = one.round()
    if (round < 0) continue
    one.pack.push(pack)
    one.unpack.push(unpack)
  }
}

/** Of each round's own quotient, as contenders of one round met the same noise. */
function ratio(one: readonly number[], other: readonly number[]): number {
  return Number((median(one.map((ns, i) => ns / other[i])) ?? Number.NaN).toFixed(1))
}

for (const shape of SHAPES) {
  const here = CASES.filter((one) => one.shape === shape)
  const rows = here.map(({ by, pack, unpack }) => {
    const ours = here.find((other) => other.by === by.replace('node:crypto', 'codec')) ?? here[0]
    return [
      by,
      {
        'pack, ns': Math.round(median(pack) ?? Number.NaN),
        'unpack, ns': Math.round(median(unpack) ?? Number.NaN),
        'pack to codec': ratio(pack, ours.pack),
        'unpack to codec': ratio(unpack, ours.unpack),
      },
    ]
  })
  console.log(`${shape.size} bytes, ${shape.messages === 1 ? 'alone' : `${shape.messages} in a train`}; for each message, medians`)
  console.table(Object.fromEntries(rows))
}
console.log(`Node ${process.version}, OpenSSL ${process.versions.openssl}, ${process.arch}`)

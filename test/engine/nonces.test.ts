// Which hellos are remembered as answered.
import { expect, it } from 'vitest'
import { Nonces } from '../../lib/engine/nonces.ts'

const nonce = (number: number) => {
  const bytes = Buffer.alloc(8)
  bytes.writeUInt32BE(number, 4)
  return bytes
}

it('each is new once', () => {
  const nonces = new Nonces()
  expect([nonces.add(nonce(1)), nonces.add(nonce(2)), nonces.add(nonce(1)), nonces.add(nonce(2))]).toEqual([true, true, false, false])
})

it('memory keeps the newest, and never more than two generations', () => {
  const nonces = new Nonces(100)
  const known = (number: number) => !nonces.add(nonce(number))
  for (let i = 0; i < 1000; i++) {
    expect(known(i)).toBe(false)
    expect(Array.from({ length: Math.min(i + 1, 100) }, (_, back) => known(i - back)).every(Boolean)).toBe(true)
  }
  expect(nonces.add(nonce(1000 - 201))).toBe(true)
})

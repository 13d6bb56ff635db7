// How the tunnel opens its codec: what is wrong with the machine is told apart from what is wrong with the caller.
import { randomBytes, setFips } from 'node:crypto'
import { expect, it, onTestFinished } from 'vitest'
import type { TunnelKeys } from '../../lib/native/binding.ts'
import { openCodec, usable } from '../../lib/tunnel/codec.ts'
import { tunnelServer } from '../../lib/tunnel/index.ts'

const keysOf = (cipher: TunnelKeys['cipher']): TunnelKeys => ({ cipher, key: randomBytes(32), iv: randomBytes(12), mask: randomBytes(32) })

it.each(['aes-256-gcm', 'chacha20-poly1305'] as const)('a cipher that OpenSSL refuses is ERR_FAKETCP_UNSUPPORTED (%s)', (cipher) => {
  const options = { seal: keysOf(cipher), open: keysOf(cipher) }
  expect(openCodec(options).overhead).toBe(25)
  // There is no FIPS provider, so OpenSSL has no cipher at all any more.
  setFips(true)
  onTestFinished(() => setFips(false))
  expect(() => openCodec(options)).toThrow(
    expect.objectContaining({ name: 'FakeTcpError', code: 'ERR_FAKETCP_UNSUPPORTED', message: expect.stringContaining(cipher) }),
  )
})

it('ciphers that cannot be had are not agreed on, and without any the tunnel does not open', async () => {
  const wish = { allowed: ['aes-256-gcm', 'chacha20-poly1305'], preferred: 'chacha20-poly1305' } as const
  expect(usable(wish)).toEqual(wish)
  setFips(true)
  onTestFinished(() => setFips(false))
  expect(() => usable(wish)).toThrow(expect.objectContaining({ code: 'ERR_FAKETCP_UNSUPPORTED' }))
  await expect(tunnelServer({ listen: '127.0.0.1:0', to: '127.0.0.1:9', key: randomBytes(16) })).rejects.toMatchObject({
    code: 'ERR_FAKETCP_UNSUPPORTED',
  })
})

it('keys of the wrong size are the caller’s mistake', () => {
  expect(() => openCodec({ seal: keysOf('aes-256-gcm'), open: { ...keysOf('aes-256-gcm'), key: randomBytes(16) } })).toThrow(RangeError)
})

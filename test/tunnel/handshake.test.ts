// The tunnel's handshake: what both ends agree when they share a key, and that nobody agrees with anybody else.
import { randomBytes } from 'node:crypto'
import { expect, it } from 'vitest'
import { type CipherWish, Initiator, respond } from '../../lib/tunnel/handshake.ts'
import { type Cipher, deriveSecrets } from '../../lib/tunnel/keys.ts'

const CLIENT = Buffer.alloc(16, 7)
const [AES, CHACHA] = ['aes-256-gcm', 'chacha20-poly1305'] as const
const both = (preferred: Cipher): CipherWish => ({ allowed: [AES, CHACHA], preferred })
const only = (cipher: Cipher): CipherWish => ({ allowed: [cipher], preferred: cipher })
const secrets = await deriveSecrets(Buffer.from('sixteen bytes or more'))
const others = await deriveSecrets(Buffer.from('Sixteen bytes or more'))
const open = await deriveSecrets(undefined)

it('both ends have the same keys, one for each direction, and the server knows the client', () => {
  const client = new Initiator(secrets, CLIENT, both(AES))
  const accepted = respond(secrets, client.message, both(AES))
  const agreed = client.finish(accepted!.message)
  expect(accepted?.clientId).toEqual(CLIENT)
  expect(accepted?.keys?.client.cipher).toBe(AES)
  expect(agreed?.keys).toEqual(accepted?.keys)
  expect(agreed?.keys?.client.key).not.toEqual(agreed?.keys?.server.key)
  expect([agreed?.keys?.client.key.length, agreed?.keys?.client.iv.length, agreed?.keys?.client.mask.length]).toEqual([32, 12, 32])
})

it('the keys of each flow are new', () => {
  const keys = [1, 2].map(() => {
    const client = new Initiator(secrets, CLIENT, both(AES))
    return client.finish(respond(secrets, client.message, both(AES))!.message)?.keys?.client.key.toString()
  })
  expect(keys[0]).not.toBe(keys[1])
})

it.each([
  [both(AES), both(AES), AES],
  [both(AES), both(CHACHA), CHACHA],
  [both(CHACHA), both(AES), CHACHA],
  [only(AES), both(CHACHA), AES],
  [both(CHACHA), only(AES), AES],
  [only(CHACHA), both(AES), CHACHA],
  [only(AES), only(CHACHA), undefined],
] as const)('of what client and server want (%j, %j) the cipher is %s', (client, server, cipher) => {
  const accepted = respond(secrets, new Initiator(secrets, CLIENT, client).message, server)
  expect(accepted?.keys?.client.cipher).toBe(cipher)
})

it('without a key nothing is encrypted, and the handshake recognises its kind all the same', () => {
  const client = new Initiator(open, CLIENT, both(AES))
  const accepted = respond(open, client.message, both(AES))
  expect(accepted?.keys).toBeUndefined()
  expect(client.finish(accepted!.message)).toEqual({ keys: undefined })
  expect(respond(open, randomBytes(client.message.length), both(AES))).toBeUndefined()
})

it.each([
  ['another key', secrets, others],
  ['a key and none', secrets, open],
  ['none and a key', open, secrets],
])('an INIT under %s is not answered', (_name, client, server) => {
  expect(respond(server, new Initiator(client, CLIENT, both(AES)).message, both(AES))).toBeUndefined()
})

it('every bit of both messages counts', () => {
  const client = new Initiator(secrets, CLIENT, both(AES))
  const accepted = respond(secrets, client.message, both(AES))!
  const flipped = (message: Buffer, bit: number) => {
    const changed = Buffer.from(message)
    changed[bit >> 3] ^= 1 << (bit & 7)
    return changed
  }
  // Each byte, one of its bits: the cipher has no favourites among them.
  for (let at = 0; at < client.message.length; at++)
    expect(respond(secrets, flipped(client.message, at * 8 + (at & 7)), both(AES))).toBeUndefined()
  for (let at = 0; at < accepted.message.length; at++) expect(client.finish(flipped(accepted.message, at * 8 + (at & 7)))).toBeUndefined()
})

it('an ACCEPT answers one INIT only, and our own INIT is no answer', () => {
  const [one, other] = [new Initiator(secrets, CLIENT, both(AES)), new Initiator(secrets, CLIENT, both(AES))]
  const accepted = respond(secrets, one.message, both(AES))!
  expect(other.finish(accepted.message)).toBeUndefined()
  expect(one.finish(one.message)).toBeUndefined()
  expect(one.finish(accepted.message)).toBeDefined()
})

it.each([0, 1, 31, 32, 47, 99, 2000])('%s random bytes are neither', (length) => {
  const junk = randomBytes(length)
  expect(respond(secrets, junk, both(AES))).toBeUndefined()
  expect(new Initiator(secrets, CLIENT, both(AES)).finish(junk)).toBeUndefined()
})

it('the hello has a key of its own, or none without a key', () => {
  expect(secrets.helloKey).toHaveLength(32)
  expect(secrets.helloKey).not.toEqual(secrets.master)
  expect(secrets.helloKey).not.toEqual(others.helloKey)
  expect(open.helloKey).toBeUndefined()
})

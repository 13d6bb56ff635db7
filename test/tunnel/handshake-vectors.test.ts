// The vectors of docs/wire.md ("Tunnel handshake"): both messages, byte by byte, and the keys that come of them.
import { createPrivateKey, createPublicKey } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import type { TunnelKeys } from '../../lib/native/binding.ts'
import { type CipherWish, Initiator, respond } from '../../lib/tunnel/handshake.ts'
import { deriveSecrets, KeyShare } from '../../lib/tunnel/keys.ts'

interface End {
  readonly salt: string
  readonly privateKey: string
  readonly padding: number
}
interface Keys {
  readonly key: string
  readonly iv: string
  readonly mask: string
}
interface Vector {
  readonly psk: string | null
  readonly helloKey?: string
  readonly clientId: string
  readonly client: End
  readonly server: End
  readonly init: string
  readonly accept: string
  readonly cipher?: TunnelKeys['cipher']
  readonly clientKeys?: Keys
  readonly serverKeys?: Keys
}

const document = readFileSync(new URL('../../docs/wire.md', import.meta.url), 'utf8')
const block = /### Tunnel handshake vectors[\s\S]*?```json\n([\s\S]*?)```/.exec(document)
const vectors: Vector[] = JSON.parse(block?.[1] ?? '[]')

/** What stands before the 32 bytes of an X25519 private key in PKCS #8 (RFC 8410, 7). */
const PKCS8 = '302e020100300506032b656e04220420'
const BOTH: CipherWish = { allowed: ['aes-256-gcm', 'chacha20-poly1305'], preferred: 'aes-256-gcm' }

const chanceOf = ({ salt, privateKey: raw, padding }: End) => {
  const privateKey = createPrivateKey({ key: Buffer.from(PKCS8 + raw, 'hex'), format: 'der', type: 'pkcs8' })
  return { salt: Buffer.from(salt, 'hex'), padding, share: new KeyShare({ privateKey, publicKey: createPublicKey(privateKey) }) }
}
const hex = ({ key, iv, mask }: TunnelKeys): Keys => ({
  key: Buffer.from(key).toString('hex'),
  iv: Buffer.from(iv).toString('hex'),
  mask: Buffer.from(mask).toString('hex'),
})

describe('the handshake of docs/wire.md', () => {
  it('has a vector with a key and one without', () => {
    expect(vectors.map(({ psk }) => psk !== null).sort()).toEqual([false, true])
  })

  it.each(vectors)('is made and understood as it stands there (key $psk)', async (vector) => {
    const secrets = await deriveSecrets(vector.psk === null ? undefined : Buffer.from(vector.psk))
    const client = new Initiator(secrets, Buffer.from(vector.clientId, 'hex'), BOTH, chanceOf(vector.client))
    const accepted = respond(secrets, client.message, BOTH, chanceOf(vector.server))
    expect(client.message.toString('hex')).toBe(vector.init)
    expect(accepted?.message.toString('hex')).toBe(vector.accept)
    expect(accepted?.clientId.toString('hex')).toBe(vector.clientId)
    expect(secrets.helloKey?.toString('hex')).toBe(vector.helloKey)
    const { keys } = client.finish(Buffer.from(vector.accept, 'hex')) ?? { keys: undefined }
    expect(keys?.client.cipher).toBe(vector.cipher)
    expect(keys && [hex(keys.client), hex(keys.server)]).toEqual(vector.clientKeys && [vector.clientKeys, vector.serverKeys])
  })
})

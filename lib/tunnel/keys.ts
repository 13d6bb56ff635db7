// The key schedule of the tunnel: from the pre-shared key to the keys of the hello, the handshake and each flow. docs/wire.md specifies it.
import { createPublicKey, diffieHellman, generateKeyPairSync, hkdfSync, type KeyObject, scrypt } from 'node:crypto'
import type { TunnelKeys } from '../native/binding.ts'

export type Cipher = 'aes-256-gcm' | 'chacha20-poly1305'

export const SALT_BYTES = 32
export const PUBLIC_KEY_BYTES = 32
/** Of the key, iv and mask of one direction. */
export const KEY_BYTES = 32
export const IV_BYTES = 12
export const MASK_BYTES = 32

/** Without a key the handshake is sealed all the same, under this: it recognises, it does not protect. */
const PUBLIC_SECRET = Buffer.from('faketcp tunnel without a key')
const NO_SALT = Buffer.alloc(0)

/** What both ends derive from the pre-shared key, once. */
export interface Secrets {
  /** Whether a pre-shared key is behind it. */
  readonly keyed: boolean
  readonly master: Buffer
  /** For the option `helloKey`; undefined without a pre-shared key. */
  readonly helloKey: Buffer | undefined
}

/** Key and nonce of one sealed message. */
export interface OneTimeKey {
  readonly key: Buffer
  readonly iv: Buffer
}

/**
 * Slow on purpose (tens of milliseconds, once): whoever has recorded a handshake can try keys against it, and some keys are made up by people.
 *
 * @param key at least 16 bytes; undefined: nothing is encrypted
 */
export async function deriveSecrets(key: Uint8Array | undefined): Promise<Secrets> {
  if (key === undefined) return { keyed: false, master: PUBLIC_SECRET, helloKey: undefined }
  const master = await stretch(key)
  return { keyed: true, master, helloKey: derive(master, NO_SALT, 'hello', 32) }
}

/** RFC 7914 with N = 2^14, r = 8, p = 1. */
function stretch(key: Uint8Array): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    scrypt(key, 'faketcp tunnel 1', 32, { N: 1 << 14, r: 8, p: 1 }, (error, stretched) => (error ? reject(error) : resolve(stretched)))
  })
}

/** The client's first message is sealed with this. */
export function initKey({ master }: Secrets, clientSalt: Uint8Array): OneTimeKey {
  return oneTimeKey(derive(master, clientSalt, 'init', KEY_BYTES + IV_BYTES))
}

/** The server's answer is sealed with this; it names the message that it answers. */
export function acceptKey({ master }: Secrets, clientSalt: Uint8Array, serverSalt: Uint8Array): OneTimeKey {
  return oneTimeKey(derive(master, Buffer.concat([clientSalt, serverSalt]), 'accept', KEY_BYTES + IV_BYTES))
}

export interface TrafficKeys {
  /** For what the client sends. */
  readonly client: TunnelKeys
  readonly server: TunnelKeys
}

/** Keys of one flow, both directions. They need the secrets of the handshake's two key pairs, which nobody has any more once it is over. */
export function trafficKeys(
  { master }: Secrets,
  shared: Uint8Array,
  clientSalt: Uint8Array,
  serverSalt: Uint8Array,
  cipher: Cipher,
): TrafficKeys {
  const secret = Buffer.concat([shared, master])
  const salt = Buffer.concat([clientSalt, serverSalt])
  const direction = (info: string): TunnelKeys => {
    const bytes = derive(secret, salt, info, KEY_BYTES + IV_BYTES + MASK_BYTES)
    return {
      cipher,
      key: bytes.subarray(0, KEY_BYTES),
      iv: bytes.subarray(KEY_BYTES, KEY_BYTES + IV_BYTES),
      mask: bytes.subarray(KEY_BYTES + IV_BYTES),
    }
  }
  return { client: direction('client'), server: direction('server') }
}

function oneTimeKey(bytes: Buffer): OneTimeKey {
  return { key: bytes.subarray(0, KEY_BYTES), iv: bytes.subarray(KEY_BYTES) }
}

/** HKDF-SHA256 (RFC 5869). */
function derive(secret: Uint8Array, salt: Uint8Array, info: string, length: number): Buffer {
  return Buffer.from(hkdfSync('sha256', secret, salt, `faketcp tunnel ${info}`, length))
}

/** One side's key pair for one handshake (X25519, RFC 7748). */
export class KeyShare {
  readonly publicKey: Buffer
  readonly #privateKey: KeyObject

  constructor({ publicKey, privateKey } = generateKeyPairSync('x25519')) {
    this.publicKey = Buffer.from(publicKey.export({ format: 'jwk' }).x as string, 'base64url')
    this.#privateKey = privateKey
  }

  /** @returns undefined for a public key with which every secret is the same (RFC 7748, 6.1) */
  agree(peer: Uint8Array): Buffer | undefined {
    const x = Buffer.from(peer).toString('base64url')
    try {
      return diffieHellman({
        privateKey: this.#privateKey,
        publicKey: createPublicKey({ key: { kty: 'OKP', crv: 'X25519', x }, format: 'jwk' }),
      })
    } catch {
      return undefined
    }
  }
}

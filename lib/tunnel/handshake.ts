// The tunnel's handshake on a fresh flow: INIT from the client, ACCEPT from the server, one message each. docs/wire.md specifies every byte.
// Pure: bytes in, bytes and keys out. Who repeats what and when is the flows' concern.
import { createCipheriv, createDecipheriv, randomBytes, randomInt } from 'node:crypto'
import {
  acceptKey,
  type Cipher,
  initKey,
  KeyShare,
  type OneTimeKey,
  PUBLIC_KEY_BYTES,
  SALT_BYTES,
  type Secrets,
  type TrafficKeys,
  trafficKeys,
} from './keys.ts'

const VERSION = 1
const TAG_BYTES = 16
export const CLIENT_ID_BYTES = 16
/** Lengths say nothing when they differ from flow to flow. */
const MAX_PADDING = 255

/** INIT: version, ciphers, preferred cipher, 0, client id, public key. */
const INIT_CIPHERS = 1
const INIT_PREFERRED = 2
const INIT_CLIENT = 4
const INIT_PUBLIC_KEY = INIT_CLIENT + CLIENT_ID_BYTES
const INIT_BYTES = INIT_PUBLIC_KEY + PUBLIC_KEY_BYTES
/** ACCEPT: version, cipher, 0, 0, public key. */
const ACCEPT_CIPHER = 1
const ACCEPT_PUBLIC_KEY = 4
const ACCEPT_BYTES = ACCEPT_PUBLIC_KEY + PUBLIC_KEY_BYTES

/** Bit of each cipher in a set; also its number. */
const CIPHER_BIT: Readonly<Record<Cipher, number>> = { 'aes-256-gcm': 1, 'chacha20-poly1305': 2 }
const CIPHERS = Object.keys(CIPHER_BIT) as Cipher[]

/** Random bytes, padding and keys; other than by chance for test vectors only. */
export interface Chance {
  readonly salt: Uint8Array
  readonly padding: number
  readonly share: KeyShare
}

/** Which ciphers one end takes, and which it likes best. */
export interface CipherWish {
  readonly allowed: readonly Cipher[]
  readonly preferred: Cipher
}

/** What a finished handshake has agreed. `keys` undefined: nothing is encrypted. */
export interface Agreed {
  readonly keys: TrafficKeys | undefined
}

function chance(): Chance {
  return { salt: randomBytes(SALT_BYTES), padding: randomInt(MAX_PADDING + 1), share: new KeyShare() }
}

/** The client's side of one handshake. */
export class Initiator {
  /** What is sent, and repeated as it is, until it is answered. */
  readonly message: Buffer
  readonly #secrets: Secrets
  readonly #wish: CipherWish
  readonly #chance: Chance

  constructor(secrets: Secrets, clientId: Uint8Array, wish: CipherWish, own: Chance = chance()) {
    this.#secrets = secrets
    this.#wish = wish
    this.#chance = own
    const body = Buffer.alloc(INIT_BYTES + own.padding)
    body[0] = VERSION
    body.set(clientId, INIT_CLIENT)
    if (secrets.keyed) {
      body[INIT_CIPHERS] = wish.allowed.reduce((bits, cipher) => bits | CIPHER_BIT[cipher], 0)
      body[INIT_PREFERRED] = CIPHER_BIT[wish.preferred]
      body.set(own.share.publicKey, INIT_PUBLIC_KEY)
    }
    this.message = Buffer.concat([own.salt, seal(initKey(secrets, own.salt), body)])
  }

  /** @returns undefined when the message is no answer to ours */
  finish(message: Uint8Array): Agreed | undefined {
    const { salt, share } = this.#chance
    const serverSalt = message.subarray(0, SALT_BYTES)
    const body = open(() => acceptKey(this.#secrets, salt, serverSalt), message, ACCEPT_BYTES)
    if (body === undefined) return undefined
    if (!this.#secrets.keyed) return { keys: undefined }
    const cipher = this.#wish.allowed.find((one) => CIPHER_BIT[one] === body[ACCEPT_CIPHER])
    const shared = share.agree(body.subarray(ACCEPT_PUBLIC_KEY, ACCEPT_BYTES))
    if (cipher === undefined || shared === undefined) return undefined
    return { keys: trafficKeys(this.#secrets, shared, salt, serverSalt, cipher) }
  }
}

export interface Accepted extends Agreed {
  readonly clientId: Buffer
  /** The answer; a repeated INIT gets it again. */
  readonly message: Buffer
}

/**
 * The server's side.
 *
 * @returns undefined when the message is no INIT under this key, or its ciphers are none that this end allows
 */
export function respond(secrets: Secrets, message: Uint8Array, wish: CipherWish, given?: Chance): Accepted | undefined {
  const clientSalt = message.subarray(0, SALT_BYTES)
  const init = open(() => initKey(secrets, clientSalt), message, INIT_BYTES)
  if (init === undefined) return undefined
  // Only now: a key pair costs more than all the rest.
  const own = given ?? chance()
  const clientId = Buffer.from(init.subarray(INIT_CLIENT, INIT_PUBLIC_KEY))
  const body = Buffer.alloc(ACCEPT_BYTES + own.padding)
  body[0] = VERSION
  let keys: TrafficKeys | undefined
  if (secrets.keyed) {
    const cipher = choose(init[INIT_CIPHERS], init[INIT_PREFERRED], wish)
    const shared = own.share.agree(init.subarray(INIT_PUBLIC_KEY, INIT_BYTES))
    if (cipher === undefined || shared === undefined) return undefined
    body[ACCEPT_CIPHER] = CIPHER_BIT[cipher]
    body.set(own.share.publicKey, ACCEPT_PUBLIC_KEY)
    keys = trafficKeys(secrets, shared, clientSalt, own.salt, cipher)
  }
  const answer = Buffer.concat([own.salt, seal(acceptKey(secrets, clientSalt, own.salt), body)])
  return { clientId, keys, message: answer }
}

/** AES where both ends are fast at it; where one is not, that one suffers more than the other does from ChaCha20. */
function choose(offered: number, preferred: number, wish: CipherWish): Cipher | undefined {
  const common = CIPHERS.filter((cipher) => wish.allowed.includes(cipher) && (offered & CIPHER_BIT[cipher]) !== 0)
  if (common.length < 2) return common[0]
  return preferred === CIPHER_BIT['aes-256-gcm'] && wish.preferred === 'aes-256-gcm' ? 'aes-256-gcm' : 'chacha20-poly1305'
}

function seal({ key, iv }: OneTimeKey, body: Uint8Array): Buffer {
  const cipher = createCipheriv('aes-256-gcm', key, iv)
  return Buffer.concat([cipher.update(body), cipher.final(), cipher.getAuthTag()])
}

/** The body behind the salt, if it is authentic, of our version and has `fixed` bytes at least. */
function open(keyOf: () => OneTimeKey, message: Uint8Array, fixed: number): Buffer | undefined {
  const { length } = message
  if (length < SALT_BYTES + fixed + TAG_BYTES || length > SALT_BYTES + fixed + MAX_PADDING + TAG_BYTES) return undefined
  const { key, iv } = keyOf()
  const decipher = createDecipheriv('aes-256-gcm', key, iv)
  decipher.setAuthTag(message.subarray(length - TAG_BYTES))
  try {
    const body = Buffer.concat([decipher.update(message.subarray(SALT_BYTES, length - TAG_BYTES)), decipher.final()])
    return body[0] === VERSION ? body : undefined
  } catch {
    return undefined
  }
}

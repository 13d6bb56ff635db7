// Pre-shared keys: `faketcp key` makes one, `--key-file` reads one. What is said about a key never contains it.
import { randomBytes } from 'node:crypto'
import { readFileSync, statSync, writeFileSync } from 'node:fs'
import { readNamed, UsageError } from './exit-codes.ts'
import { type Finding, ok, problem, warning } from './findings.ts'

/** Bytes of a key that is made here. */
const KEY_BYTES = 32
/** Shorter ones are refused by the tunnel. */
const MIN_BYTES = 16
/** Characters of base64 for 16 bytes, without padding. */
const MIN_ENCODED = 22

/** A new key: 32 random bytes in base64, 44 characters. */
export function makeKey(): string {
  return randomBytes(KEY_BYTES).toString('base64')
}

/**
 * Writes a new key into a file that only its owner can read.
 *
 * @throws EEXIST: a key that is in use must not be overwritten by mistake
 */
export function writeKeyFile(path: string): void {
  writeFileSync(path, `${makeKey()}\n`, { mode: 0o600, flag: 'wx' })
}

export interface KeyFile {
  /** Without white space at its ends. */
  readonly key: string
  /** Permission bits. */
  readonly mode: number
}

/** @throws UsageError for what is no text, or not there; EACCES */
export function readKeyFile(path: string): KeyFile {
  const [bytes, mode] = readNamed(path, () => [readFileSync(path), statSync(path).mode & 0o777] as const)
  try {
    return { key: new TextDecoder('utf-8', { fatal: true }).decode(bytes).trim(), mode }
  } catch {
    throw new UsageError(`${path}: a key is text, such as 'faketcp key' makes`)
  }
}

const READABLE_BY_OTHERS = 0o004

export function keyFileFinding(path: string, mode: number): Finding {
  const shown = `mode ${mode.toString(8).padStart(4, '0')}`
  if ((mode & READABLE_BY_OTHERS) === 0) return ok('key file', `${path}, ${shown}`)
  return warning('key file', `${path}, ${shown}: every user of this host can read it`, `chmod 600 ${path}`)
}

/** How hard a key is to guess. The tunnel stretches it, so each guess takes time; but whoever has recorded one handshake has all the time there is. */
export function keyStrengthFinding(key: string): Finding {
  const subject = 'key strength'
  const bytes = Buffer.byteLength(key)
  if (bytes < MIN_BYTES) return problem(subject, `${bytes} bytes: too short`, 'make one with `faketcp key`')
  const encoded = /^(?:[0-9a-f]+|[\w+/-]+={0,2})$/i.test(key) && key.length >= MIN_ENCODED
  // Of 22 random characters of base64 fewer than 11 different ones are as good as impossible; hexadecimal digits have 16 in all.
  const varied = new Set(key).size >= (/^[0-9a-f]+$/i.test(key) ? 8 : 11)
  if (encoded && varied) return ok(subject, `${bytes} characters that look random`)
  return warning(
    subject,
    `${bytes} bytes that look like a password: who records one handshake can try guesses at leisure`,
    'make one with `faketcp key`',
  )
}

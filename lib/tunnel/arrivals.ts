// Connections to a tunnel server that have not shown yet that they are a tunnel's. Whoever does not know the key is answered by nothing.
import { formatHostPort } from '../address.ts'
import { FakeTcpConn } from '../conn.ts'
import type { RefusedConnection } from '../transport.ts'
import { type Accepted, type CipherWish, respond } from './handshake.ts'
import { SALT_BYTES, type Secrets } from './keys.ts'
import { SaltMemory } from './salts.ts'
import type { Shared } from './shared.ts'
import type { TunnelFlow } from './tunnel-flow.ts'

/** So long a connection may say nothing that makes sense; then it is closed, as other servers close silent connections. */
const PATIENCE_MS = 30_000
/** Messages of one connection that are looked at. A client repeats its first one about five times. */
const MAX_ATTEMPTS = 16
/** Connections at once that have shown nothing; beyond that the oldest is closed. */
export const MAX_ARRIVALS = 1024

/** Makes the flow; undefined refuses it. */
export type OnAccepted = (conn: FakeTcpConn, accepted: Accepted, init: Buffer) => TunnelFlow

export class Arrivals {
  readonly #shared: Shared
  readonly #secrets: Secrets
  readonly #wish: CipherWish
  readonly #onAccepted: OnAccepted
  readonly #salts = new SaltMemory()
  readonly #arrivals = new Set<FakeTcpConn>()

  constructor(shared: Shared, secrets: Secrets, wish: CipherWish, onAccepted: OnAccepted) {
    this.#shared = shared
    this.#secrets = secrets
    this.#wish = wish
    this.#onAccepted = onAccepted
  }

  add(conn: FakeTcpConn): void {
    this.#arrivals.add(conn)
    if (this.#arrivals.size > MAX_ARRIVALS) for (const oldest of this.#arrivals) if (this.#turnAway(oldest)) break
    const timer = setTimeout(() => this.#turnAway(conn), PATIENCE_MS)
    let attempts = 0
    let refused: Buffer | undefined
    let flow: TunnelFlow | undefined
    const take = (message: Buffer): void => {
      if (attempts >= MAX_ATTEMPTS || refused?.equals(message)) return
      attempts++
      const accepted = this.#accept(conn, message)
      if (accepted === undefined) {
        refused = message
        return
      }
      clearTimeout(timer)
      this.#arrivals.delete(conn)
      conn.write(accepted.message)
      flow = this.#onAccepted(conn, accepted, message)
    }
    conn
      .on('error', () => {})
      .once('close', () => {
        clearTimeout(timer)
        this.#arrivals.delete(conn)
      })
    FakeTcpConn.tap(conn, (memory, offset, length, segment) => {
      if (flow !== undefined) flow.receive(memory, offset, length, segment)
      else if (length <= segment) take(Buffer.from(memory.subarray(offset, offset + length)))
    })
  }

  async close(): Promise<void> {
    await Promise.all([...this.#arrivals].map((conn) => conn.close()))
  }

  /** At once. */
  destroy(): void {
    for (const conn of this.#arrivals) conn.destroy()
  }

  #accept(conn: FakeTcpConn, message: Buffer): Accepted | undefined {
    const salt = message.subarray(0, SALT_BYTES)
    const { drops } = this.#shared
    if (this.#salts.has(salt)) {
      drops.replay++
      return undefined
    }
    const accepted = respond(this.#secrets, message, this.#wish)
    if (accepted === undefined) {
      this.#stranger(conn)
      return undefined
    }
    this.#salts.add(salt)
    return accepted
  }

  /** The listener has found out by the hello. */
  refused(refused: RefusedConnection): void {
    if (refused.reason === 'replay') this.#shared.drops.replay++
    else this.#stranger(refused)
  }

  #stranger({ remoteAddress, remotePort }: Pick<FakeTcpConn, 'remoteAddress' | 'remotePort'>): void {
    const { drops, warnings } = this.#shared
    drops.auth++
    const from = formatHostPort(remoteAddress, remotePort)
    warnings.warn(
      'wrong-key',
      () => `What ${from} sent first does not fit the key, the ciphers or the version of this server: it is not answered`,
    )
  }

  #turnAway(conn: FakeTcpConn): true {
    this.#arrivals.delete(conn)
    void conn.close()
    return true
  }
}

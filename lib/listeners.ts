// listeners: accepts connections on several addresses as one listener.
import type { ConnOptions } from './conn.ts'
import { invalidOption } from './errors.ts'
import { makeListener, openAcceptor } from './listen.ts'
import type { FakeTcpListener } from './listener.ts'
import { requireBinding } from './native/require.ts'
import { type ListenOptions, parseListen } from './options.ts'
import type { Acceptor } from './transport.ts'

/**
 * Listens on several addresses at once: all of them, or none. When one fails to open, the others are closed and its error is thrown.
 *
 * @param targets as for `listen`; options that concern the whole listener (`maxConnections`, `backlog`, `signal`) are given in `options`
 * @throws (rejects) as `listen`
 */
export async function listeners(
  targets: ReadonlyArray<string | number | ListenOptions>,
  options?: ListenOptions,
): Promise<FakeTcpListener> {
  if (!Array.isArray(targets) || targets.length === 0) throw invalidOption('addresses', 'an array of at least one address', targets)
  const parsed = targets.map((target) => parseListen(target, options))
  const binding = requireBinding()
  const acceptors: Array<{ acceptor: Acceptor; conn: ConnOptions }> = []
  try {
    for (const one of parsed) acceptors.push({ acceptor: await openAcceptor(binding, one), conn: one.conn })
  } catch (error) {
    await Promise.all(acceptors.map(({ acceptor }) => acceptor.close()))
    throw error
  }
  return makeListener(acceptors, parsed[0])
}

// listeners: accepts connections on several addresses as one listener.
import { invalidOption } from './errors.ts'
import { makeListener, openAcceptor } from './listen.ts'
import type { FakeTcpListener } from './listener.ts'
import { requireBinding } from './native/require.ts'
import { openAll } from './opening.ts'
import { type ListenOptions, parseListen } from './options.ts'

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
  return makeListener(await openAll(parsed, (one) => openAcceptor(binding, one)), parsed[0])
}

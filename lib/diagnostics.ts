// What can be observed from outside: diagnostics channels, published once in each place. NODE_DEBUG=faketcp is one subscriber of them.
import { channel, subscribe } from 'node:diagnostics_channel'
import { debuglog } from 'node:util'

/** Channels of `node:diagnostics_channel`; each message is an object of the fields named here. */
export const channels = {
  /** `{ conn }`: a connection was made by dial or accepted by a listener. */
  connOpen: channel('faketcp:conn:open'),
  /** `{ conn, error }`: it has closed. */
  connClose: channel('faketcp:conn:close'),
  /** `{ conn, drop }`: one of its messages was lost in this process. */
  connDrop: channel('faketcp:conn:drop'),
  /** `{ listener }`: a listener accepts connections. */
  listening: channel('faketcp:listener:open'),
  /** `{ listener }`: it has stopped. */
  listenerClose: channel('faketcp:listener:close'),
  /** `{ listener, refused }`: it refused a connection. */
  refused: channel('faketcp:listener:drop'),
}

const debug = debuglog('faketcp', (log) => {
  debugLine = log
})
let debugLine: (format: string, ...values: unknown[]) => void = debug

if (debug.enabled) {
  for (const one of Object.values(channels)) {
    subscribe(one.name, (message, name) => debugLine('%s %s', name, describe(message)))
  }
}

function describe(message: unknown): string {
  const { conn, error, drop, listener, refused } = message as Record<string, Record<string, unknown> | undefined>
  const parts: string[] = []
  if (conn !== undefined) parts.push(`${conn.localAddress}:${conn.localPort} - ${conn.remoteAddress}:${conn.remotePort}`)
  if (listener !== undefined && typeof listener.addresses === 'function') parts.push(JSON.stringify(listener.addresses()))
  if (drop !== undefined) parts.push(JSON.stringify(drop))
  if (refused !== undefined) parts.push(JSON.stringify(refused))
  if (error !== undefined && error !== null) parts.push(String(error.message))
  return parts.join(' ')
}

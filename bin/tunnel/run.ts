// `faketcp tunnel`: opens the tunnel, tells what happens to it on stderr, and closes it when a signal asks for that.
import { once } from 'node:events'
import type { Server } from 'node:http'
import { formatHostPort, parseHostPort } from '../../lib/address.ts'
import {
  type FlowChange,
  type Tunnel,
  type TunnelClientOptions,
  type TunnelWarning,
  tunnelClient,
  tunnelServer,
} from '../../lib/tunnel/index.ts'
import type { Role } from '../settings/schema.ts'
import type { Settings } from '../settings/settings.ts'
import type { StatusDisplay } from '../status/show.ts'
import { makePlan } from './plan.ts'
import { StopSignal } from './stop.ts'

/** @throws (rejects) what `tunnelServer` and `tunnelClient` do, and where metrics cannot be served */
export async function runTunnel(settings: Settings, version: string): Promise<void> {
  const { options, title, keyFindings } = makePlan(settings)
  const stop = new StopSignal()
  let display: StatusDisplay | undefined
  let server: Server | undefined
  let tunnel: Tunnel | undefined
  const log = (line: string): void => {
    if (!display?.log(line)) console.error(line)
  }
  for (const { verdict, found, advice } of keyFindings) if (verdict !== 'ok') log(`${verdict}: key: ${found}; ${advice}`)
  try {
    tunnel = await open(settings.role, options, stop.signal)
    tunnel.on('warning', (warning) => log(warningLine(warning)))
    if (settings.verbose) tunnel.on('flow', (change) => log(flowLine(change)))
    if (settings.metrics !== undefined) {
      const { serveMetrics, tunnelRegistry } = await import('../metrics.ts')
      const opened = tunnel
      server = await serveMetrics(
        tunnelRegistry(() => opened.stats, version),
        parseHostPort(settings.metrics),
      )
    }
    const { address, port } = tunnel.address()
    log(`${title}: listening on ${formatHostPort(address, port)}${options.key === undefined ? ', not encrypted' : ', encrypted'}`)
    if (settings.status) display = (await import('../status/show.ts')).showStatus(tunnel, title)
    if (!stop.signal.aborted) await once(stop.signal, 'abort')
    display?.stop()
    display = undefined
    log('ending')
  } catch (error) {
    // Asked to end before it was open.
    if (!stop.signal.aborted) throw error
  } finally {
    display?.stop()
    await tunnel?.close(settings.graceMs === undefined ? {} : { graceMs: settings.graceMs })
    server?.close()
    server?.closeAllConnections()
    stop[Symbol.dispose]()
  }
}

/** A signal cancels the opening only: afterwards the tunnel is closed with a grace period of its own. */
async function open(role: Role, options: TunnelClientOptions, stop: AbortSignal): Promise<Tunnel> {
  const opening = new AbortController()
  const cancel = () => opening.abort()
  stop.addEventListener('abort', cancel)
  try {
    return await (role === 'server' ? tunnelServer : tunnelClient)({ ...options, signal: opening.signal })
  } finally {
    stop.removeEventListener('abort', cancel)
  }
}

function warningLine({ code, message, count }: TunnelWarning): string {
  return `warning: ${code}: ${message}${count > 1 ? ` (${count} times)` : ''}`
}

function flowLine({ state, localAddress, localPort, remoteAddress, remotePort, reason }: FlowChange): string {
  const ends = `${formatHostPort(localAddress, localPort)} - ${formatHostPort(remoteAddress, remotePort)}`
  return `flow ${state}: ${ends}${reason === undefined ? '' : `: ${reason}`}`
}

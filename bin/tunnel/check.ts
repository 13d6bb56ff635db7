// `faketcp tunnel --check`: says what would be done with these settings, and looks whether it could be: names, addresses, key, rights. It opens no
// tunnel and sends nothing but the questions of name resolution.
import { createSocket } from 'node:dgram'
import { lookup } from 'node:dns/promises'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { familyOf, parseHostPort } from '../../lib/address.ts'
import { capabilityFindings, readCapabilities } from '../doctor/capabilities.ts'
import { firewallFindings } from '../doctor/firewall.ts'
import { type Finding, ok, problem, warning } from '../findings.ts'
import type { Settings } from '../settings/settings.ts'
import { makePlan } from './plan.ts'

export interface Check {
  /** What would be done. */
  readonly explanation: readonly string[]
  readonly findings: readonly Finding[]
}

export async function checkTunnel(settings: Settings): Promise<Check> {
  const { role, listen, to, metrics, guard } = settings
  const { keyFindings } = makePlan(settings)
  const capabilities = readCapabilities()
  const [raw] = capabilityFindings(capabilities)
  const findings = [
    await listenFinding('listen', listen, role === 'server' ? 'tcp' : 'udp'),
    await nameFinding(to),
    ...keyFindings,
    raw,
    ...(guard === 'ttl' ? await ttlFindings(capabilities.netAdmin) : []),
    ...(metrics === undefined ? [] : [await listenFinding('metrics', metrics, 'tcp')]),
  ]
  return { explanation: explain(settings), findings }
}

export function explain({ role, listen, to, keyFile, key, flows = 0, guard, metrics }: Settings): string[] {
  const keyed = keyFile !== undefined || key !== undefined
  const flow =
    flows === 0
      ? 'one flow for each UDP peer'
      : flows === 1
        ? 'one flow that all UDP peers share'
        : `${flows} flows that the UDP peers share`
  return [
    role === 'server'
      ? `Accept flows of fake TCP at ${listen}, and pass the datagrams of each conversation on to ${to} by UDP, each from a port of its own.`
      : `Take UDP datagrams at ${listen}, and carry them to the tunnel server at ${to}, with ${flow}.`,
    keyed
      ? 'Encrypt and authenticate every message with the pre-shared key, and answer nobody who does not know it.'
      : 'Encrypt nothing: whoever sees the packets can read and forge them, unless what is inside protects itself, as WireGuard does.',
    ...(guard === 'ttl' ? ["Make a firewall rule that drops what the kernel's own sockets send."] : []),
    ...(metrics === undefined ? [] : [`Serve metrics at http://${metrics}/metrics.`]),
  ]
}

/** By taking the address for a moment. A tunnel that runs with these settings already has it, which is no mistake in them. */
async function listenFinding(subject: string, address: string, protocol: 'tcp' | 'udp'): Promise<Finding> {
  const { host, port } = parseHostPort(address)
  try {
    const family = familyOf(host) || (host === '' ? 0 : (await lookup(host)).family)
    await (protocol === 'tcp' ? takeTcp(host, port) : takeUdp(host, port, family))
    return ok(subject, `${address} (${protocol}) can be taken`)
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error)
    const found = `${address} (${protocol}) cannot be taken: ${code}`
    if (code === 'EADDRINUSE')
      return warning(subject, found, 'nothing, if a tunnel with these settings is running; else choose another port, or end what has it')
    if (code === 'EADDRNOTAVAIL') return problem(subject, found, "name an address of this host, such as those that 'ip address' shows")
    if (code === 'EACCES')
      return problem(subject, found, 'a port below net.ipv4.ip_unprivileged_port_start needs CAP_NET_BIND_SERVICE: choose a higher one')
    return problem(subject, found, 'correct the address')
  }
}

async function takeTcp(host: string, port: number): Promise<void> {
  const server = createServer().listen({ port, exclusive: true, ...(host === '' ? {} : { host }) })
  await once(server, 'listening')
  server.close()
}

async function takeUdp(host: string, port: number, family: number): Promise<void> {
  const socket = createSocket(family === 4 ? 'udp4' : 'udp6')
  try {
    socket.bind({ port, exclusive: true, ...(host === '' ? {} : { address: host }) })
    await once(socket, 'listening')
  } finally {
    socket.close()
  }
}

async function nameFinding(to: string): Promise<Finding> {
  const { host } = parseHostPort(to)
  if (host === '' || familyOf(host) !== 0) return ok('to', to)
  try {
    const addresses = await lookup(host, { all: true })
    return ok('to', `${host} is ${addresses.map(({ address }) => address).join(', ')}`)
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    return problem('to', why, 'correct the name, or look after name resolution on this host')
  }
}

async function ttlFindings(netAdmin: boolean): Promise<Finding[]> {
  const right = netAdmin
    ? ok('CAP_NET_ADMIN', 'effective, as guard ttl needs')
    : problem('CAP_NET_ADMIN', 'not effective, but guard ttl needs it', 'give it too, or leave guard at filter')
  const tools = await firewallFindings()
  // Which of them is missing matters only where none is left.
  return [
    right,
    ...tools.filter(({ verdict }) => verdict !== 'ok').map(({ subject, found, advice = '' }) => problem(subject, found, advice)),
  ]
}

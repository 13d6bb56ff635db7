// The wires: two hosts on one veth pair, with the offloads that decide how many packets a train of messages is, or with a NAT router in between.
import { type Host, type Network, twoHosts } from '../test/support/hosts.ts'
import { createRouted } from '../test/support/router.ts'

/**
 * - `default`: as the kernel makes veth. A GSO packet crosses it whole.
 * - `tso-off`: the sender's device cannot segment, so real packets of the MTU cross, and the receiver's does not put them together again.
 * - `gro`: the same, but the receiver's GRO merges them.
 * - `nat`: as `default`, with a router in between that masquerades and drops what connection tracking calls invalid.
 */
export const WIRES = ['default', 'tso-off', 'gro', 'nat'] as const
export type Wire = (typeof WIRES)[number]

export interface OffloadFacts {
  readonly senderTso: string
  readonly senderGso: string
  readonly receiverGro: string
}

/** Load runs from `a` to `b`. */
export interface WireHosts extends AsyncDisposable {
  readonly network: Network
  readonly a: Host
  readonly b: Host
  readonly offloads: OffloadFacts
}

const SETTINGS: Record<Exclude<Wire, 'nat'>, { readonly sender: readonly string[]; readonly receiver: readonly string[] }> = {
  default: { sender: [], receiver: [] },
  'tso-off': { sender: ['tso', 'off'], receiver: ['gro', 'off'] },
  gro: { sender: ['tso', 'off'], receiver: ['gro', 'on'] },
}

export async function openWire(wire: Wire): Promise<WireHosts> {
  const hosts = await (wire === 'nat' ? routedHosts() : twoHosts())
  try {
    const { a, b } = hosts
    const { sender, receiver } = wire === 'nat' ? SETTINGS.default : SETTINGS[wire]
    if (sender.length > 0) await a.output('ethtool', ['-K', a.iface, ...sender])
    if (receiver.length > 0) await b.output('ethtool', ['-K', b.iface, ...receiver])
    const offloads = {
      senderTso: await feature(a, 'tcp-segmentation-offload'),
      senderGso: await feature(a, 'generic-segmentation-offload'),
      receiverGro: await feature(b, 'generic-receive-offload'),
    }
    return { ...hosts, offloads, [Symbol.asyncDispose]: () => hosts.network.remove() }
  } catch (error) {
    await hosts.network.remove()
    throw error
  }
}

async function routedHosts(): Promise<{ network: Network; a: Host; b: Host }> {
  const { network, client, server } = await createRouted()
  return { network, a: client, b: server }
}

/** 'on' or 'off', as the device has it now. */
async function feature(host: Host, name: string): Promise<string> {
  const text = await host.output('ethtool', ['-k', host.iface])
  return new RegExp(`^${name}: (\\w+)`, 'm').exec(text)?.[1] ?? 'unknown'
}

// What most files need that test one connection: two hosts for all their tests, and on each a peer of its own for every test.
import { afterAll, afterEach, beforeAll, beforeEach } from 'vitest'
import type { AgentOptions } from '../support/agent.ts'
import { type LinkOptions, twoHosts } from '../support/hosts.ts'
import { Peer, type PeerDialOptions, type PeerListenOptions } from './peer.ts'

export interface TwoPeers {
  readonly hosts: Awaited<ReturnType<typeof twoHosts>>
  /** On host b. */
  readonly server: Peer
  /** On host a. */
  readonly client: Peer
}

/** What the two ends of a connection want beside address and port. */
export interface EndOptions {
  readonly server?: Partial<PeerListenOptions>
  readonly client?: Partial<PeerDialOptions>
}

/** Registers the hooks of a file or a `describe`. `take` gets hosts and peers before each test; the peers end after it, the hosts after the last. */
export function twoPeers(take: (made: TwoPeers) => void, { link, agents }: { link?: LinkOptions; agents?: AgentOptions } = {}): void {
  let hosts: TwoPeers['hosts']
  let server: Peer
  let client: Peer
  beforeAll(async () => {
    hosts = await twoHosts(link)
  })
  afterAll(() => hosts.network.remove())
  beforeEach(async () => {
    ;[server, client] = await Promise.all([Peer.on(hosts.b, agents), Peer.on(hosts.a, agents)])
    take({ hosts, server, client })
  })
  afterEach(async () => {
    await client.agent.close()
    await server.agent.close()
  })
}

/** Makes one connection over IPv4. @returns its number at either end */
export async function connect(
  { hosts, server, client }: TwoPeers,
  port: number,
  ends: EndOptions = {},
): Promise<{ client: number; server: number }> {
  const host = hosts.b.address4
  await server.listen({ host, port, ...ends.server })
  const dialled = await client.dial({ host, port, ...ends.client })
  const accepted = await server.next('connection')
  return { client: dialled.id, server: accepted.id }
}

// Bulk one way over the packet link, where trains are as long as they get, and over UDP: each message arrives once, whole, and is what was sent.
import { expect, it } from 'vitest'
import { type Offloads, twoHosts } from '../support/hosts.ts'
import { bulk } from './bulk-job.ts'
import { Peer } from './peer.ts'

const settings: { is: string; offloads: Offloads; transport?: 'udp' }[] = [
  { is: 'trains cross whole', offloads: {} },
  { is: 'GRO merges segments', offloads: { tso: false } },
  { is: 'no GRO', offloads: { tso: false, gro: false } },
  { is: 'UDP, trains cross whole', offloads: {}, transport: 'udp' },
  { is: 'UDP, each datagram crosses alone', offloads: false, transport: 'udp' },
]
const jobs = [
  { size: 1400, messages: 50_000, by: 'message' },
  { size: 64, messages: 200_000, by: 'message' },
  { size: 1400, messages: 50_000, by: 'train' },
  { size: 64, messages: 200_000, by: 'train' },
] as const
const families = [4, 6] as const

it.each(settings.flatMap((one) => jobs.map((job, i) => ({ ...one, ...job, family: families[i % 2] }))))(
  '$messages messages of $size bytes, by $by over IPv$family: $is',
  async ({ offloads, transport, family, is, ...job }) => {
    await using hosts = await twoHosts({ offloads })
    const [server, client] = [await Peer.on(hosts.b, { transport }), await Peer.on(hosts.a, { transport })]
    const host = family === 4 ? hosts.b.address4 : hosts.b.address6
    await server.listen({ host, port: 9191 })
    const { id } = await client.dial({ host, port: 9191 })
    await server.next('connection')

    expect(await bulk({ from: client, id }, { to: server, id: 0 }, job)).toEqual({ intact: job.messages, corrupt: 0, doubled: 0, lost: 0 })
    expect(await client.stats(id)).toMatchObject({ link: transport ?? 'packet', messagesOut: job.messages, droppedOut: 0 })
    expect(await server.stats(0)).toMatchObject({
      messagesIn: job.messages,
      bytesIn: job.messages * job.size,
      droppedIn: 0,
      kernelDrops: 0,
    })
  },
  60_000,
)

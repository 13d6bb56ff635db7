// A router in between that masquerades and drops what its connection tracking takes for invalid: trains cross it like any other TCP.
import { expect, it } from 'vitest'
import { createNetwork, type Offloads } from '../support/hosts.ts'
import { bulk } from './bulk-job.ts'
import { echo } from './echo-job.ts'
import { Peer } from './peer.ts'

const PORT = 9191

it.each([
  { family: 4, is: 'trains cross whole', offloads: {} },
  { family: 6, is: 'trains cross whole', offloads: {} },
  { family: 4, is: 'every segment crosses alone', offloads: { tso: false, gro: false } },
] as { family: 4 | 6; is: string; offloads: Offloads }[])(
  'IPv$family, $is: all arrives, nothing is invalid',
  async ({ family, offloads }) => {
    await using network = await createNetwork()
    const [a, r, b] = [await network.addHost('a'), await network.addHost('r'), await network.addHost('b')]
    const [, inside] = await network.link(a, r, { offloads })
    const [outside, far] = await network.link(r, b, { offloads })
    const of = (one: { address4: string; address6: string }) => (family === 4 ? one.address4 : one.address6)
    await r.output('sysctl', ['-q', '-w', family === 4 ? 'net.ipv4.ip_forward=1' : 'net.ipv6.conf.all.forwarding=1'])
    await r.output(
      'nft',
      ['-f', '-'],
      `table inet nat {
       counter invalid {}
       chain forward { type filter hook forward priority 0; ct state invalid counter name invalid drop; }
       chain post { type nat hook postrouting priority 100; oifname ${outside.name} masquerade; }
     }`,
    )
    await a.output('ip', [`-${family}`, 'route', 'add', 'default', 'via', of(inside)])
    const [server, client] = [await Peer.on(b), await Peer.on(a)]
    await server.listen({ host: of(far), port: PORT, echo: true })
    const echoed = await client.dial({ host: of(far), port: PORT })
    expect(await server.next('connection')).toMatchObject({ remoteAddress: of(outside) })
    const all = { intact: 20_000, foreign: 0, lost: 0 }
    expect(await echo(client, { id: echoed.id, messages: 20_000, seed: 10 })).toMatchObject(all)
    expect(await echo(client, { id: echoed.id, messages: 20_000, seed: 11, size: 1300 })).toMatchObject(all)

    const oneWay = await client.dial({ host: of(far), port: PORT })
    const { id } = await server.next('connection')
    const job = { messages: 50_000, size: 1400, by: 'train' } as const
    const result = await bulk({ from: client, id: oneWay.id }, { to: server, id }, job)
    expect(result).toEqual({ intact: job.messages, corrupt: 0, doubled: 0, lost: 0 })
    for (const one of [echoed, oneWay]) expect(await client.stats(one.id)).toMatchObject({ link: 'packet', dialect: 'native' })
    for (const one of [echoed, oneWay]) await client.close(one.id)
    expect(await r.output('nft', ['list', 'counters'])).toMatch(/packets 0 bytes 0/)
  },
)

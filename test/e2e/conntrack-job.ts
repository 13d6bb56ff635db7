// Flows opened, used and closed by the hundred on two hosts that track connections, and what their tables hold before and after.
import { expect } from 'vitest'
import type { AgentContext } from '../support/agent.ts'
import { type Host, twoHosts } from '../support/hosts.ts'
import { Peer } from './peer.ts'

const PORT = 9191
const BATCH = 100

/** Loads connection tracking in the host, and counts and drops what it takes for invalid. */
export async function track(host: Host): Promise<void> {
  await host.output(
    'nft',
    ['-f', '-'],
    `table inet track {
       counter invalid {}
       chain in { type filter hook input priority 0; ct state invalid counter name invalid drop; ct state established accept; }
       chain out { type filter hook output priority 0; ct state established accept; }
     }`,
  )
}

/** Entries of the host's connection tracking. Listing them drops those that have expired and are only not collected yet (ctnetlink_dump_table). */
async function tracked(host: Host): Promise<number> {
  await host.output('conntrack', ['-L'])
  return Number(await host.output('conntrack', ['-C']))
}

/** Both hosts' tables return to their start; asserts that each flow was by packet and delivered. */
export async function expectNoEntriesLeft(flows: number): Promise<void> {
  await using hosts = await twoHosts()
  for (const host of [hosts.a, hosts.b]) {
    await track(host)
    // A closed entry is kept for so long; 10 s otherwise.
    await host.output('sysctl', ['-q', '-w', 'net.netfilter.nf_conntrack_tcp_timeout_close=1'])
  }
  const before = [await tracked(hosts.a), await tracked(hosts.b)]
  const [server, client] = [await Peer.on(hosts.b), await Peer.on(hosts.a)]
  await server.agent.run(listenAndEcho, { host: hosts.b.address4, port: PORT })
  let highest = 0
  for (let done = 0; done < flows; done += BATCH) {
    const result = await client.agent.run(openAndClose, { host: hosts.b.address4, port: PORT, count: Math.min(BATCH, flows - done) })
    expect(result).toEqual({ echoed: Math.min(BATCH, flows - done), byPacket: Math.min(BATCH, flows - done) })
    highest = Math.max(highest, await tracked(hosts.a))
  }
  // It is tracked: else the rest would prove nothing.
  expect(highest).toBeGreaterThanOrEqual(BATCH)
  const counts = () => Promise.all([tracked(hosts.a), tracked(hosts.b)])
  await expect.poll(counts, { timeout: 20_000, interval: 250 }).toEqual(before)
}

async function listenAndEcho(ctx: AgentContext, options: { host: string; port: number }): Promise<void> {
  const listener = await ctx.faketcp.listen({ ...options, backlog: 512 })
  listener.on('connection', (conn) => conn.on('data', (message) => conn.write(message)).on('error', () => {}))
}

async function openAndClose(ctx: AgentContext, { count, ...to }: { host: string; port: number; count: number }) {
  const { once } = await ctx.import<typeof import('node:events')>('node:events')
  const result = { echoed: 0, byPacket: 0 }
  const one = async (number: number) => {
    const conn = await ctx.faketcp.dial({ ...to, link: 'packet' })
    conn.write(`flow ${number}`)
    const [message] = (await once(conn, 'data')) as [Buffer]
    if (message.toString() === `flow ${number}`) result.echoed++
    if (conn.stats.link === 'packet') result.byPacket++
    await conn.close()
  }
  await Promise.all(Array.from({ length: count }, (_, i) => one(i)))
  return result
}

// The main job for as long as it takes to wrap the sequence numbers: ten million messages through one connection, sent in trains, in each
// setting of the offloads that decides in how many pieces a train crosses the link.
import { expect, it } from 'vitest'
import { type Offloads, twoHosts } from '../support/hosts.ts'
import { bulk } from './bulk-job.ts'
import { echo } from './echo-job.ts'
import { Peer } from './peer.ts'

const MESSAGES = 10_000_000
const LONGEST = 900
const EQUAL = 500

/** `b` is the server; both send, so both have the settings. */
const settings: { is: string; offloads: Offloads }[] = [
  { is: 'trains cross whole', offloads: {} },
  { is: 'every segment crosses alone, GRO merges', offloads: { tso: false, gso: true, gro: true } },
  { is: 'every segment crosses alone and stays alone', offloads: { tso: false, gso: true, gro: false } },
]

it.each(settings)('echoes ten million messages of random sizes sent by packet: $is', async ({ offloads }) => {
  await using hosts = await twoHosts({ offloads })
  const { client, id } = await echoServer(hosts, { capture: 'packet', link: 'packet' })

  // On average 450 bytes: 4.5 GB each way, so both ends' sequence numbers wrap.
  const result = await echo(client, { id, messages: MESSAGES, seed: 2, maxSize: LONGEST })

  expect(result).toMatchObject({ intact: MESSAGES, foreign: 0, lost: 0, longest: LONGEST })
  expect(result.bytes).toBeGreaterThan(2 ** 32)
  expect(await client.stats(id)).toMatchObject({ link: 'packet', messagesIn: MESSAGES, messagesOut: MESSAGES })
  await client.close(id)
})

it.each(settings)('echoes ten million messages of equal size sent by packet: $is', async ({ offloads }) => {
  await using hosts = await twoHosts({ offloads })
  const { client, id } = await echoServer(hosts, { capture: 'packet', link: 'packet' })

  const result = await echo(client, { id, messages: MESSAGES, seed: 2, size: EQUAL })

  expect(result).toEqual({ intact: MESSAGES, foreign: 0, lost: 0, bytes: MESSAGES * EQUAL, shortest: EQUAL, longest: EQUAL })
  expect(await client.stats(id)).toMatchObject({ link: 'packet', messagesIn: MESSAGES, messagesOut: MESSAGES })
  await client.close(id)
})

it.each(settings)('ten million messages one way, in runs, arrive once each: $is', async ({ offloads }) => {
  await using hosts = await twoHosts({ offloads })
  const { server, client, id } = await bulkServer(hosts)
  const result = await bulk({ from: client, id }, { to: server, id: 0 }, { messages: MESSAGES, size: 1000, by: 'train' })
  expect(result).toEqual({ intact: MESSAGES, corrupt: 0, doubled: 0, lost: 0 })
})

it('echoes ten million messages captured and sent by raw socket', async () => {
  await using hosts = await twoHosts()
  const { client, id } = await echoServer(hosts, { capture: 'raw', link: 'raw' })
  const result = await echo(client, { id, messages: MESSAGES, seed: 2, maxSize: LONGEST })
  expect(result).toMatchObject({ intact: MESSAGES, foreign: 0, lost: 0, longest: LONGEST })
  await client.close(id)
})

type Hosts = Awaited<ReturnType<typeof twoHosts>>

async function echoServer(hosts: Hosts, links: { capture: 'packet' | 'raw'; link: 'packet' | 'raw' }) {
  const [server, client] = [await Peer.on(hosts.b), await Peer.on(hosts.a)]
  await server.listen({ host: hosts.b.address4, port: 9191, ...links, echo: true })
  const { id } = await client.dial({ host: hosts.b.address4, port: 9191, ...links })
  return { client, id }
}

async function bulkServer(hosts: Hosts) {
  const [server, client] = [await Peer.on(hosts.b), await Peer.on(hosts.a)]
  await server.listen({ host: hosts.b.address4, port: 9191 })
  const { id } = await client.dial({ host: hosts.b.address4, port: 9191, link: 'packet' })
  await server.next('connection')
  return { server, client, id }
}

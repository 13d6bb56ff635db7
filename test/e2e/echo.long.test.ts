// The main job for as long as it takes to wrap the sequence numbers: ten million messages through one connection.
import { expect, it } from 'vitest'
import { twoHosts } from '../support/hosts.ts'
import { echo } from './echo-job.ts'
import { Peer } from './peer.ts'

const MESSAGES = 10_000_000

it.each(['packet', 'raw'] as const)('echoes ten million messages through one connection, captured by %s', async (capture) => {
  await using hosts = await twoHosts()
  const [server, client] = [await Peer.on(hosts.b), await Peer.on(hosts.a)]
  await server.listen({ host: hosts.b.address4, port: 9191, capture, echo: true })
  const { id, maxMessageSize } = await client.dial({ host: hosts.b.address4, port: 9191, capture })

  // On average 724 bytes: 7 GB each way, so both ends' sequence numbers wrap.
  const result = await echo(client, { id, messages: MESSAGES, seed: 2 })

  expect(result).toMatchObject({ intact: MESSAGES, foreign: 0, lost: 0, longest: maxMessageSize })
  expect(result.bytes).toBeGreaterThan(2 ** 32)
  await client.close(id)
})

// The main job for as long as it takes to wrap the sequence numbers: ten million messages through one connection.
import { expect, it } from 'vitest'
import { twoHosts } from '../support/hosts.ts'
import { echo } from './echo-job.ts'
import { Peer } from './peer.ts'

const MESSAGES = 10_000_000
const LONGEST = 900

it.each(['packet', 'raw'] as const)('echoes ten million messages through one connection, captured by %s', async (capture) => {
  await using hosts = await twoHosts()
  const [server, client] = [await Peer.on(hosts.b), await Peer.on(hosts.a)]
  await server.listen({ host: hosts.b.address4, port: 9191, capture, echo: true })
  const { id } = await client.dial({ host: hosts.b.address4, port: 9191, capture })

  // On average 450 bytes: 4.5 GB each way, so both ends' sequence numbers wrap.
  const result = await echo(client, { id, messages: MESSAGES, seed: 2, maxSize: LONGEST })

  expect(result).toMatchObject({ intact: MESSAGES, foreign: 0, lost: 0, longest: LONGEST })
  expect(result.bytes).toBeGreaterThan(2 ** 32)
  await client.close(id)
})

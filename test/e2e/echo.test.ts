// The main job: what is sent arrives, each message whole and by itself, over both families and both ways to capture.
import { expect, it } from 'vitest'
import { twoHosts } from '../support/hosts.ts'
import { echo } from './echo-job.ts'
import { Peer } from './peer.ts'

const MESSAGES = 100_000

it.each([
  { family: 4, capture: 'packet' },
  { family: 6, capture: 'packet' },
  { family: 4, capture: 'raw' },
  { family: 6, capture: 'raw' },
] as const)(
  'echoes 100 000 messages of 1 to maxMessageSize bytes over IPv$family, captured by $capture',
  async ({ family, capture }) => {
    await using hosts = await twoHosts()
    const [server, client] = [await Peer.on(hosts.b), await Peer.on(hosts.a)]
    const host = family === 4 ? hosts.b.address4 : hosts.b.address6
    await server.listen({ host, port: 9191, capture, echo: true })
    const { id, maxMessageSize } = await client.dial({ host, port: 9191, capture })
    expect(maxMessageSize).toBe(family === 4 ? 1448 : 1428)

    const result = await echo(client, { id, messages: MESSAGES, seed: 1 })

    expect(result).toEqual({ intact: MESSAGES, foreign: 0, lost: 0, bytes: expect.any(Number), shortest: 1, longest: maxMessageSize })
    const { bytes } = result
    expect(await client.stats(id)).toMatchObject({
      messagesIn: MESSAGES,
      messagesOut: MESSAGES,
      bytesIn: bytes,
      bytesOut: bytes,
      droppedIn: 0,
      droppedOut: 0,
      dialect: 'native',
      capture,
    })
    await client.close(id)
    expect(await server.next('closed')).toEqual({ id: 0, code: undefined })
  },
  60_000,
)

// The main job: what is sent arrives, each message whole and by itself, over both families, both ways to capture and both ways to send.
import { expect, it } from 'vitest'
import { twoHosts } from '../support/hosts.ts'
import { echo } from './echo-job.ts'
import { Peer } from './peer.ts'

const MESSAGES = 100_000
const EQUAL = 700

const links = [
  { link: 'packet', capture: 'packet' },
  { link: 'raw', capture: 'packet' },
  { link: 'raw', capture: 'raw' },
] as const
const cases = ([4, 6] as const).flatMap((family) => links.map((one) => ({ ...one, family })))

it.each(cases)(
  'echoes 100 000 messages of 1 to maxMessageSize bytes over IPv$family, captured by $capture, sent by $link',
  async ({ family, capture, link }) => {
    await using hosts = await twoHosts()
    const { server, client, id, maxMessageSize } = await connected(hosts, { family, capture, link })
    expect(maxMessageSize).toBe(family === 4 ? 1448 : 1428)

    const result = await echo(client, { id, messages: MESSAGES, seed: 1 })

    expect(result).toEqual({ intact: MESSAGES, foreign: 0, lost: 0, bytes: expect.any(Number), shortest: 1, longest: maxMessageSize })
    await expectCounted({ server, client, id }, { bytes: result.bytes, capture, link })
    await client.close(id)
    expect(await server.next('closed')).toEqual({ id: 0, code: undefined })
  },
  60_000,
)

it.each(cases)(
  'echoes 100 000 messages of equal size over IPv$family, captured by $capture, sent by $link',
  async ({ family, capture, link }) => {
    await using hosts = await twoHosts()
    const { server, client, id } = await connected(hosts, { family, capture, link })

    const result = await echo(client, { id, messages: MESSAGES, seed: 1, size: EQUAL })

    expect(result).toEqual({ intact: MESSAGES, foreign: 0, lost: 0, bytes: MESSAGES * EQUAL, shortest: EQUAL, longest: EQUAL })
    await expectCounted({ server, client, id }, { bytes: result.bytes, capture, link })
    await client.close(id)
    expect(await server.next('closed')).toEqual({ id: 0, code: undefined })
  },
  60_000,
)

interface Links {
  readonly capture: 'packet' | 'raw'
  readonly link: 'packet' | 'raw'
}

async function connected(hosts: Awaited<ReturnType<typeof twoHosts>>, { family, ...links }: Links & { family: 4 | 6 }) {
  const [server, client] = [await Peer.on(hosts.b), await Peer.on(hosts.a)]
  const host = family === 4 ? hosts.b.address4 : hosts.b.address6
  await server.listen({ host, port: 9191, ...links, echo: true })
  return { server, client, ...(await client.dial({ host, port: 9191, ...links })) }
}

/** By both ends' own account nothing was lost, doubled or foreign, and the link was the one that was asked for. */
async function expectCounted({ server, client, id }: { server: Peer; client: Peer; id: number }, wanted: Links & { bytes: number }) {
  const { bytes, ...links } = wanted
  const counted = { messagesIn: MESSAGES, messagesOut: MESSAGES, bytesIn: bytes, bytesOut: bytes, droppedIn: 0, droppedOut: 0 }
  expect(await client.stats(id)).toMatchObject({ ...counted, ...links, dialect: 'native' })
  expect(await server.stats(0)).toMatchObject({ ...counted, ...links, dialect: 'native' })
}

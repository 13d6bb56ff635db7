// A burst that fills the packet link's outbox more than once while the kernel refuses it: the flow finds out in the middle that it has no hop.
import { afterEach, expect, it } from 'vitest'
import { createNetwork, type Network } from '../support/hosts.ts'
import { Peer } from './peer.ts'

const PORT = 9191
/** Of alternating sizes, so that they make 300 trains; the outbox holds 256. */
const MESSAGES = 600

let network: Network | undefined
afterEach(() => network?.remove())

it('tells each message of a long burst on a link that has just gone as lost, and throws nothing', async () => {
  network = await createNetwork()
  const [a, b] = [await network.addHost('a'), await network.addHost('b')]
  await network.link(a, b)
  const [server, client] = [await Peer.on(b), await Peer.on(a)]
  await server.listen({ host: b.address4, port: PORT })
  const { id } = await client.dial({ host: b.address4, port: PORT })
  await client.write(id, 'by packet')
  await server.next('message')
  expect(await client.stats(id)).toMatchObject({ link: 'packet' })
  // The notification of the change is read only after the tick that makes it.
  await client.agent.run(
    async (ctx, { id, count }) => {
      const { execFileSync } = await ctx.import<typeof import('node:child_process')>('node:child_process')
      execFileSync('ip', ['link', 'set', 'eth0', 'down'])
      for (let i = 0; i < count; i++) ctx.state.conns[id].write(Buffer.alloc(i % 2 === 0 ? 100 : 200))
    },
    { id, count: MESSAGES },
  )
  for (let i = 0; i < MESSAGES; i++) expect(await client.next('drop')).toMatchObject({ id, reason: 'send-refused' })
  expect(await client.stats(id)).toMatchObject({ link: 'raw', droppedOut: MESSAGES })
  // The agent keeps what was thrown and not caught; the network's removal would report it.
  expect(client.agent.errors).toEqual([])
})

// The walk-through of docs/tunnel.md for KCP, its commands as they stand there: a TCP service is reached through kcptun in plain UDP mode and our tunnel.
import { expect, it } from 'vitest'
import { createRouted } from '../support/router.ts'
import { blocks } from './guide.ts'
import { Machine } from './machine.ts'
import { serveTransfers, transfer } from './transfer.ts'

const READY = /listening|key derivation done/
const BYTES = 1_000_000

it('a TCP service is reached through kcptun as the walk-through says', { timeout: 60_000 }, async () => {
  await using routed = await createRouted()
  const names = { 'vpn.example.net': routed.server.address4 }
  const machines = { server: await Machine.on(routed.server), client: await Machine.on(routed.client, names) }
  const key = await machines.server.run('faketcp key')
  for (const machine of Object.values(machines)) await machine.write('/etc/faketcp/key', key)
  await serveTransfers(await routed.server.agent(), { host: '127.0.0.1', port: 6000 })
  for (const { machine, text } of blocks('KCP')) await machines[machine as 'server' | 'client'].start(text.trim(), READY)
  const agent = await routed.client.agent()
  for (const direction of ['upload', 'download'] as const) {
    const { sent, received } = await transfer(agent, { host: '127.0.0.1', port: 5000 }, direction, BYTES)
    expect(received, `SHA-256 of the ${direction}`).toBe(sent)
  }
})

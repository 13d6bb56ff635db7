// Transfers by kcptun through our tunnel over the NAT router, both ways, and what has to be true of them.
import { expect } from 'vitest'
import { ALL_VALID } from '../e2e/nat-job.ts'
import type { Routed } from '../support/router.ts'
import { Kcptun, type KcptunOptions } from './kcptun.ts'

export async function transferThroughTunnel(routed: Routed, tunnel: KcptunOptions['tunnel'], bytes: number): Promise<void> {
  const { client: a, server: b } = routed
  // The hosts go with the router.
  await using kcptun = await Kcptun.start('tunnel', { tunnel, between: { a, b, [Symbol.asyncDispose]: async () => {} } })
  for (const direction of ['upload', 'download'] as const) {
    const { sent, received } = await kcptun.transfer(direction, bytes)
    expect(received, `SHA-256 of the ${direction}`).toBe(sent)
  }
  for (const end of kcptun.ends) {
    const { in: incoming, out, reconnects, drops } = await end.stats()
    expect(Math.min(incoming.bytes, out.bytes)).toBeGreaterThan(bytes)
    expect(reconnects).toBe(0)
    expect(drops).toMatchObject({ auth: 0, replay: 0, malformed: 0, 'message-size': 0 })
  }
  expect(await routed.invalid()).toEqual(ALL_VALID)
}

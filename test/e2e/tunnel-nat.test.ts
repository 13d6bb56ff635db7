// A fast UDP sender through the tunnel over the NAT router: to the router's strict connection tracking every packet of it is valid.
import { expect, it } from 'vitest'
import { ALL_VALID } from './nat-job.ts'
import { throughTunnel } from './tunnel-nat-job.ts'

const BYTES = 100_000_000

it.each([
  { is: 'plain, up', way: 'up', tunnel: {} },
  { is: 'plain, down', way: 'down', tunnel: {} },
  { is: 'with a key, up', way: 'up', tunnel: { key: 'a secret that only the two ends have' } },
] as const)('100 MB through the tunnel and the router are valid: $is', async ({ way, tunnel }) => {
  const { intact, lost, drops, ...outcome } = await throughTunnel(way, BYTES, { tunnel })
  expect(outcome).toMatchObject({ corrupt: 0, doubled: 0, invalid: ALL_VALID, reconnects: 0, entries: 1 })
  expect(intact).toBeGreaterThan((0.9 * BYTES) / 1400)
  // Nothing is lost that is not counted; the kernel counts a whole train as one.
  const counted = Object.values(drops).reduce((sum, count) => sum + count, 0)
  expect([lost > 0, counted <= lost]).toEqual([counted > 0, true])
})

// The same as kcptun-tunnel.test.ts with 100 MB, also where packets are lost and reordered on the way.
import { it } from 'vitest'
import { ROUGH } from '../e2e/nat-job.ts'
import { createRouted } from '../support/router.ts'
import { transferThroughTunnel } from './kcptun-tunnel-job.ts'

const KEY = 'a secret that only the two ends have'

it.each([
  { is: 'plain', tunnel: {}, impaired: undefined, bytes: 100_000_000 },
  { is: 'with a key', tunnel: { key: KEY }, impaired: undefined, bytes: 100_000_000 },
  { is: 'with a key, 2 % loss, reordering, 10 ms RTT', tunnel: { key: KEY }, impaired: { link: 'outside', ...ROUGH }, bytes: 20_000_000 },
] as const)('carries $bytes bytes each way through the tunnel, $is', async ({ tunnel, impaired, bytes }) => {
  await using routed = await createRouted({ impaired })
  await transferThroughTunnel(routed, tunnel, bytes)
})

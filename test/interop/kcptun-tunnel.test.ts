// kcptun in its plain UDP mode, which knows nothing of us, through our tunnel and a NAT router: transfers arrive as they were sent, and to the
// router it is one healthy TCP connection.
import { expect, it } from 'vitest'
import { createRouted } from '../support/router.ts'
import { FAKE_PORT } from './kcptun.ts'
import { transferThroughTunnel } from './kcptun-tunnel-job.ts'

const BYTES = 10_000_000

it.each([
  { is: 'plain', tunnel: {} },
  { is: 'with a key', tunnel: { key: 'a secret that only the two ends have' } },
])('carries 10 MB each way through the tunnel, $is', { timeout: 120_000 }, async ({ tunnel }) => {
  await using routed = await createRouted()
  await transferThroughTunnel(routed, tunnel, BYTES)
  expect(await routed.entries(FAKE_PORT)).toHaveLength(1)
})

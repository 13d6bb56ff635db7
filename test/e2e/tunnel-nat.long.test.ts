// A gigabyte each way through the tunnel and the NAT router, on healthy and on bad paths. What came out is printed as a table.
import { afterAll, expect, it } from 'vitest'
import { ALL_VALID, FAR, ROUGH } from './nat-job.ts'
import { throughTunnel } from './tunnel-nat-job.ts'

const KEY = 'a secret that only the two ends have'
const paths = [
  { path: 'trains cross whole', options: {}, bytes: 1_000_000_000 },
  { path: 'every segment crosses alone', options: { offloads: { tso: false, gro: false } }, bytes: 1_000_000_000 },
  { path: '10 ms RTT', options: { impaired: { link: 'outside', ...FAR } }, bytes: 1_000_000_000 },
  { path: '2 % loss, reordering, 10 ms RTT', options: { impaired: { link: 'inside', ...ROUGH } }, bytes: 100_000_000 },
] as const
const tunnels = [
  { mode: 'plain', tunnel: {} },
  { mode: 'plain, 2 flows', tunnel: { flows: 2 } },
  { mode: 'with a key', tunnel: { key: KEY } },
]

const figures: object[] = []
afterAll(() => {
  console.table(figures)
})

it.each(paths.flatMap((path) => tunnels.flatMap((tunnel) => (['up', 'down'] as const).map((way) => ({ ...path, ...tunnel, way })))))(
  'through the tunnel, $mode, $path, $way: nothing is invalid',
  async ({ path, mode, way, options, tunnel, bytes }) => {
    const { invalid, drops, ...outcome } = await throughTunnel(way, bytes, { ...options, tunnel })
    figures.push({ path, mode, way, ...outcome, drops: JSON.stringify(drops), rule: invalid.rule, tracker: invalid.tracker })
    expect(invalid).toEqual(ALL_VALID)
    expect(outcome).toMatchObject({ corrupt: 0, doubled: 0, reconnects: 0 })
  },
)

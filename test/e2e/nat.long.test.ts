// A gigabyte each way through the NAT router under all that a path may do, a silence of three minutes, and kcptun --tcp on the same paths beside
// it. What came out is printed as tables.
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, expect, it } from 'vitest'
import { Kcptun, type Way } from '../interop/kcptun.ts'
import { createRouted } from '../support/router.ts'
import { ALL_VALID, type Direction, FAR, PORT, ROUGH, SMALL_WINDOWS, type ThroughOptions, through, transfer } from './nat-job.ts'

const DIRECTIONS = ['up', 'down', 'both'] as const
const LINKS = ['packet', 'raw'] as const
const SIZE = 1400

interface Path {
  readonly is: string
  readonly options: ThroughOptions
  /** Each way. A gigabyte unless told. */
  readonly bytes?: number
  /** Messages a second each way; as many as the stream takes unless told. */
  readonly pace?: number
}

const paths: Path[] = [
  { is: 'trains cross whole', options: {} },
  { is: 'every segment crosses alone', options: { offloads: { tso: false, gro: false } } },
  { is: '10 ms RTT', options: { impaired: { link: 'outside', ...FAR } } },
  { is: '64 KiB windows', options: { sysctls: SMALL_WINDOWS } },
  { is: '64 KiB windows, 10 ms RTT', options: { sysctls: SMALL_WINDOWS, impaired: { link: 'outside', ...FAR } } },
  {
    is: 'receive buffers of 75 kB, 10 ms RTT',
    options: { sysctls: { 'net.ipv4.tcp_rmem': '4096 75000 75000' }, impaired: { link: 'outside', ...FAR } },
  },
  // Paces that the impaired link carries.
  { is: '10 ms RTT, at a pace', options: { impaired: { link: 'outside', ...FAR } }, pace: 40_000 },
  { is: '64 KiB windows, 10 ms RTT, at a pace', options: { sysctls: SMALL_WINDOWS, impaired: { link: 'outside', ...FAR } }, pace: 40_000 },
  { is: '2 % loss, reordering, 10 ms RTT', options: { impaired: { link: 'inside', ...ROUGH } }, bytes: 200_000_000, pace: 30_000 },
]

const figures: Record<string, string | number>[] = []
const beside: Record<string, string | number>[] = []
afterAll(() => {
  console.table(figures)
  console.table(beside)
})

it.each(paths.flatMap((path) => LINKS.flatMap((link) => DIRECTIONS.map((direction) => ({ ...path, link, direction })))))(
  '$is, link $link, $direction: nothing is invalid',
  async ({ is, options, link, direction, bytes = 1_000_000_000, pace = Number.POSITIVE_INFINITY }) => {
    await using scene = await through({ ...options, link })
    const { routed, client, server, ids } = scene
    const entries = await routed.entries(PORT)
    const messages = Math.floor(bytes / SIZE)
    const { invalid, ...outcome } = await transfer(scene, direction, { messages, size: SIZE, by: 'train', pace })
    const { aToB, bToA } = (await routed.link?.stats()) ?? {}
    const droppedByLink = [aToB, bToA].reduce((sum, way) => sum + (way === undefined ? 0 : way.overflow + way.all.dropped.loss), 0)
    figures.push({ path: is, link, direction, ...outcome, droppedByLink, rule: invalid.rule, tracker: invalid.tracker })
    expect(invalid).toEqual(ALL_VALID)
    expect(outcome).toMatchObject({ corrupt: 0, doubled: 0 })
    // It lives, on the entry that the handshake made. A single message may be lost.
    expect(await routed.entries(PORT)).toEqual(entries)
    const { messagesIn } = await server.stats(ids.server)
    const more = async () => {
      await client.write(ids.client, 'more')
      return (await server.stats(ids.server)).messagesIn
    }
    await expect.poll(more).toBeGreaterThan(messagesIn)
  },
)

it('three minutes of silence outlive an entry of one minute with the default keepAliveMs; the server speaks first', async () => {
  await using scene = await through({ timeouts: { established: 60 } })
  const entries = await scene.routed.entries(PORT)
  expect(entries).toHaveLength(1)
  await delay(180_000)
  expect(await scene.routed.entries(PORT)).toEqual(entries)
  await scene.server.write(scene.ids.server, 'after three minutes')
  expect((await scene.client.next('message')).text).toBe('after three minutes')
  expect(await scene.routed.invalid()).toEqual(ALL_VALID)
})

const ways: { way: Way; is: string }[] = [
  { way: 'to us', is: 'kcptun --tcp to our listener' },
  { way: 'from us', is: 'our dial to kcptun --tcp' },
  { way: 'alone', is: 'kcptun --tcp at both ends' },
]
const kcptunPaths = [
  { path: 'trains cross whole', impaired: undefined, bytes: 1_000_000_000 },
  { path: '2 % loss, reordering, 10 ms RTT', impaired: { link: 'inside', ...ROUGH }, bytes: 20_000_000 },
] as const

it.each(kcptunPaths.flatMap((path) => ways.flatMap((way) => DIRECTIONS.map((direction) => ({ ...path, ...way, direction })))))(
  '$is, $path, $direction: a transfer through the tunnel arrives as it was sent',
  async ({ way, is, path, impaired, bytes, direction }) => {
    await using routed = await createRouted({ impaired })
    const { client: a, server: b } = routed
    await using tunnel = await Kcptun.start(way, { between: { a, b, [Symbol.asyncDispose]: () => routed[Symbol.asyncDispose]() } })
    const transfers = (direction === 'both' ? (['up', 'down'] as const) : [direction]).map((one: Direction) =>
      tunnel.transfer(one === 'up' ? 'upload' : 'download', bytes),
    )
    const done = await Promise.all(transfers)
    for (const { sent, received } of done) expect(received).toBe(sent)
    const mbitPerSecond = Math.round((done.length * bytes * 8) / Math.max(...done.map(({ seconds }) => seconds)) / 1e6)
    const invalid = await routed.invalid()
    beside.push({ system: is, path, direction, mbitPerSecond, rule: invalid.rule, tracker: invalid.tracker })
    expect(invalid).toEqual(ALL_VALID)
  },
)

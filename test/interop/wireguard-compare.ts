// Compares a TCP stream inside WireGuard through our tunnel with the same over plain UDP, in one run over the NAT router, turn by turn:
// `npx tsx test/interop/wireguard-compare.ts [rounds]`. Root; the built command (npm run build).
import process from 'node:process'
import { type Change, type Stream, WireGuard } from './wireguard.ts'

const SECONDS = 4
const rounds = Number(process.argv[2] ?? 3)
const WITHOUT_KEY: Change = { from: / --key-file \S+/g, to: '' }
/** The tunnel is there, but not used. */
const DIRECT: Change = { from: /127\.0\.0\.1:51820\nAllowedIPs/g, to: 'SERVER_ADDRESS:51820\nAllowedIPs' }
const WAYS: Record<string, Change[]> = { 'plain UDP': [DIRECT], 'tunnel, no key': [WITHOUT_KEY], 'tunnel, with a key': [] }
const DIRECTIONS = ['up', 'down'] as const

const streams = new Map<string, Stream[]>()
for (let round = 0; round < rounds; round++) {
  for (const [way, changes] of Object.entries(WAYS)) {
    await using wireguard = await WireGuard.start(changes)
    await wireguard.follow('4. Does it work?')
    for (const direction of DIRECTIONS) {
      const key = `${way}, ${direction}`
      streams.set(key, [...(streams.get(key) ?? []), await wireguard.stream(SECONDS, direction)])
    }
  }
}

const median = (list: readonly number[]) => [...list].sort((x, y) => x - y)[list.length >> 1]
for (const way of Object.keys(WAYS)) {
  for (const direction of DIRECTIONS) {
    const [own, plain] = [way, 'plain UDP'].map((one) => streams.get(`${one}, ${direction}`)!)
    const rate = (list: Stream[]) => median(list.map(({ bitsPerSecond }) => bitsPerSecond / 1e6))
    const again = median(own.map(({ retransmits }) => retransmits))
    const ratio = (rate(own) / rate(plain)).toFixed(2)
    console.log(
      `${way}, ${direction}`.padEnd(26),
      `${rate(own).toFixed(0).padStart(5)} Mbit/s   ${ratio} of plain UDP   ${again} retransmits`,
    )
  }
}

// Compares a TCP stream inside WireGuard through our tunnel with the same over plain UDP, in one run over the NAT router, turn by turn:
// `npx tsx test/interop/wireguard-compare.ts [rounds]`. Root; the built command (npm run build).
import process from 'node:process'
import { type Change, WireGuard } from './wireguard.ts'

const SECONDS = 4
const rounds = Number(process.argv[2] ?? 3)
const WITHOUT_KEY: Change = { from: / --key-file \S+/g, to: '' }
/** The tunnel is there, but not used. */
const DIRECT: Change = { from: /127\.0\.0\.1:51820\nAllowedIPs/g, to: 'SERVER_ADDRESS:51820\nAllowedIPs' }
const WAYS: Record<string, Change[]> = { 'plain UDP': [DIRECT], 'tunnel, no key': [WITHOUT_KEY], 'tunnel, with a key': [] }
const DIRECTIONS = ['up', 'down'] as const

const rates = new Map<string, number[]>()
for (let round = 0; round < rounds; round++) {
  for (const [way, changes] of Object.entries(WAYS)) {
    await using wireguard = await WireGuard.start(changes)
    await wireguard.follow('4. Does it work?')
    for (const direction of DIRECTIONS) {
      const { bitsPerSecond } = await wireguard.stream(SECONDS, direction)
      const key = `${way}, ${direction}`
      rates.set(key, [...(rates.get(key) ?? []), bitsPerSecond / 1e6])
    }
  }
}

const median = (list: readonly number[]) => [...list].sort((x, y) => x - y)[list.length >> 1]
for (const way of Object.keys(WAYS)) {
  for (const direction of DIRECTIONS) {
    const own = median(rates.get(`${way}, ${direction}`)!)
    const ratio = own / median(rates.get(`plain UDP, ${direction}`)!)
    console.log(`${way}, ${direction}`.padEnd(26), `${own.toFixed(0).padStart(5)} Mbit/s   ${ratio.toFixed(2)} of plain UDP`)
  }
}

// Compares kcptun through our relay with kcptun alone (tcpraw at both ends), in one run: `npx tsx test/interop/compare.ts [rounds]`. Root.
import process from 'node:process'
import { Kcptun, type Way } from './kcptun.ts'

const BYTES = 50_000_000
const rounds = Number(process.argv[2] ?? 3)
const WAYS: readonly Way[] = ['alone', 'to us', 'from us', 'tunnel']
const rates = new Map<string, number[]>()

for (let round = 0; round < rounds; round++) {
  for (const way of WAYS) {
    const tunnel = await Kcptun.start(way)
    for (const direction of ['upload', 'download'] as const) {
      const { sent, received, seconds } = await tunnel.transfer(direction, BYTES)
      if (sent !== received) throw new Error(`${way}, ${direction}: the checksums differ`)
      const key = `${way}, ${direction}`
      rates.set(key, [...(rates.get(key) ?? []), (BYTES * 8) / seconds / 1e6])
    }
    if (way === 'to us' || way === 'from us') console.log(way, JSON.stringify(await tunnel.counted()))
    await tunnel[Symbol.asyncDispose]()
  }
}

const median = (list: readonly number[]) => [...list].sort((x, y) => x - y)[list.length >> 1]
for (const [key, list] of rates) {
  const [, direction] = key.split(', ')
  const ratio = median(list) / median(rates.get(`alone, ${direction}`)!)
  console.log(`${key.padEnd(20)} ${median(list).toFixed(0).padStart(5)} Mbit/s   ${ratio.toFixed(2)} of kcptun alone`)
}

// The relay of udp-relay.ts as a program, with the BUILT library (dist):
//
//   node --import tsx udp-relay-main.ts to-udp   <fake TCP host:port to listen on> <UDP host:port to pass on to>
//   node --import tsx udp-relay-main.ts from-udp <UDP host:port to take> <fake TCP host:port to dial>
//
// It says when it is ready. SIGTERM closes its connections in good order; then it prints what it has counted, as one line of JSON.
import { once } from 'node:events'
import process from 'node:process'
import type * as library from '../../lib/index.ts'
import { relayFromUdp, relayToUdp, type UdpAddress } from './udp-relay.ts'

const [direction, from, to] = process.argv.slice(2)
const faketcp: typeof library = await import(new URL('../../dist/index.js', import.meta.url).href)

const relay = direction === 'to-udp' ? await relayToUdp(faketcp, from, udp(to)) : await relayFromUdp(faketcp, udp(from), to)
console.log(`relaying ${direction} ${from} ${to}`)
await once(process, 'SIGTERM')
const conns = [...relay.conns].map(({ stats }) => ({
  dialect: stats.dialect,
  capture: stats.capture,
  link: stats.link,
  messagesIn: stats.messagesIn,
  messagesOut: stats.messagesOut,
  droppedIn: stats.droppedIn,
  droppedOut: stats.droppedOut,
  setBacks: stats.setBacks,
}))
await relay.close()
console.log(JSON.stringify({ ...relay.counts, conns }))

function udp(text: string): UdpAddress {
  const [host, port] = text.split(':')
  return { host, port: Number(port) }
}

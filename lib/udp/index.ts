// faketcp/udp: the same connections and listeners over UDP, for networks where that works. Exports only.
export { dial } from './dial.ts'
export { listen, listeners } from './listen.ts'
export type { UdpDialOptions, UdpListenOptions, UdpStreamOptions } from './options.ts'

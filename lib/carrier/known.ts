// Whether the host's kernel has a TCP connection on a 4-tuple, whoever's it is. Asked rarely: before a reset tells a peer that nobody knows it.
import { readFileSync } from 'node:fs'
import { endianness } from 'node:os'
import { isMapped } from '../address.ts'
import { KEY_LOCAL, KEY_PORTS, KEY_REMOTE } from '../native/layout.ts'

/** A new reading of /proc costs time in proportion to the host's connections. */
const FRESH_MS = 1000
const TABLES = ['/proc/self/net/tcp', '/proc/self/net/tcp6']
/** `sl  local_address rem_address st`: addresses as words in host order, ports in hexadecimal. */
const LINE = /^\s*\d+: ([0-9A-F]+:[0-9A-F]{4}) ([0-9A-F]+:[0-9A-F]{4}) /gm

let known = new Set<string>()
let readAt = Number.NEGATIVE_INFINITY

/** @param nowMs on any monotonic clock; what was read less than a second ago is believed */
export function isKnownToKernel(key: Int32Array, nowMs: number): boolean {
  if (nowMs - readAt >= FRESH_MS) {
    known = readConnections()
    readAt = nowMs
  }
  return known.has(`${written(key, KEY_LOCAL, key[KEY_PORTS] & 0xffff)} ${written(key, KEY_REMOTE, key[KEY_PORTS] >>> 16)}`)
}

function readConnections(): Set<string> {
  const found = new Set<string>()
  for (const path of TABLES) {
    let text: string
    try {
      text = readFileSync(path, 'latin1')
    } catch {
      continue // no IPv6, or no /proc: then nothing is known
    }
    for (const [, local, remote] of text.matchAll(LINE)) found.add(`${shortened(local)} ${shortened(remote)}`)
  }
  return found
}

/** IPv4 connections of dual-stack sockets stand in the IPv6 table as mapped addresses. */
function shortened(address: string): string {
  const mapped = endianness() === 'LE' ? '0000000000000000FFFF0000' : '00000000000000000000FFFF'
  return address.startsWith(mapped) && address.length > mapped.length + 8 ? address.slice(mapped.length) : address
}

/** As the kernel's %08X of network-order words, and %04X of the port. */
function written(words: Int32Array, at: number, port: number): string {
  let text = ''
  for (let i = isMapped(words, at) ? 3 : 0; i < 4; i++) {
    const word = words[at + i] >>> 0
    const swapped = ((word << 24) | ((word & 0xff00) << 8) | ((word >>> 8) & 0xff00) | (word >>> 24)) >>> 0
    text += (endianness() === 'LE' ? swapped : word).toString(16).toUpperCase().padStart(8, '0')
  }
  return `${text}:${port.toString(16).toUpperCase().padStart(4, '0')}`
}

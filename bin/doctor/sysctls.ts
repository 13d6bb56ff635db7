// Settings of the kernel that limit rates, numbers of connections or how long they live. It reads /proc/sys and changes nothing.
import { readFileSync } from 'node:fs'
import { RECEIVE_BUFFER_BYTES } from '../../lib/link/capture.ts'
import { SEND_BUFFER_BYTES } from '../../lib/link/sender.ts'
import { type Finding, ok, warning } from '../findings.ts'

/** The text of a sysctl, or undefined where this network namespace or kernel has none. */
export type ReadSysctl = (name: string) => string | undefined

export function readSysctl(name: string): string | undefined {
  try {
    return readFileSync(`/proc/sys/${name.replaceAll('.', '/')}`, 'utf8').trim()
  } catch {
    return undefined
  }
}

/** Handshakes that a burst of new connections may have under way. */
const BACKLOG = 1024
/** Connections to one address and port at a time; each takes a port of this host. */
const LOCAL_PORTS = 10_000
/** Twice the default of `keepAliveMs`, so that one lost question does not end a connection's entry. */
const TRACKED_S = 90

/** @param netAdmin with CAP_NET_ADMIN the limits of socket buffers do not apply (SO_RCVBUFFORCE) */
export function sysctlFindings({ netAdmin }: { readonly netAdmin: boolean }, read: ReadSysctl = readSysctl): Finding[] {
  return [
    bufferLimit('net.core.rmem_max', RECEIVE_BUFFER_BYTES, 'bursts that wait for this process to be captured are dropped sooner'),
    bufferLimit('net.core.wmem_max', SEND_BUFFER_BYTES, 'bursts that are sent stall sooner'),
    atLeast('net.core.somaxconn', BACKLOG, 'a listener loses handshakes when many arrive at once'),
    localPorts(),
    timestamps(),
    tracking(),
    atLeast(
      'net.netfilter.nf_conntrack_tcp_timeout_established',
      TRACKED_S,
      'connection tracking on this host forgets silent connections before keepAliveMs asks for a sign of life',
    ),
  ].filter((finding) => finding !== undefined)

  function bufferLimit(name: string, wanted: number, meaning: string): Finding | undefined {
    if (netAdmin && read(name) !== undefined) return ok(name, `${read(name)}; with CAP_NET_ADMIN it does not apply`)
    return atLeast(name, wanted, meaning)
  }

  function atLeast(name: string, wanted: number, meaning: string): Finding | undefined {
    const value = read(name)
    if (value === undefined) return undefined
    return Number(value) >= wanted ? ok(name, value) : warning(name, `${value}: ${meaning}`, `sysctl -w ${name}=${wanted}`)
  }

  function localPorts(): Finding | undefined {
    const name = 'net.ipv4.ip_local_port_range'
    const value = read(name)
    if (value === undefined) return undefined
    const [low, high] = value.split(/\s+/).map(Number)
    const count = high - low + 1
    return count >= LOCAL_PORTS
      ? ok(name, `${low}-${high}`)
      : warning(name, `${low}-${high}: at most ${count} connections to one server at a time`, `sysctl -w ${name}="32768 60999"`)
  }

  function timestamps(): Finding | undefined {
    const name = 'net.ipv4.tcp_timestamps'
    const value = read(name)
    if (value === undefined) return undefined
    return value === '0'
      ? warning(name, '0: segments carry no timestamps, by which those of strangers are told apart (strict)', `sysctl -w ${name}=1`)
      : ok(name, value)
  }

  function tracking(): Finding | undefined {
    const [count, max] = [read('net.netfilter.nf_conntrack_count'), read('net.netfilter.nf_conntrack_max')]
    if (count === undefined || max === undefined) return ok('connection tracking', 'not in use in this network namespace')
    const found = `${count} of ${max} entries in use`
    return Number(count) < Number(max) * 0.9
      ? ok('connection tracking', found)
      : warning(
          'connection tracking',
          `${found}: when it is full, new connections are dropped`,
          `sysctl -w net.netfilter.nf_conntrack_max=${2 * Number(max)}`,
        )
  }
}

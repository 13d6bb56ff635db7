// The ttl guard's rules as a host's own tools show them, and how a carrier's kernel socket is made to speak.
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Firewall } from '../../lib/index.ts'
import type { Host } from '../support/hosts.ts'

export const FIREWALLS = ['nftables', 'iptables'] as const

export interface GuardRule {
  /** Whose it is: an nftables table, or the comment of an iptables rule. */
  readonly owner: string
  readonly family: 4 | 6
  /** Packets that it has dropped. */
  readonly dropped: number
}

/** The rules of the guard in a host, IPv4 first. */
export async function guardRules(host: Host, firewall: Firewall): Promise<GuardRule[]> {
  const rules = await (firewall === 'nftables' ? nftRules(host) : iptablesRules(host))
  return rules.sort((a, b) => a.family - b.family)
}

async function nftRules(host: Host): Promise<GuardRule[]> {
  const tables = (await host.output('nft', ['list', 'tables', 'inet'])).match(/\bfaketcp_\w+/g) ?? []
  const listed = await Promise.all(
    tables.map(async (owner) => {
      // The table may be gone by now.
      const { stdout } = await host.exec('nft', ['list', 'table', 'inet', owner])
      const rules = stdout.matchAll(/meta mark \w+ meta l4proto tcp (ip ttl|ip6 hoplimit) 1 counter packets (\d+) bytes \d+ drop/g)
      return [...rules].map(([, hops, packets]) => ({
        owner,
        family: hops === 'ip ttl' ? (4 as const) : (6 as const),
        dropped: Number(packets),
      }))
    }),
  )
  return listed.flat()
}

async function iptablesRules(host: Host): Promise<GuardRule[]> {
  const families = [4, 6] as const
  const listed = await Promise.all(
    families.map(async (family) => {
      const text = await host.output(family === 4 ? 'iptables-save' : 'ip6tables-save', ['-c', '-t', 'mangle'])
      const rules = text.matchAll(/^\[(\d+):\d+\] -A OUTPUT .*--(?:ttl|hl)-eq 1 .*\b(faketcp-[\d-]+)\b.* -j DROP$/gm)
      return [...rules].map(([, packets, owner]) => ({ owner, family, dropped: Number(packets) }))
    }),
  )
  return listed.flat()
}

/** Has the kernel end every established TCP connection to or from a port of a host, for which it sends a reset from each socket (tcp_abort). */
export async function haveSocketsReset(host: Host, port: number): Promise<void> {
  await host.output('ss', ['-K', '-t', '-n', 'state', 'established', `( sport = :${port} or dport = :${port} )`])
}

/** A directory with programs of these names, each a shell script; put it first on the PATH. */
export async function programs(scripts: Readonly<Record<string, string>>): Promise<{ path: string } & AsyncDisposable> {
  const path = await mkdtemp(join(tmpdir(), 'faketcp-programs-'))
  for (const [name, script] of Object.entries(scripts)) {
    await writeFile(join(path, name), `#!/bin/sh\n${script}\n`)
    await chmod(join(path, name), 0o755)
  }
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true }) }
}

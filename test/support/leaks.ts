// What a host and a process hold: sockets, firewall rules, processes, file descriptors. Taken before and after, the two lists tell what is left.
import { readdir, readFile, readlink } from 'node:fs/promises'
import type { Host } from './hosts.ts'

/** Lists of lines, each naming one thing; only what names it is kept (no counters), so that two snapshots compare. */
export interface Holdings {
  /** TCP sockets of every state, TIME-WAIT too. */
  readonly tcp: string[]
  readonly udp: string[]
  readonly raw: string[]
  readonly packet: string[]
  /** nftables, iptables and ip6tables rules. */
  readonly firewall: string[]
  /** Processes in the host's namespace: 'pid name'. */
  readonly processes: string[]
}

export async function holdings(host: Host): Promise<Holdings> {
  const sockets = (kind: string) => host.output('ss', ['-H', '-n', '-a', '-p', kind]).then(socketLines)
  const [tcp, udp, raw, packet, nft, iptables, ip6tables] = await Promise.all([
    sockets('-t'),
    sockets('-u'),
    sockets('-w'),
    sockets('-0'),
    host.output('nft', ['list', 'ruleset']),
    host.output('iptables-save'),
    host.output('ip6tables-save'),
  ])
  // Last, when the commands above are gone.
  const processes = await Promise.all((await host.pids()).map(async (pid) => `${pid} ${await commandName(pid)}`))
  const firewall = [nft, iptables, ip6tables].flatMap((text) => lines(text).filter((line) => !line.startsWith('#')))
  return { tcp, udp, raw, packet, firewall, processes }
}

/** What `after` has and `before` had not, or had less often; empty lists are left out, so `{}` means that nothing is left. */
export function left(before: Holdings, after: Holdings): Partial<Holdings> {
  const kinds = Object.keys(after) as (keyof Holdings)[]
  return Object.fromEntries(
    kinds.map((kind) => [kind, additional(before[kind], after[kind])] as const).filter(([, list]) => list.length > 0),
  )
}

/** What the open file descriptors of a process are: 'socket:[4711]', 'anon_inode:[eventpoll]', '/dev/null', ... */
export async function descriptors(pid: number): Promise<string[]> {
  const directory = `/proc/${pid}/fd`
  const targets = await Promise.all((await readdir(directory)).map((fd) => readlink(`${directory}/${fd}`).catch(() => undefined)))
  return targets.filter((target) => target !== undefined).sort()
}

async function commandName(pid: number): Promise<string> {
  const name = await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => '(gone)')
  return name.trim()
}

/** ss prints: [netid] state recv-q send-q local peer [process]. The queues change and are left out, and so is padding. */
function socketLines(text: string): string[] {
  return lines(text).map((line) => line.replace(/\s+\d+\s+\d+\s+/, ' ').replace(/\s+/g, ' '))
}

function lines(text: string): string[] {
  return text
    .split('\n')
    .map((line) => line.trim())
    .filter(Boolean)
    .sort()
}

function additional(before: readonly string[], after: readonly string[]): string[] {
  const known = [...before]
  return after.filter((line) => {
    const at = known.indexOf(line)
    if (at >= 0) known.splice(at, 1)
    return at < 0
  })
}

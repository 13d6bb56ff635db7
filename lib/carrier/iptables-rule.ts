// The rule of the ttl guard by iptables and ip6tables. Such a rule outlives a process that is killed; its comment names the thread that made it,
// so that the next start removes it. It knows no flow.
//
// It is the first of its chain in the table mangle: behind this host's connection tracking, which learns of the socket's end so, before rules that
// change marks, and not reached by what the table filter accepts.
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, readlinkSync } from 'node:fs'
import process from 'node:process'
import { type FirewallRule, runTool, TOOL_LIMIT_MS, toolSurroundings } from './firewall-tool.ts'

interface Tool {
  readonly command: string
  /** The match for TTL 1. */
  readonly hops: readonly string[]
}

const IPV4: Tool = { command: 'iptables', hops: ['-m', 'ttl', '--ttl-eq', '1'] }
const IPV6: Tool = { command: 'ip6tables', hops: ['-m', 'hl', '--hl-eq', '1'] }

/** `-w`: waits while another holds the tables. */
const TABLE = ['-w', '-t', 'mangle']
/** Process namespace, process, thread, and when the thread started, in clock ticks since the host did. */
const OWNER = /\bfaketcp-(\d+)-(\d+)-(\d+)-(\d+)\b/

/** @throws (rejects) `ERR_FAKETCP_GUARD`; then no rule is left */
export async function openIptablesRule(mark: number): Promise<FirewallRule> {
  const owner = ownName()
  const made: Tool[] = []
  try {
    for (const tool of existsSync('/proc/thread-self/net/if_inet6') ? [IPV4, IPV6] : [IPV4]) {
      await removeStale(tool, mark)
      // Behind somebody's ACCEPT it would never be asked.
      await runTool(tool.command, [...TABLE, '-I', 'OUTPUT', '1', ...specification(tool, mark, owner)])
      made.push(tool)
    }
  } catch (error) {
    await remove(made, mark, owner)
    throw error
  }
  let standing = true
  return {
    get standing() {
      return standing
    },
    close() {
      if (standing) void remove(made, mark, owner)
      standing = false
    },
    closeNow() {
      standing = false
      for (const tool of made) {
        spawnSync(tool.command, removal(tool, mark, owner), { ...toolSurroundings(), stdio: 'ignore', timeout: TOOL_LIMIT_MS })
      }
    },
  }
}

async function remove(tools: readonly Tool[], mark: number, owner: string): Promise<void> {
  // What fails here is removed by the next start, once this thread is gone.
  await Promise.allSettled(tools.map((tool) => runTool(tool.command, removal(tool, mark, owner))))
}

/** Rules of threads that are gone. */
async function removeStale(tool: Tool, mark: number): Promise<void> {
  const listed = await runTool(tool.command, [...TABLE, '-S', 'OUTPUT'])
  for (const line of listed.split('\n')) {
    const owner = OWNER.exec(line)
    if (owner === null || !isGone(owner)) continue
    // Fails where another start was faster.
    await remove([tool], mark, owner[0])
  }
}

function removal(tool: Tool, mark: number, owner: string): string[] {
  return [...TABLE, '-D', 'OUTPUT', ...specification(tool, mark, owner)]
}

function specification({ hops }: Tool, mark: number, owner: string): string[] {
  return ['-p', 'tcp', '-m', 'mark', '--mark', `0x${mark.toString(16)}`, ...hops, '-m', 'comment', '--comment', owner, '-j', 'DROP']
}

function ownName(): string {
  const [pid, , thread] = readlinkSync('/proc/thread-self').split('/')
  return ['faketcp', processNamespace(), pid, thread, startOf(pid, thread)].join('-')
}

/** Of a thread in another process namespace (a container that shares this network) nothing can be known: its rule is left alone. */
function isGone([, namespace, pid, thread, start]: readonly string[]): boolean {
  if (namespace !== processNamespace()) return false
  try {
    return startOf(pid, thread) !== start
  } catch {
    return existsSync(`/proc/${pid}`) || !isThere(Number(pid))
  }
}

/** Where /proc hides the processes of other users (hidepid). */
function isThere(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'EPERM'
  }
}

/** 'pid:[4026531836]' */
function processNamespace(): string {
  return readlinkSync('/proc/self/ns/pid').replace(/\D/g, '')
}

/** proc_pid_stat(5), field 22; the second, the name in parentheses, may hold anything. */
function startOf(pid: string, thread: string): string {
  const stat = readFileSync(`/proc/${pid}/task/${thread}/stat`, 'latin1')
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]
}

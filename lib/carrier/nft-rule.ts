// The rule of the ttl guard in nftables: a table that belongs to a child process, `nft -i`, and goes with it. It knows no flow.
//
// `flags owner` (Linux 5.12) ties a table to the netlink socket that made it: nobody else may change it, `flush ruleset` passes it by, and the
// kernel removes it when the socket is closed (nft_rcv_nl_event). However this process ends, the child's input ends with it, and so does the child.
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { Socket } from 'node:net'
import process from 'node:process'
import { requireBinding } from '../native/require.ts'
import { type FirewallRule, SILENT, TOOL_LIMIT_MS, toolError, toolSurroundings, whyNot } from './firewall-tool.ts'

const COMMAND = ['nft', '-i'] as const
/**
 * Behind this host's connection tracking (-200), which learns of the socket's end so, and before rules that change marks (mangle, -150). What other
 * chains accept is dropped all the same: an accept ends its own chain only, a drop everything.
 */
const PRIORITY = -160
const FAMILIES = ['ip ttl', 'ip6 hoplimit']
/** As the kernel lists a rule of ours; the line typed, which some builds repeat, has no figures. */
const LISTED = /counter packets \d+ bytes \d+ drop/g

/**
 * @param onGone the child has ended though nobody closed it here, and the rule with it
 * @throws (rejects) `ERR_FAKETCP_GUARD`
 */
export function openNftRule(mark: number, onGone: () => void): Promise<FirewallRule> {
  const table = `faketcp_${process.pid}_${randomBytes(4).toString('hex')}`
  return new Promise((resolve, reject) => {
    // In a session of its own: what a terminal sends to this process (Ctrl-C) is none of its business.
    const child = spawn(COMMAND[0], COMMAND.slice(1), { ...toolSurroundings(), stdio: 'pipe', detached: true })
    if (child.pid === undefined) {
      child.once('error', (error: NodeJS.ErrnoException) => reject(toolError(COMMAND, whyNot(error, ''), error)))
      return
    }
    const owned = new (requireBinding().OwnedChild)(child.pid)
    child.once('exit', () => owned.release())
    let state: 'opening' | 'standing' | 'closed' = 'opening'
    let stdout = ''
    let stderr = ''
    const close = () => {
      state = 'closed'
      // A process that has given up root may not kill it any more, but the end of its input is enough for one that listens.
      child.stdin.end()
      child.kill('SIGKILL')
    }
    const fail = (why: string, cause?: unknown) => {
      clearTimeout(timer)
      close()
      reject(toolError(COMMAND, why, cause))
    }
    const timer = setTimeout(() => fail(SILENT), TOOL_LIMIT_MS)
    const stand = () => {
      clearTimeout(timer)
      state = 'standing'
      child.unref()
      for (const pipe of child.stdio) if (pipe instanceof Socket) pipe.unref()
      resolve({
        get standing() {
          return state === 'standing'
        },
        close,
        closeNow: close,
      })
    }
    child.on('error', () => {}) // it may not be killed, on which `close` does not rely
    // After the last output.
    child.once('close', (code) => {
      if (state === 'opening') fail(whyNot({ code, message: 'it was killed' }, stderr))
      if (state !== 'standing') return
      state = 'closed'
      onGone()
    })
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      if (state !== 'opening') return
      stdout += text
      if (stdout.match(LISTED)?.length === FAMILIES.length) stand()
    })
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      if (state !== 'opening') return
      stderr += text
      // It stays for further commands; at the end of its input it says what else there is to say, and ends.
      if (/error/i.test(stderr)) child.stdin.end()
    })
    child.stdin.on('error', () => {}) // it has ended, and why is told by then
    child.stdin.write(`${added(table, mark)}\nlist table inet ${table}\n`)
  })
}

function added(table: string, mark: number): string {
  const rules = FAMILIES.map((hops) => `meta mark 0x${mark.toString(16)} meta l4proto tcp ${hops} 1 counter drop;`)
  return `add table inet ${table} { flags owner; chain output { type filter hook output priority ${PRIORITY}; ${rules.join(' ')} }; }`
}

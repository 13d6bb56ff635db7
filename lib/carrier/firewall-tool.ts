// Runs the host's firewall tools, each for a bounded time and without a shell, and says in one error what was tried and what came of it. It
// knows no rule.
import { execFile } from 'node:child_process'
import process from 'node:process'
import { FakeTcpError } from '../errors.ts'

/** What a rule is made by. */
export type Firewall = 'nftables' | 'iptables'

/** A rule that this thread has made, for both families. */
export interface FirewallRule {
  /** False once it is known to be gone. */
  readonly standing: boolean
  /** Removes it, soon. Idempotent. */
  close(): void
  /** Removes it before it returns: the process is about to exit. */
  closeNow(): void
}

/** They answer within milliseconds, unless another holds their lock. */
export const TOOL_LIMIT_MS = 5000

/** An ordinary user's PATH lacks these. */
const SYSTEM_DIRECTORIES = ['/usr/local/sbin', '/usr/sbin', '/sbin']

/**
 * Surroundings of a tool: no language but C in its messages, and no home, into which interactive ones write what was typed.
 * It starts in the root directory, so that it keeps no file system busy.
 */
export function toolSurroundings(): { cwd: string; env: NodeJS.ProcessEnv } {
  const path = [process.env.PATH, ...SYSTEM_DIRECTORIES].filter(Boolean).join(':')
  return { cwd: '/', env: { PATH: path, LC_ALL: 'C', TERM: 'dumb', HOME: '/dev/null' } }
}

/**
 * @returns what it printed to stdout
 * @throws (rejects) `ERR_FAKETCP_GUARD`
 */
export async function runTool(command: string, args: readonly string[]): Promise<string> {
  const result = await tryTool(command, args)
  if ('stdout' in result) return result.stdout
  throw toolError([command, ...args], result.why, result.cause)
}

/** What it printed to stdout, or why it failed, in words. */
export function tryTool(command: string, args: readonly string[]): Promise<{ stdout: string } | { why: string; cause: Error }> {
  return new Promise((resolve) => {
    execFile(command, args, { ...toolSurroundings(), timeout: TOOL_LIMIT_MS, killSignal: 'SIGKILL' }, (error, stdout, stderr) => {
      resolve(error === null ? { stdout } : { why: error.killed === true ? SILENT : whyNot(error, stderr), cause: error })
    })
  })
}

/** Why a tool was killed. */
export const SILENT = `no answer within ${TOOL_LIMIT_MS} ms, it was killed`

/** A tool that could not be started, or ended with an exit code. */
export function whyNot(error: { code?: string | number | null | undefined; message: string }, stderr: string): string {
  if (error.code === 'ENOENT') return `not found on the PATH, nor in ${SYSTEM_DIRECTORIES.join(', ')}`
  const said = stderr.trim()
  return typeof error.code === 'number' ? `exit code ${error.code}: ${said || 'it said nothing'}` : said || error.message
}

export function toolError(commandLine: readonly string[], why: string, cause?: unknown): FakeTcpError {
  return new FakeTcpError('ERR_FAKETCP_GUARD', `The firewall rule of guard 'ttl' could not be made: ${commandLine.join(' ')}: ${why}`, {
    cause,
  })
}

// The built command as a user runs it: a process with its output, its exit code, and signals.
import { spawnSync } from 'node:child_process'
import process from 'node:process'
import { fileURLToPath } from 'node:url'

export const FAKETCP = fileURLToPath(new URL('../../dist/bin/faketcp.js', import.meta.url))

export interface Ended {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

/** Runs `faketcp` to its end. `capabilities`: those that it is left with, such as '+net_raw'; all unless told. */
export function faketcp(
  args: readonly string[],
  { capabilities = '', env = {} }: { capabilities?: string; env?: NodeJS.ProcessEnv } = {},
): Ended {
  const drop = capabilities === '' ? [] : ['setpriv', '--inh-caps=-all', `--bounding-set=${capabilities}`]
  const [command, ...rest] = [...drop, process.execPath, FAKETCP, ...args]
  const { status, stdout, stderr } = spawnSync(command, rest, { encoding: 'utf8', timeout: 20_000, env: { ...process.env, ...env } })
  return { code: status, stdout, stderr }
}

// Lets the bench run as an ordinary user: it starts itself again as root of a user namespace, where network namespaces can be made.
import { spawnSync } from 'node:child_process'
import process from 'node:process'

/** `ip netns` keeps its names under /run, which belongs to the real root. */
const INSIDE = 'mount -t tmpfs tmpfs /run && exec "$@"'

/** True when this process is root, real or of a user namespace; else runs it again there, and ends with that one's exit code. */
export function ensureRoot(): void {
  if (process.getuid?.() === 0) return
  const command = [process.execPath, ...process.execArgv, ...process.argv.slice(1)]
  const { status, error } = spawnSync('unshare', ['--user', '--map-root-user', '--net', '--mount', 'sh', '-c', INSIDE, 'sh', ...command], {
    stdio: 'inherit',
  })
  if (error !== undefined || status === null) {
    console.error(`The bench needs root, or unshare (util-linux) and user namespaces: ${error?.message ?? 'ended by a signal'}`)
    process.exit(1)
  }
  if (status !== 0) console.error('Where the kernel refuses user namespaces, run it as root.')
  process.exit(status)
}

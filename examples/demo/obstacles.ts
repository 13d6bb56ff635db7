// Why namespaces cannot be had here, in words, and what to do about it.
import { readFileSync } from 'node:fs'

/** Lines to show when `unshare` or the trial in it has failed. */
export function obstacles(isRoot: boolean, stderr: string): string[] {
  const said = stderr.trim() === '' ? [] : [`  The system said: ${stderr.trim().split('\n').join('\n    ')}`]
  if (isRoot) {
    return [
      'The demo makes network namespaces, which this root user may not: CAP_SYS_ADMIN or CAP_NET_ADMIN is missing.',
      ...said,
      '  In a container, start it with these capabilities and CAP_NET_RAW (docker run --privileged).',
    ]
  }
  return [
    'The demo makes network namespaces. An ordinary user may do that inside a user namespace, which cannot be had here:',
    ...(said.length === 0 ? [] : said),
    ...reasons(),
    '  Or run it as root: sudo npm run demo',
  ]
}

/** The switches that are known to forbid user namespaces, as they stand. */
function reasons(): string[] {
  const found: string[] = []
  if (setting('user/max_user_namespaces') === '0') {
    found.push('  user.max_user_namespaces is 0. As root: sysctl -w user.max_user_namespaces=10000')
  }
  if (setting('kernel/unprivileged_userns_clone') === '0') {
    found.push('  kernel.unprivileged_userns_clone is 0. As root: sysctl -w kernel.unprivileged_userns_clone=1')
  }
  if (setting('kernel/apparmor_restrict_unprivileged_userns') === '1') {
    found.push('  kernel.apparmor_restrict_unprivileged_userns is 1. As root: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0')
  }
  return found
}

function setting(name: string): string | undefined {
  try {
    return readFileSync(`/proc/sys/${name}`, 'utf8').trim()
  } catch {
    return undefined // This kernel has no such switch.
  }
}

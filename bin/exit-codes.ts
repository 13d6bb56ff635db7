// How the command ends: one number for each kind of end, so that a supervisor can tell what a restart may cure from what only a person can. The
// numbers are documented in docs/command-line.md.

export const EXIT = {
  /** Done, or ended by a signal after everything was passed on. */
  ok: 0,
  /** It failed in a way that may pass: a name that did not resolve, a port of a peer, an error nobody foresaw. `doctor`, `--check`: problems were found. */
  failed: 1,
  /** The command line or the configuration file is wrong. */
  usage: 2,
  /** The kernel or a file's mode forbids it: CAP_NET_RAW is missing, the key file cannot be read. */
  notPermitted: 3,
  /** An address to listen on is taken, or not this host's. */
  address: 4,
  /** Not Linux, or no addon for this machine. */
  unsupported: 5,
} as const

/** A second signal came while the first was being served: 128 and the signal's number, as shells have it. */
export const AT_ONCE = { SIGINT: 130, SIGTERM: 143 } as const

/** What the user has written is wrong. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}

/** Runs what reads a file that the user named; that it is not there is the user's mistake. */
export function readNamed<T>(path: string, read: () => T): T {
  try {
    return read()
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined
    if (code === 'ENOENT' || code === 'EISDIR' || code === 'ENOTDIR') throw new UsageError(`${path}: no such file`)
    throw error
  }
}

const BY_CODE: Readonly<Record<string, number>> = {
  EPERM: EXIT.notPermitted,
  EACCES: EXIT.notPermitted,
  EEXIST: EXIT.usage,
  EADDRINUSE: EXIT.address,
  EADDRNOTAVAIL: EXIT.address,
  ERR_FAKETCP_UNSUPPORTED: EXIT.unsupported,
  ERR_FAKETCP_INVALID_ADDRESS: EXIT.usage,
  ERR_FAKETCP_INVALID_OPTION: EXIT.usage,
}

/** The exit code for an error that ended the command. */
export function exitCodeOf(error: unknown): number {
  if (error instanceof UsageError) return EXIT.usage
  const code = error instanceof Error && 'code' in error ? String(error.code) : ''
  return BY_CODE[code] ?? EXIT.failed
}

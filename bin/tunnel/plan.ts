// What a tunnel will do, made out of its settings: the library's options, the key, and the sentences in which it is told.
import type { TunnelClientOptions } from '../../lib/tunnel/index.ts'
import { type Finding, warning } from '../findings.ts'
import { keyFileFinding, keyStrengthFinding, readKeyFile } from '../key.ts'
import type { Settings } from '../settings/settings.ts'

export interface Plan {
  readonly options: TunnelClientOptions
  /** In one line. */
  readonly title: string
  /** What is to be said about the key, and about where it lies. */
  readonly keyFindings: readonly Finding[]
}

/** @throws UsageError, EACCES: the key file */
export function makePlan(settings: Settings): Plan {
  const {
    role,
    listen,
    to,
    keyFile,
    key: written,
    keyIn: _keyIn,
    graceMs: _grace,
    metrics: _metrics,
    status: _status,
    verbose: _verbose,
    ...options
  } = settings
  const file = keyFile === undefined ? undefined : readKeyFile(keyFile)
  const key = file?.key ?? written
  return {
    options: { ...options, listen, to, ...(key === undefined ? {} : { key }) },
    title: role === 'server' ? `tunnel server ${listen} (fake TCP) -> ${to} (UDP)` : `tunnel client ${listen} (UDP) -> ${to} (fake TCP)`,
    keyFindings: key === undefined ? [] : [whereIsIt(settings, file?.mode), keyStrengthFinding(key)],
  }
}

function whereIsIt({ keyFile, keyIn }: Settings, mode: number | undefined): Finding {
  if (keyFile !== undefined && mode !== undefined) return keyFileFinding(keyFile, mode)
  if (keyIn !== undefined) return keyFileFinding(keyIn.path, keyIn.mode)
  return warning('key', 'on the command line, where other users of this host can see it', 'write it into a file, and use --key-file')
}

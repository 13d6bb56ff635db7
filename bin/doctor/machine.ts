// Node, the kernel's name, and whether the addon loads: what everything else stands on.
import { release } from 'node:os'
import process from 'node:process'
import type { Binding } from '../../lib/native/binding.ts'
import { requireBinding } from '../../lib/native/require.ts'
import { type Finding, ok, problem } from '../findings.ts'

/** As `engines` of package.json. */
const OLDEST_NODE = [20, 19]

export function nodeFinding(version = process.versions.node): Finding {
  const [major, minor] = version.split('.').map(Number)
  const recent = major > OLDEST_NODE[0] || (major === OLDEST_NODE[0] && minor >= OLDEST_NODE[1])
  return recent
    ? ok('Node', version)
    : problem('Node', `${version} is older than what this package is made for`, `use Node ${OLDEST_NODE.join('.')} or newer`)
}

export function kernelFinding(): Finding {
  return process.platform === 'linux'
    ? ok('kernel', `Linux ${release()}, ${process.arch}`)
    : problem('kernel', `${process.platform} has none of the sockets that are needed`, 'use Linux')
}

/** The addon, unless it does not load. */
export function loadAddon(): { finding: Finding; binding?: Binding } {
  try {
    return { binding: requireBinding(), finding: ok('addon', 'loaded') }
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    return { finding: problem('addon', why, 'reinstall the package, or build the addon as the message says') }
  }
}

// Which capabilities this process has, and how to get those it lacks (capabilities(7)). Reads /proc/self/status, nothing else.
import { readFileSync } from 'node:fs'
import { type Finding, ok, problem } from '../findings.ts'

/** Bit numbers of linux/capability.h. */
const CAP_NET_ADMIN = 12
const CAP_NET_RAW = 13

export interface Capabilities {
  readonly netRaw: boolean
  readonly netAdmin: boolean
  /** Whether CAP_NET_RAW could be had at all: containers take it out of the bounding set. */
  readonly mayHaveNetRaw: boolean
}

/** @param status the text of /proc/PID/status */
export function readCapabilities(status = readFileSync('/proc/self/status', 'utf8')): Capabilities {
  const set = (name: string) => BigInt(`0x${new RegExp(`^${name}:\\s*([0-9a-f]+)$`, 'm').exec(status)?.[1] ?? '0'}`)
  const has = (name: string, bit: number) => ((set(name) >> BigInt(bit)) & 1n) === 1n
  return { netRaw: has('CapEff', CAP_NET_RAW), netAdmin: has('CapEff', CAP_NET_ADMIN), mayHaveNetRaw: has('CapBnd', CAP_NET_RAW) }
}

const GIVE_NET_RAW =
  'run as root, or give it to the service (systemd: AmbientCapabilities=CAP_NET_RAW), or to the binary (setcap cap_net_raw+ep on node)'

export function capabilityFindings({ netRaw, netAdmin, mayHaveNetRaw }: Capabilities): Finding[] {
  return [
    netRaw
      ? ok('CAP_NET_RAW', 'effective: packets can be captured and sent')
      : problem(
          'CAP_NET_RAW',
          `not effective${mayHaveNetRaw ? '' : ', and not in the bounding set'}: packets can neither be captured nor sent`,
          mayHaveNetRaw
            ? GIVE_NET_RAW
            : 'start the container with it (docker run --cap-add NET_RAW), or the service without a CapabilityBoundingSet= that lacks it',
        ),
    netAdmin
      ? ok('CAP_NET_ADMIN', "effective: socket buffers as large as wanted, and guard 'ttl' if asked for")
      : ok('CAP_NET_ADMIN', "not effective, and not needed: socket buffers end at the sysctls below, and guard 'ttl' cannot be had"),
  ]
}

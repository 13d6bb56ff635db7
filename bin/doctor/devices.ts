// What the network devices do to packets: offloads decide whether a run of messages crosses the kernel in one piece.
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import type { Binding } from '../../lib/native/binding.ts'
import { OFFLOAD_GRO, OFFLOAD_GSO, OFFLOAD_LRO, OFFLOAD_TSO } from '../../lib/native/layout.ts'
import { type Finding, ok, warning } from '../findings.ts'

export interface Device {
  readonly name: string
  /** OFFLOAD_* bits, or a negative errno. */
  readonly offloads: number
  /** Without hardware of its own (veth, bridge, tun): packets come to it as another device has merged them. */
  readonly virtual: boolean
}

const DIRECTORY = '/sys/class/net'
// linux/if.h
const IFF_UP = 0x1
const IFF_LOOPBACK = 0x8

/** Devices that are up, but for loopback. */
export function listDevices(binding: Binding): Device[] {
  return namesOf().flatMap((name) => {
    const flags = readNumber(name, 'flags')
    if ((flags & IFF_UP) === 0 || (flags & IFF_LOOPBACK) !== 0) return []
    return [{ name, offloads: binding.offloads(readNumber(name, 'ifindex')), virtual: !existsSync(`${DIRECTORY}/${name}/device`) }]
  })
}

/** None where there is no sysfs, as in some containers. */
function namesOf(): string[] {
  try {
    return readdirSync(DIRECTORY)
  } catch {
    return []
  }
}

/** NaN, which has no bit set, for what is no device or has gone meanwhile. */
function readNumber(device: string, attribute: string): number {
  try {
    return Number(readFileSync(`${DIRECTORY}/${device}/${attribute}`, 'utf8'))
  } catch {
    return Number.NaN
  }
}

/** One finding for all devices that are alike: hosts of containers have hundreds. */
export function deviceFindings(devices: readonly Device[]): Finding[] {
  const alike = new Map<string, Device[]>()
  for (const device of devices) {
    const key = `${device.offloads} ${device.virtual}`
    alike.set(key, [...(alike.get(key) ?? []), device])
  }
  return [...alike.values()].map((group) => judge(named(group.map(({ name }) => name)), group[0]))
}

function named(names: readonly string[]): string {
  const shown = names.slice(0, 3).join(', ')
  return names.length > 3 ? `${shown} and ${names.length - 3} more` : shown
}

function judge(subject: string, { name: example, offloads, virtual }: Device): Finding {
  if (offloads < 0) return ok(subject, 'its offloads cannot be asked for')
  const on = (bit: number) => (offloads & bit) !== 0
  const switches = `tso ${word(on(OFFLOAD_TSO))}, gso ${word(on(OFFLOAD_GSO))}, gro ${word(on(OFFLOAD_GRO))}, lro ${word(on(OFFLOAD_LRO))}`
  if (on(OFFLOAD_LRO)) {
    return warning(
      subject,
      `${switches}: the device merges segments and forgets their sizes, so peers are told to send each message alone`,
      `ethtool -K ${example} lro off gro on`,
    )
  }
  if (!on(OFFLOAD_GRO) && !virtual) {
    return warning(subject, `${switches}: each arriving segment is handled alone, at about half the rate`, `ethtool -K ${example} gro on`)
  }
  if (!on(OFFLOAD_TSO)) {
    return warning(
      subject,
      `${switches}: the kernel, not the device, cuts runs of messages into packets`,
      `ethtool -K ${example} tso on, where the device can (not '[fixed]' in ethtool -k)`,
    )
  }
  return ok(subject, switches)
}

const word = (on: boolean) => (on ? 'on' : 'off')

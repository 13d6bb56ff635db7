// The kernel sockets behind flows, and the filter guard that keeps them mute. docs/architecture.md tells why each program is there.
import type { Binding, NativeCarrier, NativeCarrierListener } from '../native/binding.ts'
import { diallerProgram, listenerProgram, muteProgram, steeringProgram } from '../wire/programs.ts'

/**
 * After its process is gone the kernel repeats the carrier's FIN into a filter that lets no answer in; this ends the wait, else the 4-tuple
 * would stay blocked in FIN-WAIT-1 for 107 s.
 */
const USER_TIMEOUT_MS = 3000

const DIALLER = diallerProgram()
const LISTENER = listenerProgram()
const MUTE = muteProgram()

/** A bound carrier that has not dialled yet: its port is known, so that the capture can be told before the SYN leaves. */
export function openCarrier(binding: Binding, family: 4 | 6, localAddress: string, localPort: number, tos: number): NativeCarrier {
  return new binding.Carrier({ family, localAddress, localPort, tos, filter: DIALLER, mute: MUTE, userTimeoutMs: USER_TIMEOUT_MS })
}

export interface CarrierListenerSettings {
  readonly family: 4 | 6
  readonly address: string
  readonly port: number
  readonly ipv6Only: boolean
  /** Handshakes that wait to be accepted; the kernel caps it at net.core.somaxconn. */
  readonly backlog: number
  /** Type of service or traffic class, 0 to 255. */
  readonly tos: number
  /** Of how many listeners on the port this is one; undefined: the only one. */
  readonly shards: number | undefined
}

/** Listens at once; `onAccept` gets carriers that are connected and mute. */
export function listenCarriers(
  binding: Binding,
  settings: CarrierListenerSettings,
  onAccept: (carriers: NativeCarrier[], errno: number) => void,
): NativeCarrierListener {
  const steering = settings.shards === undefined ? undefined : steeringProgram(settings.shards)
  return new binding.CarrierListener({ ...settings, steering, filter: LISTENER, mute: MUTE, userTimeoutMs: USER_TIMEOUT_MS, onAccept })
}

// Who hears that packets were too long for their path: one socket for each family and thread, shared by all engines.
import type { Binding, NativePathReports } from '../native/binding.ts'
import { REPORT_WORDS } from '../native/layout.ts'
import { pathReportProgram } from '../wire/programs.ts'

/** One report, in the words of REPORT_*; overwritten after the call. Anybody can make one up. */
export type OnPathReport = (reports: Int32Array, at: number) => void

/** For one read of the socket. */
const BATCH = 16

interface Shared {
  readonly socket: NativePathReports
  readonly listeners: Set<OnPathReport>
}

const sockets = new Map<4 | 6, Shared>()

/**
 * Tells `listener` of every report about a packet of TCP, whoever sent it. Needs CAP_NET_RAW. Never keeps the process alive.
 *
 * @returns ends it
 * @throws what the system says: `EPERM`, `EMFILE`, ...
 */
export function watchPathReports(binding: Pick<Binding, 'PathReports'>, family: 4 | 6, listener: OnPathReport): () => void {
  const shared = sockets.get(family) ?? open(binding, family)
  shared.listeners.add(listener)
  return () => {
    if (!shared.listeners.delete(listener) || shared.listeners.size > 0) return
    shared.socket.close()
    sockets.delete(family)
  }
}

function open(binding: Pick<Binding, 'PathReports'>, family: 4 | 6): Shared {
  const reports = new Int32Array(BATCH * REPORT_WORDS)
  const listeners = new Set<OnPathReport>()
  const onReports = (count: number) => {
    for (let i = 0; i < count; i++) for (const listener of listeners) listener(reports, i * REPORT_WORDS)
  }
  const shared = { socket: new binding.PathReports({ family, program: pathReportProgram(family), reports, onReports }), listeners }
  sockets.set(family, shared)
  return shared
}

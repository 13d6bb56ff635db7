// tcpdump on the cable: records it, and reads its own recording back as text. What is counted here, tcpdump has seen; no counter of the library
// is asked.
import type { ChildProcess } from 'node:child_process'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { type Host, INTERFACE, SCRATCH, spawnOn } from './hosts.ts'

/** What tcpdump saw of all connections together. */
export interface Sightings {
  /** Packets. On this cable nobody cuts a run of messages that crosses the kernel in one piece: tcpdump sees it as one packet. */
  packets: number
  connections: number
  /** Connections that began with SYN, SYN+ACK, ACK. */
  handshakes: number
  /** Packets with payload, and bytes of payload, from both sides. */
  dataPackets: number
  dataBytes: number
  /** Segments without payload between handshake and close, from both sides. */
  pureAcks: number
  /** Connections that ended with a FIN from each side, each of them acknowledged. */
  closes: number
  resets: number
  /** Segments that a kernel sent on its own between handshake and close. */
  fromKernels: number
  /** Segments that tcpdump had no room for. */
  missed: number
}

const FILE = `${SCRATCH}/demo.pcap`
/** The headers are enough. */
const SNAP_LENGTH = '96'

export class Recording {
  readonly #recorder: ChildProcess
  #stderr = ''

  private constructor(host: Host) {
    // -Z root: as root, tcpdump would become a user who may not write here. To others it means nothing.
    const args = ['-n', '-i', INTERFACE, '-s', SNAP_LENGTH, '-B', '16384', '--immediate-mode', '-U', '-Z', 'root', '-w', FILE, 'tcp']
    this.#recorder = spawnOn(host, ['tcpdump', ...args], { stdio: ['ignore', 'ignore', 'pipe'] })
    this.#recorder.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr += text
    })
  }

  /** Resolves when packets are recorded. */
  static async start(host: Host): Promise<Recording> {
    const recording = new Recording(host)
    const ended = once(recording.#recorder, 'close')
    while (!recording.#stderr.includes('listening on')) {
      if (recording.#recorder.exitCode !== null) throw new Error(`tcpdump did not start: ${recording.#stderr.trim()}`)
      await Promise.race([once(recording.#recorder.stderr ?? recording.#recorder, 'data'), ended])
    }
    return recording
  }

  get process(): ChildProcess {
    return this.#recorder
  }

  /** Ends the recording and reads it. */
  async sightings(): Promise<Sightings> {
    const ended = once(this.#recorder, 'close')
    this.#recorder.kill('SIGINT')
    await ended
    const missed = Number(/(\d+) packets? dropped by kernel/.exec(this.#stderr)?.[1] ?? 0)
    // -vv: the sequence number of every segment, -S: as it was on the wire.
    const reader = spawn('tcpdump', ['-n', '-t', '-vv', '-S', '-Z', 'root', '-r', FILE], { stdio: ['ignore', 'pipe', 'ignore'] })
    const connections = new Map<string, Connection>()
    let packets = 0
    for await (const line of createInterface({ input: reader.stdout })) {
      const segment = readLine(line)
      if (segment === undefined) continue
      packets++
      const known = connections.get(`${segment.from} ${segment.to}`) ?? connections.get(`${segment.to} ${segment.from}`)
      const connection = known ?? new Connection(segment.from)
      if (known === undefined) connections.set(`${segment.from} ${segment.to}`, connection)
      connection.see(segment)
    }
    return { ...sum([...connections.values()]), packets, missed }
  }
}

interface Segment {
  from: string
  to: string
  /** As tcpdump writes them: 'S', 'S.', '.', 'P.', 'F.', 'R', ... */
  flags: string
  seq: number
  ack: number
  length: number
}

/** '10.77.0.1.45747 > 10.77.0.2.9191: Flags [P.], seq 286610616:286610669, ack 2679879883, win 16384, options [...], length 53' */
const LINE = /^\s*(\S+) > (\S+): Flags \[([^\]]+)\],.*? seq (\d+)(?::\d+)?,(?: ack (\d+),)?.* length (\d+)/

function readLine(line: string): Segment | undefined {
  const found = LINE.exec(line)
  if (found === null) return undefined
  const [, from, to, flags, seq, ack = '0', length] = found
  return { from, to, flags, seq: Number(seq), ack: Number(ack), length: Number(length) }
}

interface Side {
  /** The sequence number after the SYN, where the kernel's own socket stays for ever: it never learns of what the library sends. */
  start: number | undefined
  hasSent: boolean
  /** Has acknowledged more than the other's SYN. */
  hasAcked: boolean
  /** Sequence number of the FIN. */
  fin: number | undefined
  finAcked: boolean
  dataPackets: number
  dataBytes: number
  pureAcks: number
}

/** One connection, segment by segment. */
class Connection {
  readonly #client: string
  readonly sides: [Side, Side] = [newSide(), newSide()]
  opened = false
  resets = 0
  fromKernels = 0

  constructor(client: string) {
    this.#client = client
  }

  get closed(): boolean {
    return this.sides.every((side) => side.finAcked)
  }

  see({ from, flags, seq, ack, length }: Segment): void {
    const isClient = from === this.#client
    const me = this.sides[isClient ? 0 : 1]
    const other = this.sides[isClient ? 1 : 0]
    if (flags.includes('S')) {
      if (me.start === undefined) me.start = (seq + 1) >>> 0
      else this.fromKernels++
      return
    }
    const isStart = seq === me.start
    const acksStart = ack === other.start
    if (flags.includes('R')) this.resets++
    if (!this.opened) {
      this.opened = isClient && flags === '.' && isStart && acksStart && length === 0
      return
    }
    if (length > 0) {
      me.dataPackets++
      me.dataBytes += length
      me.hasSent = true
    }
    // The library's segments have moved on since the handshake. One that still stands there was sent by a kernel.
    else if ((me.hasSent && isStart) || (me.hasAcked && acksStart)) this.fromKernels++
    else if (flags === '.' && me.fin === undefined && other.fin === undefined) me.pureAcks++
    if (!acksStart) me.hasAcked = true
    if (flags.includes('F')) me.fin = (seq + length) >>> 0
    if (other.fin !== undefined && ack === (other.fin + 1) >>> 0) other.finAcked = true
  }
}

function newSide(): Side {
  return { start: undefined, hasSent: false, hasAcked: false, fin: undefined, finAcked: false, dataPackets: 0, dataBytes: 0, pureAcks: 0 }
}

function sum(connections: readonly Connection[]): Omit<Sightings, 'packets' | 'missed'> {
  const total = (of: (connection: Connection) => number): number => connections.reduce((all, connection) => all + of(connection), 0)
  const ofBoth = (of: (side: Side) => number): number => total(({ sides }) => of(sides[0]) + of(sides[1]))
  return {
    connections: connections.length,
    handshakes: total(({ opened }) => Number(opened)),
    dataPackets: ofBoth((side) => side.dataPackets),
    dataBytes: ofBoth((side) => side.dataBytes),
    pureAcks: ofBoth((side) => side.pureAcks),
    closes: total(({ closed }) => Number(closed)),
    resets: total(({ resets }) => resets),
    fromKernels: total(({ fromKernels }) => fromKernels),
  }
}

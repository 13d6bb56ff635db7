// What is really on the wire, by observers that nobody here wrote: tcpdump records in a host, tshark reads the recording.
// Where tcpdump cannot start, dumpcap takes its place: as root it insists on setting its groups, which a user namespace without mapped groups denies.
//
// Where to capture: a veth end with offloads on shows outgoing segments before they are cut up and before their checksum is finished, and
// incoming ones as the other end handed them over. So link the hosts with `offloads: false` when single segments or checksums are looked at.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { mkdtemp, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'
import type { Host } from './hosts.ts'

export interface CaptureOptions {
  /** The host's first interface unless told. */
  readonly iface?: string
  /** As tcpdump takes it; 'tcp' unless told. */
  readonly filter?: string
  /** Bytes kept of each packet; all unless told. Cut packets have no checksum to verify. */
  readonly snapLength?: number
  /** For floods: the kernel packs packets of any size into 64 MB and hands them over once a second, where otherwise 16 MB of full-size
   * frames are handed over at once. `stop()` takes a second longer. */
  readonly bulk?: boolean
}

export interface CaptureCounts {
  readonly captured: number
  readonly droppedByKernel: number
}

/** One TCP segment as tshark reads it. */
export interface Segment {
  /** Number in the capture, from 1: `tshark -r file -Y 'frame.number == n' -V` shows it whole. */
  readonly frame: number
  /** Seconds since the epoch. */
  readonly time: number
  readonly src: string
  readonly dst: string
  readonly srcport: number
  readonly dstport: number
  /** 'S', 'SA', 'A', 'PA', 'FA', 'R', ...: F S R P A U E C in the order of their bits. */
  readonly flags: string
  /** As on the wire, not relative. */
  readonly seq: number
  /** As on the wire, not relative. */
  readonly ack: number
  /** Bytes of payload. */
  readonly len: number
  /** As on the wire, not scaled. */
  readonly window: number
  readonly ttl: number
  /** undefined without a timestamp option. */
  readonly tsval: number | undefined
  readonly tsecr: number | undefined
  /** The option bytes, padding included, in hexadecimal. */
  readonly options: string
  /** A checksum that offloading leaves to the device (only its pseudo-header part is there) reads 'bad' or 'unverified'. */
  readonly tcpChecksum: ChecksumStatus
  /** 'absent' for IPv6, which has none. */
  readonly ipChecksum: ChecksumStatus
  /** Something in the segment is not as RFC 9293 has it, a bad option among them; `findings` says what. */
  readonly malformed: boolean
  /** All of tshark's expert messages. */
  readonly findings: readonly string[]
  /** tshark's findings (`tcp.analysis.*`) without the prefix: 'retransmission', 'lost_segment', ... */
  readonly analysis: readonly string[]
  /** Hexadecimal, only when asked for. */
  readonly payload: string | undefined
}

export type ChecksumStatus = 'good' | 'bad' | 'unverified' | 'absent'

const ANALYSIS = [
  'ack_lost_segment',
  'duplicate_ack',
  'fast_retransmission',
  'keep_alive',
  'keep_alive_ack',
  'lost_segment',
  'out_of_order',
  'retransmission',
  'reused_ports',
  'spurious_retransmission',
  'window_full',
  'window_update',
  'zero_window',
  'zero_window_probe',
  'zero_window_probe_ack',
] as const

/** tshark's words for what makes a segment malformed: it has no field in common for them. */
/**
 * The kernel writes the other of the two zeros of one's complement when it finishes a checksum in software (skb_checksum_help: CSUM_MANGLED_0), which
 * every receiver takes, and tshark calls bad. One segment in 65 536.
 */
const OTHER_ZERO = /^TCP Checksum 0xffff instead of 0x0000/
const MALFORMED = /malformed|option|too short|bogus|short segment|exceeds/i

const FIELDS = [
  'frame.number',
  'frame.time_epoch',
  'ip.src',
  'ip.dst',
  'ipv6.src',
  'ipv6.dst',
  'tcp.srcport',
  'tcp.dstport',
  'tcp.flags',
  'tcp.seq_raw',
  'tcp.ack_raw',
  'tcp.len',
  'tcp.window_size_value',
  'ip.ttl',
  'ipv6.hlim',
  'tcp.options.timestamp.tsval',
  'tcp.options.timestamp.tsecr',
  'tcp.options',
  'tcp.checksum.status',
  'ip.checksum.status',
  '_ws.expert.message',
] as const

/** Records in a host until it is stopped; the recording goes with the capture's disposal. */
export async function capture(host: Host, options: CaptureOptions = {}): Promise<Capture> {
  const directory = await mkdtemp(join(tmpdir(), 'faketcp-capture-'))
  const made = new Capture(host, directory, options)
  try {
    await made.listening()
    return made
  } catch (error) {
    await made[Symbol.asyncDispose]()
    throw error
  }
}

export class Capture implements AsyncDisposable {
  readonly file: string
  readonly #directory: string
  readonly #recorder: ChildProcess
  /** Longer than the kernel or the recorder keeps packets back. */
  readonly #settleMs: number
  readonly #closed: Promise<unknown>
  #stderr = ''

  constructor(host: Host, directory: string, { iface = host.iface, filter = 'tcp', snapLength = 0, bulk = false }: CaptureOptions) {
    this.#directory = directory
    this.file = join(directory, 'capture.pcap')
    const tcpdumpStarts = setsGroups()
    this.#settleMs = bulk || !tcpdumpStarts ? 1100 : 100
    const to = ['-i', iface, '-s', String(snapLength), '-w', this.file]
    // -Z root: tcpdump would become an ordinary user, which may not write here. -U: each packet is written as it comes.
    const delivery = bulk ? ['-B', '65536'] : ['-B', '16384', '--immediate-mode']
    const [command, args] = tcpdumpStarts
      ? (['tcpdump', ['-n', ...to, ...delivery, '-Z', 'root', '-U', filter]] as const)
      : (['dumpcap', ['-q', '-P', ...to, '-B', bulk ? '64' : '16', '-f', filter]] as const)
    this.#recorder = host.spawn(command, args, { stdio: ['ignore', 'ignore', 'pipe'] })
    this.#closed = once(this.#recorder, 'close')
    this.#recorder.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr += text
    })
  }

  /** Resolves when packets are seen. */
  async listening(): Promise<void> {
    let ended = false
    this.#recorder.once('close', () => {
      ended = true
    })
    while (!/listening on|^File: /m.test(this.#stderr)) {
      if (ended) throw new Error(`The recording did not start: ${this.#stderr}`)
      await Promise.race([once(this.#recorder.stderr ?? this.#recorder, 'data'), this.#closed])
    }
  }

  /** Ends the recording once nothing more arrives. Idempotent. */
  async stop(): Promise<CaptureCounts> {
    if (this.#recorder.exitCode === null && this.#recorder.signalCode === null) {
      await this.#quiet()
      this.#recorder.kill('SIGINT')
    }
    await this.#closed
    return {
      captured: this.#count(/^(\d+) packets? captured|^Packets captured: (\d+)/m),
      droppedByKernel: this.#count(/^(\d+) packets? dropped by kernel|^Packets received\/dropped on .*: \d+\/(\d+) /m),
    }
  }

  /** The TCP segments so far, or all of them once stopped, in the order of capture. `display` is a tshark display filter. */
  async segments({ display = 'tcp', payload = false } = {}): Promise<Segment[]> {
    const names = [...FIELDS, ...ANALYSIS.map((finding) => `tcp.analysis.${finding}`), ...(payload ? ['tcp.payload'] : [])]
    const rows = await fields(this.file, names, display)
    return rows.map(readSegment)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#recorder.kill('SIGKILL')
    await this.#closed
    await rm(this.#directory, { recursive: true, force: true })
  }

  /** A recorder leaves behind what is in the kernel's ring when it is told to end, so it is told only when the file has stopped growing. */
  async #quiet(): Promise<void> {
    for (let last = -1; ; ) {
      const { size } = await stat(this.file)
      if (size === last) return
      last = size
      await delay(this.#settleMs)
    }
  }

  #count(pattern: RegExp): number {
    const found = pattern.exec(this.#stderr)
    if (!found) throw new Error(`The recording ended without its counts: ${this.#stderr}`)
    return Number(found[1] ?? found[2])
  }
}

/** user_namespaces(7), "The /proc/pid/setgroups file". */
function setsGroups(): boolean {
  return readFileSync('/proc/self/setgroups', 'utf8').trim() === 'allow'
}

/** Between the values of a field that a packet has several times. */
const SEPARATOR = '|'

/** Any fields of any recording, one map for each packet; a field that a packet does not have is '', several values are joined by `|`. */
export async function fields(file: string, names: readonly string[], display = ''): Promise<Map<string, string>[]> {
  const verify = ['-o', 'tcp.check_checksum:TRUE', '-o', 'ip.check_checksum:TRUE', '-o', 'tcp.relative_sequence_numbers:FALSE']
  // Payload is ours and opaque, whatever the port, and no segments are put together. Told that it is data, tshark does not guess either: without that
  // it took up to one random payload in a hundred for some protocol's, and found fault with some of these.
  const opaque = ['-o', 'tcp.desegment_tcp_streams:FALSE', '-o', 'tcp.try_heuristic_first:FALSE', '-d', 'tcp.port==0-65535,data']
  const format = ['-T', 'fields', '-E', `aggregator=${SEPARATOR}`, ...names.flatMap((name) => ['-e', name])]
  const tshark = spawn('tshark', ['-n', '-r', file, ...verify, ...opaque, ...(display === '' ? [] : ['-Y', display]), ...format], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let stderr = ''
  tshark.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text
  })
  const closed = once(tshark, 'close')
  const rows: Map<string, string>[] = []
  for await (const line of createInterface({ input: tshark.stdout, crlfDelay: Number.POSITIVE_INFINITY })) {
    const cells = line.split('\t')
    rows.push(new Map(names.map((name, i) => [name, cells[i] ?? ''])))
  }
  const [code] = await closed
  // A recording that still grows may end in the middle of a packet, which tshark reads up to there.
  if (code !== 0 && !stderr.includes('cut short')) throw new Error(`tshark ended with ${code}: ${stderr}`)
  return rows
}

function readSegment(row: Map<string, string>): Segment {
  const text = (name: string) => row.get(name)?.split(SEPARATOR, 1)[0] ?? ''
  const findings = row.get('_ws.expert.message')?.split(SEPARATOR).filter(Boolean) ?? []
  const number = (name: string) => Number(text(name))
  const optional = (name: string) => (text(name) === '' ? undefined : Number(text(name)))
  return {
    frame: number('frame.number'),
    time: number('frame.time_epoch'),
    src: text('ip.src') || text('ipv6.src'),
    dst: text('ip.dst') || text('ipv6.dst'),
    srcport: number('tcp.srcport'),
    dstport: number('tcp.dstport'),
    flags: flagLetters(number('tcp.flags')),
    seq: number('tcp.seq_raw'),
    ack: number('tcp.ack_raw'),
    len: number('tcp.len'),
    window: number('tcp.window_size_value'),
    ttl: optional('ip.ttl') ?? number('ipv6.hlim'),
    tsval: optional('tcp.options.timestamp.tsval'),
    tsecr: optional('tcp.options.timestamp.tsecr'),
    options: text('tcp.options'),
    tcpChecksum: findings.some((finding) => OTHER_ZERO.test(finding)) ? 'good' : checksumStatus(text('tcp.checksum.status')),
    ipChecksum: checksumStatus(text('ip.checksum.status')),
    malformed: findings.some((finding) => MALFORMED.test(finding)),
    findings,
    analysis: ANALYSIS.filter((finding) => text(`tcp.analysis.${finding}`) !== ''),
    payload: row.has('tcp.payload') ? text('tcp.payload') : undefined,
  }
}

function flagLetters(bits: number): string {
  return [...'FSRPAUEC'].filter((_, bit) => bits & (1 << bit)).join('')
}

/** tshark's enumeration (epan/proto.h, PROTO_CHECKSUM_E_*). */
function checksumStatus(code: string): ChecksumStatus {
  return code === '1' ? 'good' : code === '0' ? 'bad' : code === '2' ? 'unverified' : 'absent'
}

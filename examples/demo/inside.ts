// The demo proper, started by main.ts in namespaces of its own: makes the hosts, runs the examples, and tells what came of it.
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import process from 'node:process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { Recording, type Sightings } from './capture.ts'
import { CLIENT, type Host, makeHosts, SERVER, spawnOn } from './hosts.ts'
import { finding, heading, note, number, progressBar, row } from './screen.ts'

/** Nothing here takes so long, unless something is wrong. */
const LIMIT_MS = 60_000

/** No answer takes so long, however busy the machine is. */
const ANSWER_MS = 10_000

const ADDRESS = `${SERVER.address}:9191`

/** One run of the echo client. */
interface Run {
  title: string
  count: number
  size: number
  window: number
}

const RUNS: readonly Run[] = [
  { title: 'Round trips', count: 5_000, size: 64, window: 1 },
  { title: 'Throughput', count: 60_000, size: 1400, window: 128 },
]

/** The last line that `echo-client.ts --json` prints, as far as it is shown. */
interface Result {
  answered: number
  lost: number
  messagesPerSecond: number
  mbitPerSecond: number
  rttUs?: { p50: number; p90: number; p99: number }
}

const children = new Set<ChildProcess>()

/** What is still running ends with this process, and with its last process the demo's namespaces end. */
process.once('exit', () => {
  for (const child of children) child.kill('SIGKILL')
})
for (const [signal, code] of [['SIGINT', 130] as const, ['SIGTERM', 143] as const, ['SIGHUP', 129] as const]) {
  process.once(signal, () => {
    progressBar.done()
    console.error('Interrupted. Hosts, cable and recording are gone.')
    process.exit(code)
  })
}
setTimeout(() => fail(new Error(`The demo did not end within ${LIMIT_MS / 1000} s`)), LIMIT_MS).unref()

await demo().then((ok) => process.exit(ok ? 0 : 1), fail)

function fail(error: unknown): never {
  progressBar.done()
  console.error(`The demo failed: ${error instanceof Error ? error.message : String(error)}`)
  process.exit(1)
}

async function demo(): Promise<boolean> {
  await makeHosts()
  const user = process.getuid?.() === 0 ? 'root' : 'an ordinary user'
  heading('faketcp: an echo server and a client, each on a host of its own')
  row('Hosts', `${CLIENT.address} and ${SERVER.address}: network namespaces joined by a veth cable, made as ${user}`)

  const recording = await Recording.start(SERVER)
  children.add(recording.process)
  const server = await startServer()

  heading('What the client measured')
  const results: Result[] = []
  for (const run of RUNS) results.push(await runClient(run))
  await stop(server)

  const sightings = await recording.sightings()
  heading(`What tcpdump saw on the cable: ${number(sightings.packets)} packets`)
  const sent = results.reduce((sum, { answered, lost }, i) => sum + (answered + lost) * RUNS[i].size, 0)
  return tell(sightings, sent)
}

/** Runs an example on a host, as the README says, with the same Node and TypeScript loader as this process. */
function startExample(host: Host, name: string, ...args: string[]): ChildProcess {
  const script = fileURLToPath(new URL(`../${name}`, import.meta.url))
  const child = spawnOn(host, [process.execPath, ...process.execArgv, script, ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
  children.add(child)
  child.once('close', () => children.delete(child))
  return child
}

async function startServer(): Promise<ChildProcess> {
  const server = startExample(SERVER, 'echo-server.ts', ADDRESS)
  const stderr = collect(server)
  await new Promise<void>((resolve, reject) => {
    server.stdout?.on('data', (text) => String(text).includes('Listening on') && resolve())
    server.once('close', () => reject(new Error(`the echo server ended: ${stderr()}`)))
  })
  return server
}

async function stop(server: ChildProcess): Promise<void> {
  const closed = once(server, 'close')
  server.kill('SIGINT')
  await closed
}

async function runClient({ title, count, size, window }: Run): Promise<Result> {
  const what = `${number(count)} messages of ${size} bytes, ${window === 1 ? 'one' : window} at a time`
  progressBar.show(title, what, 0)
  const options = { '--count': count, '--size': size, '--window': window, '--timeout': ANSWER_MS }
  const client = startExample(CLIENT, 'echo-client.ts', ADDRESS, '--json', ...Object.entries(options).flat().map(String))
  const stderr = collect(client)
  const closed = once(client, 'close')
  let result: Result | undefined
  for await (const line of createInterface({ input: client.stdout ?? process.stdin })) {
    const said = JSON.parse(line) as { progress?: { answered: number }; result?: Result }
    if (said.progress !== undefined) progressBar.show(title, what, said.progress.answered / count)
    result = said.result ?? result
  }
  await closed
  progressBar.done()
  if (result === undefined) throw new Error(`the echo client ended without a result: ${stderr()}`)
  row(title, `${what}; lost ${number(result.lost)}`)
  const { rttUs, messagesPerSecond, mbitPerSecond } = result
  if (window > 1) row('', `${number(messagesPerSecond)} messages/s, ${number(Math.round(mbitPerSecond))} Mbit/s each way`)
  if (rttUs !== undefined) row('', `RTT p50 ${ms(rttUs.p50)}   p90 ${ms(rttUs.p90)}   p99 ${ms(rttUs.p99)}`)
  return result
}

/** Each line: what, how often, and what it proves. */
function tell(saw: Sightings, sentBytes: number): boolean {
  const { connections } = saw
  const ofConnections = (n: number): string => `${n} of ${connections}`
  const verdicts = [
    finding('Handshake', ofConnections(saw.handshakes), saw.handshakes === connections && connections === RUNS.length, [
      'SYN, SYN+ACK, ACK by the real kernels: firewalls and NATs see a connection open',
    ]),
    finding('Data packets', number(saw.dataPackets), saw.missed > 0 || saw.dataBytes >= 2 * sentBytes, [
      `they carry ${number(saw.dataBytes)} bytes: every message and its echo, and a hello from each side`,
      'many messages in one: a run of equal ones crosses kernels and this cable in one piece',
    ]),
    finding('Pure ACKs', number(saw.pureAcks), true, ['few or none: echoes acknowledge, too, and nobody waits for an ACK']),
    finding('Close', ofConnections(saw.closes), saw.closes === connections, ['FIN and ACK from both sides: they see it end, too']),
    finding('Resets', number(saw.resets), saw.resets === 0, ['no RST, neither from the library nor from a kernel']),
    finding('From a kernel', number(saw.fromKernels), saw.fromKernels === 0, [
      'none between handshake and close: the kernels stay mute, without a firewall rule',
      "(told apart by numbers: a kernel's socket still stands at the handshake's seq and ack)",
    ]),
  ]
  if (saw.missed > 0) note(`tcpdump itself had no room for ${number(saw.missed)} packets; its counts are that much too low.`)
  const ok = verdicts.every(Boolean)
  if (!ok) note('What is marked with ! is not as it should be.')
  return ok
}

function ms(us: number): string {
  return us < 1000 ? `${Math.round(us)} µs` : `${(us / 1000).toFixed(1)} ms`
}

/** What a child writes to stderr, for when it fails. */
function collect(child: ChildProcess): () => string {
  let text = ''
  child.stderr?.setEncoding('utf8').on('data', (more: string) => {
    text += more
  })
  return () => text.trim()
}

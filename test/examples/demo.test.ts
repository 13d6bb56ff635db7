// `npm run demo`: what a stranger sees first. As root, as an ordinary user, and where it cannot run.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { chmod, mkdtemp, readdir, readFile, rm, symlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import process from 'node:process'
import { setTimeout as delay } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { ROOT, Running, TSX } from './commands.ts'

const MAIN = `${ROOT}/examples/demo/main.ts`
const LIMIT_MS = 60_000
/** An ordinary user: neither root nor any capability. */
const AS_NOBODY = ['setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups', '--inh-caps', '-all', '--ambient-caps', '-all']

/** In the environment of everything that a test's demo starts, so that what is left can be found. */
let marker: string
let env: NodeJS.ProcessEnv
let directory: string
const children = new Set<ChildProcess>()

beforeEach(async () => {
  marker = `FAKETCP_DEMO_TEST=${process.pid}.${Math.random()}`
  const [name, value] = marker.split('=')
  directory = await mkdtemp(join(tmpdir(), 'faketcp-demo-'))
  await chmod(directory, 0o755)
  env = { ...process.env, [name]: value, FAKETCP_PREFLIGHT: 'print', HOME: directory }
})

afterEach(async () => {
  for (const child of children) child.kill('SIGKILL')
  children.clear()
  await rm(directory, { recursive: true, force: true })
})

function start(command: string, ...args: string[]): Running & { child: ChildProcess } {
  // A process group of its own, as a terminal gives to a command.
  const child = spawn(command, args, { cwd: ROOT, env, stdio: ['ignore', 'pipe', 'pipe'], detached: true })
  children.add(child)
  return Object.assign(new Running(child), { child })
}

/** Processes that a demo of this test has started and that are still there. */
async function left(): Promise<number[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name))
  const marked = await Promise.all(
    pids.map(async (pid) => (await readFile(`/proc/${pid}/environ`, 'utf8').catch(() => '')).split('\0').includes(marker)),
  )
  return pids.filter((_, i) => marked[i]).map(Number)
}

/** A killed process is gone a moment after its parent; waited for 5 s at most. */
async function nothingIsLeft(): Promise<void> {
  for (const deadline = Date.now() + 5000; (await left()).length > 0 && Date.now() < deadline; ) await delay(20)
  expect(await left()).toEqual([])
}

/** Names that a demo gives, as far as they can be seen from outside. */
function namespaces(): string[] {
  const { stdout } = spawnSync('ip', ['netns', 'list'], { encoding: 'utf8' })
  return stdout.split('\n').filter((line) => /^(client|server|trial)\b/.test(line))
}

function expectSuccess(output: string, user: string): void {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: no colours and no live line where there is no terminal
  expect(output).not.toMatch(/\u001b/)
  expect(output).toContain(`10.77.0.1 and 10.77.0.2: network namespaces joined by a veth cable, made as ${user}`)
  expect(output).toMatch(/^ {2}Round trips {4}5,000 messages of 64 bytes, one at a time; lost 0$/m)
  expect(output).toMatch(/^ {17}RTT p50 [\d.]+ (µs|ms) {3}p90 [\d.]+ (µs|ms) {3}p99 [\d.]+ (µs|ms)$/m)
  expect(output).toMatch(/^ {2}Throughput {5}60,000 messages of 1400 bytes, 128 at a time; lost 0$/m)
  expect(output).toMatch(/^ {17}[\d,]+ messages\/s, [\d,]+ Mbit\/s each way$/m)
  expect(output).toMatch(/^ {2}Handshake {9}2 of 2 /m)
  // 5 000 messages of 64 bytes and 60 000 of 1400, as many echoes, a hello from each side of two connections (which may be repeated on a busy machine).
  expect(output).toMatch(/^ {2}Data packets +[\d,]+ /m)
  expect(output).toMatch(/they carry 168,64\d,\d\d\d bytes/)
  expect(output).toMatch(/^ {2}Pure ACKs +\d+ /m)
  expect(output).toMatch(/^ {2}Close {13}2 of 2 /m)
  expect(output).toMatch(/^ {2}Resets {17}0 /m)
  expect(output).toMatch(/^ {2}From a kernel {10}0 /m)
}

describe('where it can run', () => {
  it('runs as root and leaves nothing behind', { timeout: LIMIT_MS }, async () => {
    const demo = start('npm', 'run', '--silent', 'demo')
    const code = await demo.ended()
    expectSuccess(demo.output, 'root')
    expect(code).toBe(0)
    await nothingIsLeft()
    expect(namespaces()).toEqual([])
  })

  it('runs as an ordinary user where user namespaces can be had', { timeout: LIMIT_MS }, async () => {
    const possible = spawnSync(AS_NOBODY[0], [...AS_NOBODY.slice(1), 'unshare', '--user', '--net', 'true'], { cwd: '/' }).status === 0
    // The clone may lie where an ordinary user cannot reach it, so it is mounted where one can.
    const there = `mount --bind "$0" "$1" && cd "$1" && shift && exec "$@" "$PWD/node_modules/.bin/tsx" examples/demo/main.ts`
    const demo = start('unshare', '--mount', 'sh', '-c', there, ROOT, directory, ...AS_NOBODY)
    const code = await demo.ended()
    if (possible) expectSuccess(demo.output, 'an ordinary user')
    else expect(demo.output).toContain('Or run it as root: sudo npm run demo')
    expect(code).toBe(possible ? 0 : 1)
    await nothingIsLeft()
  })

  it('takes everything away on Ctrl-C', { timeout: LIMIT_MS }, async () => {
    const demo = start(TSX, MAIN)
    await demo.says(/Round trips/)
    process.kill(-demo.pid, 'SIGINT')
    expect(await demo.ended()).toBe(130)
    expect(demo.output).toContain('Interrupted. Hosts, cable and recording are gone.')
    await nothingIsLeft()
  })

  it('takes everything away when it is killed', { timeout: LIMIT_MS }, async () => {
    const demo = start(process.execPath, '--import', 'tsx', MAIN)
    await demo.says(/Round trips/)
    expect((await left()).length).toBeGreaterThan(3)
    demo.child.kill('SIGKILL')
    await nothingIsLeft()
  })
})

describe('where it cannot run, it says what is missing', () => {
  it('commands', async () => {
    // What is in the directories that preflight adds by itself cannot be hidden.
    for (const name of ['node', 'sh', 'unshare', 'setpriv', 'mount']) {
      const found = ['/usr/bin', '/bin'].map((bin) => join(bin, name)).find((path) => existsSync(path))
      await symlink(name === 'node' ? process.execPath : (found ?? ''), join(directory, name))
    }
    env.PATH = directory
    const demo = start(process.execPath, '--import', 'tsx', MAIN)
    expect(await demo.ended()).toBe(1)
    expect(demo.output).toMatch(/^Missing for demo: .*tcpdump.* As root:\napt-get install -y --no-install-recommends .*tcpdump.*\n$/)
  })

  it('user namespaces', async () => {
    // In a user namespace of its own the limit may be set to 0, which forbids further ones in there. Then the capabilities of this one go.
    const there = `mount --bind "$0" "$1" && cd "$1" && shift && exec "$@"`
    const powerless = 'setpriv --inh-caps -all --ambient-caps -all node_modules/.bin/tsx examples/demo/main.ts'
    const limited = `echo 0 > /proc/sys/user/max_user_namespaces && exec ${powerless}`
    const inUserNamespace = ['unshare', '--user', '--map-current-user', '--keep-caps', 'sh', '-c', limited]
    const demo = start('unshare', '--mount', 'sh', '-c', there, ROOT, directory, ...AS_NOBODY, ...inUserNamespace)
    expect(await demo.ended()).toBe(1)
    expect(demo.output).toBe(
      [
        'The demo makes network namespaces. An ordinary user may do that inside a user namespace, which cannot be had here:',
        '  The system said: unshare: unshare failed: No space left on device',
        '  user.max_user_namespaces is 0. As root: sysctl -w user.max_user_namespaces=10000',
        '  Or run it as root: sudo npm run demo',
        '',
      ].join('\n'),
    )
  })

  it('capabilities of root', async () => {
    const demo = start('setpriv', '--bounding-set', '-sys_admin', TSX, MAIN)
    expect(await demo.ended()).toBe(1)
    expect(demo.output).toBe(
      [
        'The demo makes network namespaces, which this root user may not: CAP_SYS_ADMIN or CAP_NET_ADMIN is missing.',
        '  The system said: unshare: unshare failed: Operation not permitted',
        '  In a container, start it with these capabilities and CAP_NET_RAW (docker run --privileged).',
        '',
      ].join('\n'),
    )
  })

  it('Linux', async () => {
    const otherSystem = 'data:text/javascript,Object.defineProperty(process,"platform",{value:"darwin"})'
    const demo = start(process.execPath, '--import', 'tsx', '--import', otherSystem, MAIN)
    expect(await demo.ended()).toBe(1)
    expect(demo.output).toBe('The demo needs Linux: fake TCP is made of Linux sockets, and this is darwin.\n')
  })
})

// `npm run demo`: two hosts on one machine, the echo example between them, and tcpdump's account of what crossed the wire.
//
// This file finds out whether that can be done here and starts the demo (inside.ts) in network and mount namespaces of its own, for an ordinary
// user in a user namespace. What the demo makes in there (hosts, interfaces, files) goes when its last process ends, however it ends.
import { spawn, spawnSync } from 'node:child_process'
import { constants } from 'node:os'
import process from 'node:process'
import { fileURLToPath } from 'node:url'
import { preflight, searchPath } from '../../scripts/preflight.mjs'
import { obstacles } from './obstacles.ts'

/** Where ip and tcpdump are found, which an ordinary user's PATH may lack. */
const env = { ...process.env, PATH: searchPath() }

const isRoot = process.getuid?.() === 0

/**
 * An ordinary user keeps the own user id in the user namespace, and gets the capabilities as ambient ones: as root in there, tcpdump would try to
 * become another user, which a user namespace with one user denies.
 */
const unshare = ['unshare', '--net', '--mount', ...(isRoot ? [] : ['--user', '--map-current-user', '--keep-caps'])]

/** What the demo needs beyond commands, tried in advance. */
const TRIAL = 'mount -t tmpfs tmpfs /run && ip netns add trial && ip link add trial0 netns trial type veth'

process.exitCode = await main()

async function main(): Promise<number> {
  if (process.platform !== 'linux') {
    console.error(`The demo needs Linux: fake TCP is made of Linux sockets, and this is ${process.platform}.`)
    return 1
  }
  if (!preflight(['demo'])) return 1
  const trial = spawnSync(unshare[0], [...unshare.slice(1), 'sh', '-c', TRIAL], { env, encoding: 'utf8' })
  if (trial.status !== 0) {
    for (const line of obstacles(isRoot, trial.stderr ?? '')) console.error(line)
    return 1
  }
  return await inside()
}

/** Runs the demo proper and takes over its exit code. Ctrl-C reaches it by itself, as it belongs to the same terminal. */
function inside(): Promise<number> {
  const script = fileURLToPath(new URL('inside.ts', import.meta.url))
  // Should this process be killed, the one inside is told by its parent-death signal.
  const node = ['setpriv', '--pdeathsig', 'TERM', process.execPath, ...process.execArgv, script]
  const child = spawn(unshare[0], [...unshare.slice(1), ...node], { env, stdio: 'inherit' })
  process.on('SIGINT', () => {})
  for (const signal of ['SIGTERM', 'SIGHUP'] as const) process.on(signal, () => child.kill(signal))
  return new Promise((resolve) => {
    child.once('error', (error) => {
      console.error(error.message)
      resolve(1)
    })
    child.once('exit', (code, signal) => resolve(code ?? 128 + constants.signals[signal ?? 'SIGTERM']))
  })
}

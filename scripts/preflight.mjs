// Finds what the machine lacks for building or testing, and installs it where that is allowed (root on a Debian-like system); otherwise prints
// the one line that does. Runs before any dependency is installed, so it imports nothing but Node itself.
//
//   node scripts/preflight.mjs build|test|demo [...]
//
// FAKETCP_PREFLIGHT=print never installs, it only prints the line.
import { spawnSync } from 'node:child_process'
import { accessSync, constants, existsSync, realpathSync } from 'node:fs'
import { delimiter, dirname, join } from 'node:path'
import process from 'node:process'
import { pathToFileURL } from 'node:url'

/** Commands by the Debian package that brings them. */
const PACKAGES = {
  build: {
    'g++': ['g++'],
    make: ['make'],
    python3: ['python3'],
  },
  test: {
    iproute2: ['ip', 'ss', 'nstat'],
    tcpdump: ['tcpdump'],
    tshark: ['tshark'],
    ethtool: ['ethtool'],
    kcptun: ['kcptun-client', 'kcptun-server'],
    iperf3: ['iperf3'],
    conntrack: ['conntrack'],
    nftables: ['nft'],
    iptables: ['iptables', 'iptables-save', 'ip6tables', 'ip6tables-save', 'iptables-legacy', 'ip6tables-legacy'],
    bsdutils: ['script'],
    'iputils-ping': ['ping'],
    procps: ['ps', 'sysctl'],
    socat: ['socat'],
    'util-linux': ['nsenter', 'unshare', 'setpriv'],
    mount: ['mount'],
    'wireguard-tools': ['wg', 'wg-quick'],
    'wireguard-go': ['wireguard-go'],
  },
  demo: {
    iproute2: ['ip'],
    tcpdump: ['tcpdump'],
    'util-linux': ['unshare'],
    mount: ['mount'],
  },
}

/** The PATH of an ordinary user lacks the directories where ip, nft and ethtool lie. */
const SYSTEM_DIRECTORIES = ['/usr/local/sbin', '/usr/sbin', '/sbin']

/** PATH with the administrator's directories added. */
export function searchPath(path = process.env.PATH ?? '') {
  const directories = path.split(delimiter).filter(Boolean)
  return [...directories, ...SYSTEM_DIRECTORIES.filter((directory) => !directories.includes(directory))].join(delimiter)
}

/** Where Node's own headers lie beside the running binary, or undefined. node-gyp downloads headers unless it is told. */
export function headersPrefix(execPath = process.execPath) {
  const prefixes = [execPath, realpathSync(execPath)].map((path) => dirname(dirname(path)))
  return prefixes.find((prefix) => existsSync(join(prefix, 'include/node/node_api.h')))
}

/**
 * Packages whose commands are not to be found.
 *
 * @param {('build' | 'test' | 'demo')[]} modes
 * @param {{ path?: string, headers?: string | undefined, sharedNode?: boolean }} [machine]
 */
export function missingPackages(modes, machine = {}) {
  const path = machine.path ?? searchPath()
  const wanted = modes.flatMap((mode) => Object.entries(PACKAGES[mode]))
  const missing = [
    ...new Set(wanted.filter(([, commands]) => !commands.every((command) => isCommand(command, path))).map(([name]) => name)),
  ]
  // A distribution's Node is linked against libnode and keeps its headers in a package of their own; others carry them or download them.
  const sharedNode = machine.sharedNode ?? Boolean(process.config.variables.node_shared)
  const headers = 'headers' in machine ? machine.headers : headersPrefix()
  if (modes.includes('build') && sharedNode && headers === undefined) missing.push('libnode-dev')
  return missing
}

/** Returns true when nothing is missing (any more). */
export function preflight(modes) {
  if (process.platform !== 'linux') return true
  const missing = missingPackages(modes)
  if (missing.length === 0) return true
  const line = `apt-get install -y --no-install-recommends ${missing.join(' ')}`
  const mayInstall = process.env.FAKETCP_PREFLIGHT !== 'print' && process.getuid() === 0 && isCommand('apt-get', searchPath())
  if (!mayInstall) {
    console.error(`Missing for ${modes.join(' and ')}: ${missing.join(', ')}. As root:\n${line}`)
    return false
  }
  console.error(`Missing for ${modes.join(' and ')}; installing from this system's packages: ${missing.join(' ')}`)
  // tshark's package asks whether ordinary users may capture; noninteractive takes its default, no.
  const env = { ...process.env, PATH: searchPath(), DEBIAN_FRONTEND: 'noninteractive' }
  // Without fresh lists an install of a package that is known already may still work, so only the install's verdict counts.
  run(['apt-get', 'update', '-qq'], env)
  run(['apt-get', 'install', '-y', '-qq', '--no-install-recommends', ...missing], env)
  const still = missingPackages(modes)
  if (still.length === 0) return true
  console.error(
    `Still missing after the installation: ${still.join(', ')}. As root:\napt-get install -y --no-install-recommends ${still.join(' ')}`,
  )
  return false
}

/** Whether `path` (as in PATH) has an executable of that name. */
export function isCommand(name, path) {
  return path.split(delimiter).some((directory) => {
    try {
      accessSync(join(directory, name), constants.X_OK)
      return true
    } catch {
      return false
    }
  })
}

/** Output goes to stderr and only when the command failed: apt is talkative. */
function run([command, ...args], env) {
  const { status, stdout, stderr } = spawnSync(command, args, {
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
    encoding: 'utf8',
    maxBuffer: 1 << 28,
  })
  if (status !== 0) console.error(`${command} ${args[0]} failed (${status}):\n${stdout}${stderr}`)
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const modes = process.argv.slice(2)
  if (modes.length === 0 || !modes.every((mode) => Object.hasOwn(PACKAGES, mode))) {
    console.error('usage: preflight.mjs build|test|demo [...]')
    process.exitCode = 2
  } else if (!preflight(modes)) process.exitCode = 1
}

// The preflight names what a machine lacks, and says how to get it where it may not install it.
import { spawnSync } from 'node:child_process'
import { mkdtemp, rm, symlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import process from 'node:process'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'
import { missingPackages } from '../../scripts/preflight.mjs'

const script = fileURLToPath(new URL('../../scripts/preflight.mjs', import.meta.url))

it('finds nothing missing here, where the tests run', () => {
  expect(spawnSync(process.execPath, [script, 'build', 'test'], { encoding: 'utf8' })).toMatchObject({ status: 0, stdout: '', stderr: '' })
})

it('names the packages of commands that are not on the path', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'faketcp-path-'))
  try {
    for (const command of ['make', 'python3', 'kcptun-client']) await symlink(process.execPath, join(directory, command))
    expect(missingPackages(['build'], { path: directory })).toEqual(['g++'])
    expect(missingPackages(['test'], { path: directory })).toEqual(
      expect.arrayContaining([
        'iproute2',
        'tcpdump',
        'tshark',
        'ethtool',
        'kcptun',
        'iperf3',
        'conntrack',
        'nftables',
        'iptables',
        'socat',
        'util-linux',
        'wireguard-go',
        'wireguard-tools',
      ]),
    )
  } finally {
    await rm(directory, { recursive: true })
  }
})

it("asks for a distribution's header package only when its Node has none", () => {
  const bare = { path: process.env.PATH ?? '', headers: undefined }
  expect(missingPackages(['build'], { ...bare, sharedNode: true })).toContain('libnode-dev')
  expect(missingPackages(['build'], { ...bare, sharedNode: false })).not.toContain('libnode-dev')
  expect(missingPackages(['build'], { ...bare, sharedNode: true, headers: '/usr' })).not.toContain('libnode-dev')
})

it('prints the one line of apt-get that is needed, and fails, where it may not install', async () => {
  // A new root without /usr/sbin in it: an empty path is not enough, since the administrator's directories are always searched.
  const { status, stdout, stderr } = spawnSync(
    'unshare',
    ['--mount', 'sh', '-c', 'mount -t tmpfs none /usr/sbin && exec "$@"', 'sh', process.execPath, script, 'test'],
    {
      encoding: 'utf8',
      env: { PATH: '/usr/bin:/bin', FAKETCP_PREFLIGHT: 'print' },
    },
  )
  expect({ status, stdout }).toEqual({ status: 1, stdout: '' })
  expect(stderr).toMatch(/^Missing for test: .*nftables.* As root:\napt-get install -y --no-install-recommends (\S+ )*nftables( \S+)*\n$/)
})

// faketcp doctor: what each part says about what it finds, and the built command on a host, with less and less of what it needs.
import { describe, expect, it } from 'vitest'
import { capabilityFindings, readCapabilities } from '../../bin/doctor/capabilities.ts'
import { deviceFindings } from '../../bin/doctor/devices.ts'
import { nodeFinding } from '../../bin/doctor/machine.ts'
import { sysctlFindings } from '../../bin/doctor/sysctls.ts'
import type { Finding } from '../../bin/findings.ts'
import { OFFLOAD_GRO, OFFLOAD_GSO, OFFLOAD_LRO, OFFLOAD_TSO } from '../../lib/native/layout.ts'
import { type Host, twoHosts } from '../support/hosts.ts'
import { FAKETCP, faketcp } from './command.ts'

interface Report {
  readonly ok: boolean
  readonly findings: (Finding & { readonly section: string })[]
}

const verdicts = (findings: readonly Finding[]) => Object.fromEntries(findings.map(({ subject, verdict }) => [subject, verdict]))
const status = (effective: string, bounding = '000001ffffffffff') => `Name:\tnode\nCapEff:\t${effective}\nCapBnd:\t${bounding}\n`

async function doctor(host: Host, before: string[] = []): Promise<{ code: number | null; report: Report }> {
  const [command, ...args] = [...before, process.execPath, FAKETCP, 'doctor', '--json']
  const { code, stdout, stderr } = await host.exec(command, args)
  expect(stderr).toBe('')
  return { code, report: JSON.parse(stdout) as Report }
}

describe('capabilities', () => {
  it('are read from the effective set', () => {
    expect(readCapabilities(status('0000000000002000'))).toEqual({ netRaw: true, netAdmin: false, mayHaveNetRaw: true })
    expect(readCapabilities(status('0000000000001000', '0000000000001000'))).toEqual({
      netRaw: false,
      netAdmin: true,
      mayHaveNetRaw: false,
    })
  })

  it('without CAP_NET_RAW are a problem, and the advice knows a container from an ordinary user', () => {
    const advice = (mayHaveNetRaw: boolean) => capabilityFindings({ netRaw: false, netAdmin: false, mayHaveNetRaw })[0]
    expect(advice(true)).toMatchObject({ verdict: 'problem', advice: expect.stringContaining('setcap cap_net_raw+ep') as string })
    expect(advice(false)).toMatchObject({ verdict: 'problem', advice: expect.stringContaining('--cap-add NET_RAW') as string })
  })
})

describe('devices', () => {
  const eth0 = { name: 'eth0', virtual: false }

  it('are in order with tso, gso and gro on', () => {
    expect(deviceFindings([{ ...eth0, offloads: OFFLOAD_TSO | OFFLOAD_GSO | OFFLOAD_GRO }])[0]).toMatchObject({ verdict: 'ok' })
  })

  it.each([
    [OFFLOAD_TSO | OFFLOAD_GSO, 'ethtool -K eth0 gro on'],
    [OFFLOAD_TSO | OFFLOAD_GSO | OFFLOAD_GRO | OFFLOAD_LRO, 'ethtool -K eth0 lro off gro on'],
    [OFFLOAD_GSO | OFFLOAD_GRO, 'ethtool -K eth0 tso on'],
  ])('with offloads %i are told how to do better', (offloads, advice) => {
    const [finding] = deviceFindings([{ ...eth0, offloads }])
    expect(finding.verdict).toBe('warning')
    expect(finding.advice).toContain(advice)
  })

  it('without hardware need no gro: what reaches them has been merged before', () => {
    expect(deviceFindings([{ name: 'veth0', offloads: OFFLOAD_TSO | OFFLOAD_GSO, virtual: true }])[0].verdict).toBe('ok')
  })

  it('that are alike share one line', () => {
    const names = ['veth1', 'veth2', 'veth3', 'veth4', 'veth5']
    const findings = deviceFindings([
      ...names.map((name) => ({ name, offloads: OFFLOAD_GSO, virtual: true })),
      { name: 'tun0', offloads: -95, virtual: true },
    ])
    expect(findings.map(({ subject, verdict }) => [subject, verdict])).toEqual([
      ['veth1, veth2, veth3 and 2 more', 'warning'],
      ['tun0', 'ok'],
    ])
  })
})

describe('kernel settings', () => {
  const good: Record<string, string> = {
    'net.core.rmem_max': '33554432',
    'net.core.wmem_max': '4194304',
    'net.core.somaxconn': '4096',
    'net.ipv4.ip_local_port_range': '32768\t60999',
    'net.ipv4.tcp_timestamps': '1',
    'net.netfilter.nf_conntrack_count': '10',
    'net.netfilter.nf_conntrack_max': '1000',
    'net.netfilter.nf_conntrack_tcp_timeout_established': '432000',
  }
  const judge = (changed: Record<string, string> = {}, netAdmin = false) =>
    sysctlFindings({ netAdmin }, (name) => ({ ...good, ...changed })[name])

  it('that suffice are in order, and those that are not there are left out', () => {
    expect(judge().map(({ verdict }) => verdict)).toEqual(Array(7).fill('ok'))
    expect(sysctlFindings({ netAdmin: false }, () => undefined).map(({ subject }) => subject)).toEqual(['connection tracking'])
  })

  it.each([
    ['net.core.rmem_max', '212992', 'sysctl -w net.core.rmem_max=33554432'],
    ['net.core.wmem_max', '212992', 'sysctl -w net.core.wmem_max=4194304'],
    ['net.core.somaxconn', '128', 'sysctl -w net.core.somaxconn=1024'],
    ['net.ipv4.ip_local_port_range', '60000 60999', 'sysctl -w net.ipv4.ip_local_port_range='],
    ['net.ipv4.tcp_timestamps', '0', 'sysctl -w net.ipv4.tcp_timestamps=1'],
    ['net.netfilter.nf_conntrack_tcp_timeout_established', '60', 'timeout_established=90'],
  ])('%s = %s is a warning that says what to set', (name, value, advice) => {
    expect(judge({ [name]: value }).filter(({ verdict }) => verdict === 'warning')).toMatchObject([
      { subject: name, advice: expect.stringContaining(advice) as string },
    ])
  })

  it('of buffers do not matter with CAP_NET_ADMIN', () => {
    expect(judge({ 'net.core.rmem_max': '212992' }, true).every(({ verdict }) => verdict === 'ok')).toBe(true)
  })

  it('warn of a connection tracking that is nearly full', () => {
    expect(verdicts(judge({ 'net.netfilter.nf_conntrack_count': '950' }))['connection tracking']).toBe('warning')
  })
})

it('a Node that is too old is a problem', () => {
  expect(['20.19.0', '22.1.0', '20.18.3', '18.20.8'].map((version) => nodeFinding(version).verdict)).toEqual([
    'ok',
    'ok',
    'problem',
    'problem',
  ])
})

describe('the command', () => {
  it('finds a host of root in order, having tried every socket and a whole connection', async () => {
    await using hosts = await twoHosts()
    const { code, report } = await doctor(hosts.a)
    expect({ code, ok: report.ok }).toEqual({ code: 0, ok: true })
    const found = verdicts(report.findings)
    for (const subject of [
      'addon',
      'CAP_NET_RAW',
      'AF_PACKET capture',
      'AF_PACKET send',
      'raw IPv4',
      'raw IPv6',
      'UDP',
      'a connection',
      'eth0',
      'nft',
    ]) {
      expect([subject, found[subject]]).toEqual([subject, 'ok'])
    }
  })

  it('says of a device what ethtool says', async () => {
    await using hosts = await twoHosts({ offloads: { tso: false } })
    const { report } = await doctor(hosts.a)
    const listed = await hosts.a.output('ethtool', ['-k', 'eth0'])
    const state = (feature: string) => new RegExp(`^${feature}: (on|off)`, 'm').exec(listed)?.[1]
    const device = report.findings.find(({ subject }) => subject === 'eth0')
    expect(device?.found).toContain(
      `tso ${state('tcp-segmentation-offload')}, gso ${state('generic-segmentation-offload')}, gro ${state('generic-receive-offload')}, lro ${state('large-receive-offload')}`,
    )
    expect(device?.verdict).toBe('warning')
  })

  it('without any capability names the problem, exits with 1, and still reports the rest', async () => {
    await using hosts = await twoHosts()
    const { code, report } = await doctor(hosts.a, ['setpriv', '--inh-caps=-all', '--bounding-set=-all'])
    expect({ code, ok: report.ok }).toEqual({ code: 1, ok: false })
    expect(verdicts(report.findings)).toMatchObject({
      CAP_NET_RAW: 'problem',
      'raw IPv4': 'problem',
      'a connection': 'problem',
      eth0: 'ok',
    })
  })

  it('with CAP_NET_RAW alone finds no problem', async () => {
    await using hosts = await twoHosts()
    const { code, report } = await doctor(hosts.a, ['setpriv', '--inh-caps=-all', '--bounding-set=-all,+net_raw'])
    expect(code).toBe(0)
    expect(verdicts(report.findings)).toMatchObject({ CAP_NET_RAW: 'ok', CAP_NET_ADMIN: 'ok', 'a connection': 'ok' })
  })

  it('names the firewall tool that is not there, in a host without the directories where tools lie', async () => {
    await using hosts = await twoHosts()
    // `ip netns exec` gives each command a mount namespace of its own, so this hides them from it alone.
    const hide = 'mount -t tmpfs none /usr/sbin && exec "$@"'
    const { code, report } = await doctor(hosts.a, ['sh', '-c', hide, 'sh'])
    expect(code).toBe(0)
    for (const tool of ['nft', 'iptables', 'ip6tables']) {
      expect(report.findings).toContainEqual({
        section: 'Firewall tools',
        subject: tool,
        verdict: 'warning',
        found: expect.stringContaining('not found on the PATH') as string,
        advice: expect.stringContaining('install nftables') as string,
      })
    }
  })

  it('says so where the addon does not load, and leaves out what needs it', () => {
    const { code, stdout } = faketcp(['doctor'], { env: { FAKETCP_ADDON: '/nowhere/faketcp.node' } })
    expect(code).toBe(1)
    expect(stdout).toMatch(/^problem {2}addon .*\/nowhere\/faketcp\.node \(no such file\)/m)
    expect(stdout).not.toContain('AF_PACKET')
    expect(stdout).toMatch(/^1 problem/m)
  })
})

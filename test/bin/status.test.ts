// What --status and --metrics make of a tunnel's statistics. The statistics are made up here; nothing is opened but the metrics' own server.
import type { AddressInfo } from 'node:net'
import { describe, expect, it } from 'vitest'
import { serveMetrics, tunnelRegistry } from '../../bin/metrics.ts'
import { Meter } from '../../bin/status/meter.ts'
import { renderLine, renderPage, sparkline } from '../../bin/status/view.ts'
import type { TunnelFlowStats, TunnelStats } from '../../lib/tunnel/index.ts'

const SINCE = Date.UTC(2026, 0, 1)

const flow: TunnelFlowStats = {
  id: 1,
  state: 'open',
  localAddress: '10.77.0.1',
  localPort: 40000,
  remoteAddress: '10.77.0.2',
  remotePort: 4000,
  link: 'packet',
  peers: 3,
  in: { datagrams: 1000, bytes: 1_400_000 },
  out: { datagrams: 500, bytes: 50_000 },
  lossIn: 0.01,
  lossOut: 0,
  rttMs: 12.5,
}

const connecting: TunnelFlowStats = {
  ...flow,
  id: 2,
  state: 'connecting',
  localAddress: '',
  localPort: 0,
  remoteAddress: '',
  remotePort: 0,
  link: undefined,
  peers: 0,
  in: { datagrams: 0, bytes: 0 },
  out: { datagrams: 0, bytes: 0 },
  lossIn: undefined,
  lossOut: undefined,
  rttMs: undefined,
}

const none = {
  'queue-full': 0,
  'message-size': 0,
  'no-flow': 0,
  'peer-limit': 0,
  'send-refused': 0,
  'udp-refused': 0,
  'kernel-udp': 0,
  'kernel-capture': 0,
  auth: 0,
  replay: 0,
  malformed: 0,
}

const start: TunnelStats = {
  role: 'client',
  since: SINCE,
  encrypted: 'aes-256-gcm',
  peers: 3,
  peersTotal: 7,
  flows: [flow, connecting],
  flowsTotal: 4,
  in: { datagrams: 2000, bytes: 2_800_000 },
  out: { datagrams: 900, bytes: 90_000 },
  lostIn: 20,
  lostOut: 0,
  drops: { ...none, 'message-size': 5 },
  reconnects: 1,
}

const later: TunnelStats = {
  ...start,
  flows: [{ ...flow, in: { datagrams: 11_000, bytes: 15_400_000 } }, connecting],
  in: { datagrams: 12_000, bytes: 16_800_000 },
  lostIn: 120,
  drops: { ...start.drops, 'message-size': 7, 'queue-full': 400 },
}

const title = 'tunnel client :51820 (UDP) -> example.net:4000 (fake TCP)'

function page(width: number, height: number, stats = later, warnings: string[] = []): string[] {
  const reading = new Meter(start, 0).read(stats, 2000)
  return renderPage({ reading, title, nowMs: SINCE + 3_723_000, warnings }, width, height).split('\n')
}

describe('a reading', () => {
  it('has rates by the time between two looks, and the loss of what was sent in between', () => {
    const { in: incoming, out, flows, drops } = new Meter(start, 1000).read(later, 3000)
    expect(incoming).toEqual({ bitsPerSecond: 56_000_000, datagramsPerSecond: 5000, loss: 100 / 10_100 })
    expect(out).toEqual({ bitsPerSecond: 0, datagramsPerSecond: 0, loss: undefined })
    expect(flows.get(1)).toEqual({ in: 56_000_000, out: 0 })
    expect([...drops]).toEqual([
      ['queue-full', 200],
      ['message-size', 1],
    ])
  })

  it('keeps a minute of history', () => {
    const meter = new Meter(start, 0)
    for (let second = 1; second < 60; second++) meter.read(start, second * 1000)
    meter.read(later, 60_000)
    expect(meter.read(later, 61_000).history.in).toHaveLength(60)
    expect(meter.read(later, 62_000).history.in.slice(-3)).toEqual([112_000_000, 0, 0])
  })
})

describe('the page', () => {
  it('shows what the tunnel does, rates, totals, drops and each flow', () => {
    expect(page(200, 40)).toEqual([
      'tunnel client :51820 (UDP) -> example.net:4000 (fake TCP)   aes-256-gcm   up 1:02:03',
      '',
      `in   56.0 Mbit/s      5000/s  ${' '.repeat(29)}█  loss  0.99 %   total 16.8 MB`,
      `out      0 bit/s         0/s  ${' '.repeat(29)}▁  loss       –   total 90.0 kB`,
      'conversations 3 now, 7 so far   flows 2 now, 4 so far   reconnects 1',
      'dropped queue-full 400 (200/s), message-size 7 (1.0/s)',
      '',
      'flow  state       from             to              link    conv.           in      out  loss in  loss out    rtt',
      '   1  open        10.77.0.1:40000  10.77.0.2:4000  packet      3  56.0 Mbit/s  0 bit/s   1.00 %    0.00 %  13 ms',
      '   2  connecting  –                –               –           0      0 bit/s  0 bit/s        –         –      –',
    ])
  })

  it('fits the terminal: no line is wider, and of many flows the busiest are shown', () => {
    const flows = Array.from({ length: 100 }, (_, i) => ({ ...flow, id: 100 + i, in: { datagrams: i, bytes: i * 1000 } }))
    const lines = page(60, 24, { ...later, flows }, ['warning: something'])
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(60)
    expect(lines.length).toBeLessThanOrEqual(24)
    expect(lines[8]).toMatch(/^ *199 /)
    expect(lines).toContain('and 87 more')
    expect(lines.at(-1)).toBe('warning: something')
  })

  it('says that nothing was dropped, that there is no flow, and that nothing is encrypted', () => {
    const lines = page(200, 40, { ...start, flows: [], drops: none, encrypted: 'none' })
    expect(lines[0]).toContain('NOT ENCRYPTED')
    expect(lines).toContain('dropped nothing')
    expect(lines).toContain('no flow')
  })
})

it('is one line where stdout is no terminal', () => {
  expect(renderLine(new Meter(start, 0).read(later, 2000))).toBe(
    'in 56.0 Mbit/s 5000/s loss 0.99 %, out 0 bit/s 0/s loss –, rtt 13 ms, conversations 3, flows 2, dropped 407, reconnects 1',
  )
})

it('a sparkline is as high as its highest value', () => {
  expect(sparkline([0, 1, 4, 8, 7, 0])).toBe('▁▂▅██▁')
  expect(sparkline([0, 0])).toBe('▁▁')
})

/** The text format as Prometheus documents it: each sample belongs to a family whose TYPE was told before. */
function parseMetrics(text: string): { types: Map<string, string>; samples: Map<string, number> } {
  const types = new Map<string, string>()
  const samples = new Map<string, number>()
  expect(text.endsWith('\n')).toBe(true)
  for (const line of text.split('\n').filter(Boolean)) {
    const type = /^# TYPE ([a-zA-Z_:][\w:]*) (counter|gauge|histogram|summary|untyped)$/.exec(line)
    if (type !== null) types.set(type[1], type[2])
    else if (!/^# HELP [a-zA-Z_:][\w:]* \S/.test(line)) {
      const sample = /^([a-zA-Z_:][\w:]*)(\{(?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\["\\n])*",?)*\})? (\S+)$/.exec(line)
      expect(sample, line).not.toBeNull()
      const [, name, labels = '', value] = sample!
      expect(types.has(name) || types.has(name.replace(/_(sum|count|bucket)$/, '')), line).toBe(true)
      expect(samples.has(name + labels), line).toBe(false)
      samples.set(name + labels, Number(value))
    }
  }
  return { types, samples }
}

describe('metrics', () => {
  it('are the statistics of the moment they are asked for, in the format of Prometheus', async () => {
    let stats = start
    const server = await serveMetrics(
      tunnelRegistry(() => stats, '1.2.3'),
      { host: '127.0.0.1', port: 0 },
    )
    try {
      const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
      const scrape = async () => {
        const response = await fetch(`${url}/metrics`)
        expect(response.headers.get('content-type')).toMatch(/^text\/plain; version=0\.0\.4/)
        return parseMetrics(await response.text())
      }
      const first = await scrape()
      expect(Object.fromEntries([...first.samples].filter(([name]) => name.startsWith('faketcp_') && !name.includes('reason')))).toEqual({
        'faketcp_tunnel_datagrams_total{direction="in"}': 2000,
        'faketcp_tunnel_datagrams_total{direction="out"}': 900,
        'faketcp_tunnel_bytes_total{direction="in"}': 2_800_000,
        'faketcp_tunnel_bytes_total{direction="out"}': 90_000,
        'faketcp_tunnel_lost_messages_total{direction="in"}': 20,
        'faketcp_tunnel_lost_messages_total{direction="out"}': 0,
        faketcp_tunnel_reconnects_total: 1,
        faketcp_tunnel_opened_flows_total: 4,
        faketcp_tunnel_opened_conversations_total: 7,
        faketcp_tunnel_conversations: 3,
        'faketcp_tunnel_flows{state="connecting"}': 1,
        'faketcp_tunnel_flows{state="open"}': 1,
        'faketcp_tunnel_flows{state="closing"}': 0,
        faketcp_tunnel_rtt_median_seconds: 0.0125,
        faketcp_tunnel_start_time_seconds: SINCE / 1000,
        'faketcp_tunnel_info{role="client",encryption="aes-256-gcm",version="1.2.3"}': 1,
      })
      for (const [reason, count] of Object.entries(start.drops)) {
        expect(first.samples.get(`faketcp_tunnel_dropped_datagrams_total{reason="${reason}"}`)).toBe(count)
      }
      for (const [name, type] of first.types)
        if (name.startsWith('faketcp_')) expect([name, type === 'counter']).toEqual([name, name.endsWith('_total')])

      // All flows have ended: the sums stay, what nobody knows any more is not there.
      stats = { ...later, flows: [] }
      const second = await scrape()
      expect(second.samples.get('faketcp_tunnel_bytes_total{direction="in"}')).toBe(16_800_000)
      expect(second.samples.get('faketcp_tunnel_flows{state="open"}')).toBe(0)
      expect(second.samples.has('faketcp_tunnel_rtt_median_seconds')).toBe(false)
      expect((await fetch(`${url}/`)).status).toBe(404)
    } finally {
      server.close()
      server.closeAllConnections()
    }
  })
})

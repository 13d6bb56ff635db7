// The bench runs from its command line and writes figures that agree with each other. How large they are is not this test's concern.
import { spawn } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { hostname, tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Report } from '../../bench/figures.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const SIZES = [64, 1400]
const FLOWS = [1, 5]
/** By raw socket, which every build can; whether other links can be had is shown by `leftOut`. */
const CONTENDERS = ['faketcp raw', 'dgram', 'net', 'iperf3 udp', 'socat']
const SELECTION = [
  ...['--quick', '--wires', 'gro', '--flows', FLOWS.join(), '--sizes', SIZES.join(), '--links', 'raw', '--interfaces', 'stream'],
  ...['--tool', 'socat'],
]

let directory: string
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'faketcp-bench-'))
})
afterAll(() => rm(directory, { recursive: true, force: true }))

function start(...args: string[]) {
  const child = spawn(process.execPath, ['--import', 'tsx', 'bench/main.ts', ...args], { cwd: ROOT, stdio: ['ignore', 'pipe', 'pipe'] })
  const output = { stdout: '', stderr: '' }
  for (const name of ['stdout', 'stderr'] as const) {
    child[name].setEncoding('utf8').on('data', (text: string) => {
      output[name] += text
    })
  }
  const ended = new Promise<{ code: number | null; signal: string | null; stdout: string; stderr: string }>((resolve, reject) =>
    child.once('error', reject).once('close', (code, signal) => resolve({ code, signal, ...output })),
  )
  return { child, ended }
}

const bench = (...args: string[]) => start(...args).ended

/** Network namespaces that process `pid` has made; their names carry it. */
const namespacesOf = (pid: number | undefined) =>
  existsSync('/run/netns') ? readdirSync('/run/netns').filter((name) => name.startsWith(`ftcp-${pid}-`)) : []

describe('a short run', () => {
  let run: Awaited<ReturnType<typeof bench>>
  let text: string
  let svg: string
  let report: Report
  let pid: number | undefined

  beforeAll(async () => {
    const [json, chart] = [join(directory, 'figures.json'), join(directory, 'charts/chart.svg')]
    const { child, ended } = start(...SELECTION, '--json', json, '--svg', chart)
    pid = child.pid
    run = await ended
    text = await readFile(json, 'utf8').catch(() => '')
    svg = await readFile(chart, 'utf8').catch(() => '')
    if (text !== '') report = JSON.parse(text)
  }, 180_000)

  it('succeeds and prints ratios before figures', () => {
    expect(run).toMatchObject({ code: 0 })
    const [ratios, figures] = [run.stdout.indexOf('to dgram'), run.stdout.indexOf('Mbit/s')]
    expect(ratios).toBeGreaterThan(0)
    expect(figures).toBeGreaterThan(ratios)
    expect(run.stdout).toContain('wire gro, 5 flows')
  })

  it('leaves no host behind', () => {
    expect(namespacesOf(pid)).toEqual([])
  })

  it('measures each contender in each cell, but where it cannot', () => {
    const expected = FLOWS.flatMap((flows) =>
      SIZES.flatMap((size) =>
        CONTENDERS.filter((name) => name !== 'socat' || flows === 1).map((contender) => ({ wire: 'gro', flows, size, contender })),
      ),
    )
    const cells = (rows: Report['results']) => rows.map(({ wire, flows, size, contender }) => ({ wire, flows, size, contender }))
    expect(cells(report.results)).toEqual(expected)
    expect(report.samples).toHaveLength(expected.length)
    expect(report.leftOut).toEqual([{ contender: 'socat', reason: 'it carries at most 1 flow', where: ['gro, 5 flows'] }])
    expect(run.stdout).toContain('Left out: socat (gro, 5 flows): it carries at most 1 flow')
    expect(report.ratios.map(({ flows, size, of, to }) => ({ flows, size, of, to }))).toEqual(
      expected
        .filter(({ contender }) => contender !== 'faketcp raw')
        .map(({ flows, size, contender: to }) => ({ flows, size, of: 'faketcp raw', to })),
    )
  })

  it('has the wire that was asked for, and says so', () => {
    expect(report.wires).toEqual({ gro: { senderTso: 'off', senderGso: 'on', receiverGro: 'on' } })
  })

  it('has figures that are positive and agree with each other', () => {
    for (const one of report.results) {
      expect(one.blastPerSecond).toBeGreaterThan(0)
      expect(one.blastMegabits).toBeCloseTo((one.blastPerSecond * one.size * 8) / 1e6)
      expect(one.blastLoss).toBeGreaterThanOrEqual(0)
      expect(one.blastLoss).toBeLessThan(1)
      if (one.losslessPerSecond !== null) expect(one.losslessPerSecond).toBeGreaterThan(0)
      const isNode = one.contender !== 'iperf3 udp'
      if (isNode) {
        expect(one.senderCpuMicros).toBeGreaterThan(0)
        expect(one.receiverCpuMicros).toBeGreaterThan(0)
      }
      if (isNode && one.flows === 1) {
        expect(one.rttP50Micros).toBeGreaterThan(0)
        expect(one.rttP99Micros).toBeGreaterThanOrEqual(one.rttP50Micros ?? 0)
      } else expect([one.rttP50Micros, one.rttP99Micros]).toEqual([null, null])
    }
  })

  it("divides faketcp's figures by the others', and many flows' by one's", () => {
    const of = (contender: string, { flows, size }: { flows: number; size: number }) =>
      report.results.find((one) => one.contender === contender && one.flows === flows && one.size === size)
    for (const one of report.ratios) {
      expect(one.blastPerSecond).toBeCloseTo((of(one.of, one)?.blastPerSecond ?? 0) / (of(one.to, one)?.blastPerSecond ?? 0))
    }
    expect(report.scaling).toHaveLength(SIZES.length * (CONTENDERS.length - 1))
    for (const { contender, size, losslessPerSecond } of report.scaling) {
      const [many, single] = [5, 1].map((flows) => of(contender, { flows, size })?.losslessPerSecond ?? 0)
      if (single > 0) expect(losslessPerSecond).toBeCloseTo(many / single)
    }
  })

  it('draws a chart with every contender and cell, for light and for dark pages', () => {
    expect(svg).toMatch(/^<svg [^>]*width="\d+" height="\d+"/)
    expect(svg.trimEnd()).toMatch(/<\/svg>$/)
    expect(svg).toContain('relative to iperf3 UDP')
    for (const name of ['faketcp raw', 'dgram', 'net', 'iperf3 UDP', 'socat', '64 bytes', '1400 bytes', 'not measured']) {
      expect(svg).toContain(`>${name}`)
    }
    for (const flows of ['1 flow,', '5 flows,']) expect(svg).toContain(`>${flows}`)
    expect(svg).toContain('prefers-color-scheme: dark')
    expect(svg).not.toMatch(/NaN|undefined|Infinity/)
  })

  it('says what machine it was, but neither its name nor a path of it', () => {
    expect(report.schema).toBe(2)
    expect(report.machine).toMatchObject({
      node: process.version,
      arch: process.arch,
      cpus: expect.any(Number),
      kernel: expect.any(String),
    })
    for (const written of [text, svg]) {
      expect(written).not.toContain(ROOT)
      expect(written).not.toContain(directory)
      // A name as short as 'vm' may be part of a kernel's version.
      if (hostname().length > 4) expect(written).not.toContain(hostname())
    }
  })
})

describe('foreign tunnels', () => {
  const describeTool = async (name: string, server: object, client: object = server) => {
    const file = join(directory, `${name}.json`)
    await writeFile(file, JSON.stringify({ name, carries: 'udp', server, client }))
    return file
  }
  const run = async (...tools: string[]) => {
    const json = join(directory, 'tools.json')
    const args = ['--quick', '--contenders', 'dgram', '--sizes', '1400', ...tools.flatMap((tool) => ['--tool', tool]), '--json', json]
    const { child, ended } = start(...args)
    const { code, stderr } = await ended
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    expect(namespacesOf(child.pid)).toEqual([])
    return JSON.parse(await readFile(json, 'utf8')) as Report
  }

  it('for TCP carry the load of iperf3', async () => {
    const { results, leftOut, contenders } = await run('kcptun')
    expect(leftOut).toEqual([])
    expect(contenders).toContainEqual({ name: 'kcptun', boundaries: false })
    expect(results.find(({ contender }) => contender === 'kcptun')?.losslessPerSecond).toBeGreaterThan(0)
  }, 60_000)

  it('that are not there, end at once or cannot be prepared are left out, and the rest is measured', async () => {
    const { results, leftOut } = await run(
      await describeTool('nowhere', { command: ['no-such-tunnel'] }),
      await describeTool('ending', { command: ['sh', '-c', 'echo because of {serverPort}'], ready: 'listening' }),
      await describeTool('unprepared', { setup: [['sh', '-c', 'echo no rule >&2; exit 3']], command: ['true'] }),
    )
    expect(results.map(({ contender }) => contender)).toEqual(['dgram'])
    expect(leftOut).toEqual([
      { contender: 'nowhere', reason: 'not on the PATH: no-such-tunnel', where: [] },
      { contender: 'ending', reason: expect.stringContaining('because of 4500'), where: ['default, 1 flow'] },
      { contender: 'unprepared', reason: expect.stringContaining('no rule'), where: ['default, 1 flow'] },
    ])
  }, 60_000)
})

it('removes its hosts when it is ended by a signal', async () => {
  const { child, ended } = start('--quick', '--contenders', 'dgram', '--tool', 'socat', '--json', join(directory, 'never.json'))
  await expect.poll(() => namespacesOf(child.pid).length, { timeout: 20_000 }).toBe(4)
  child.kill('SIGTERM')
  expect(await ended).toMatchObject({ signal: 'SIGTERM' })
  expect(namespacesOf(child.pid)).toEqual([])
  expect(existsSync(join(directory, 'never.json'))).toBe(false)
})

it('refuses what it does not know with its usage', async () => {
  const { code, stderr } = await bench('--quik')
  expect(code).toBe(2)
  expect(stderr).toContain('--quick')
})

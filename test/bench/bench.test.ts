// The bench runs from its command line and writes figures that agree with each other. How large they are is not this test's concern.
import { spawn } from 'node:child_process'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Report } from '../../bench/figures.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const SIZES = [64, 1400]
const CONTENDERS = ['faketcp', 'dgram', 'net']

function bench(...args: string[]): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const child = spawn(process.execPath, ['--import', 'tsx', 'bench/main.ts', ...args], { cwd: ROOT, stdio: ['ignore', 'pipe', 'pipe'] })
  const output = { stdout: '', stderr: '' }
  for (const name of ['stdout', 'stderr'] as const) {
    child[name].setEncoding('utf8').on('data', (text: string) => {
      output[name] += text
    })
  }
  return new Promise((resolve, reject) => child.once('error', reject).once('close', (code) => resolve({ code, ...output })))
}

describe('a short run', () => {
  let directory: string
  let run: Awaited<ReturnType<typeof bench>>
  let text: string
  let report: Report

  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'faketcp-bench-'))
    const json = join(directory, 'figures.json')
    run = await bench('--quick', '--rounds', '1', '--sizes', SIZES.join(), '--json', json)
    text = await readFile(json, 'utf8').catch(() => '')
    if (text !== '') report = JSON.parse(text)
  }, 120_000)

  afterAll(() => rm(directory, { recursive: true, force: true }))

  it('succeeds and prints ratios before figures', () => {
    expect(run).toMatchObject({ code: 0 })
    const [ratios, figures] = [run.stdout.indexOf('faketcp to'), run.stdout.indexOf('Mbit/s')]
    expect(ratios).toBeGreaterThan(0)
    expect(figures).toBeGreaterThan(ratios)
  })

  it('measures each contender with each size', () => {
    const names = (rows: Report['results']) => rows.map(({ size, contender }) => `${size} ${contender}`).sort()
    const expected = SIZES.flatMap((size) => CONTENDERS.map((contender) => `${size} ${contender}`)).sort()
    expect(names(report.results)).toEqual(expected)
    expect(report.samples).toHaveLength(expected.length)
    expect(report.ratios.map(({ size, to }) => `${size} ${to}`)).toEqual(['64 dgram', '64 net', '1400 dgram', '1400 net'])
  })

  it('has figures that are positive and agree with each other', () => {
    for (const one of report.results) {
      expect(one.blastPerSecond).toBeGreaterThan(0)
      expect(one.blastMegabits).toBeCloseTo((one.blastPerSecond * one.size * 8) / 1e6)
      expect(one.blastLoss).toBeGreaterThanOrEqual(0)
      expect(one.blastLoss).toBeLessThan(1)
      expect(one.rttP50Micros).toBeGreaterThan(0)
      expect(one.rttP99Micros).toBeGreaterThanOrEqual(one.rttP50Micros ?? 0)
      expect(one.senderCpuMicros).toBeGreaterThan(0)
      expect(one.receiverCpuMicros).toBeGreaterThan(0)
      if (one.losslessPerSecond !== null) expect(one.losslessPerSecond).toBeGreaterThan(0)
    }
  })

  it("divides faketcp's figures by the others'", () => {
    for (const { size, to, blastPerSecond, rttP50Micros } of report.ratios) {
      const of = (contender: string) => report.results.find((one) => one.size === size && one.contender === contender)
      expect(blastPerSecond).toBeCloseTo((of('faketcp')?.blastPerSecond ?? 0) / (of(to)?.blastPerSecond ?? 0))
      expect(rttP50Micros).toBeCloseTo((of('faketcp')?.rttP50Micros ?? 0) / (of(to)?.rttP50Micros ?? 0))
    }
  })

  it('says what machine it was, but neither its name nor a path of it', async () => {
    const { hostname } = await import('node:os')
    expect(report.machine).toMatchObject({
      node: process.version,
      arch: process.arch,
      cpus: expect.any(Number),
      kernel: expect.any(String),
    })
    expect(text).not.toContain(ROOT)
    expect(text).not.toContain(directory)
    expect(Object.keys(report.machine)).not.toContain('hostname')
    // A name as short as 'vm' may be part of a kernel's version.
    if (hostname().length > 4) expect(text).not.toContain(hostname())
  })
})

it('refuses an option that it does not know with its usage', async () => {
  const { code, stderr } = await bench('--quik')
  expect(code).toBe(2)
  expect(stderr).toContain('--quick')
})

it.each([
  ['--sizes', '0'],
  ['--sizes', '64,2000'],
  ['--rounds', 'many'],
])('refuses %s %s', async (option, value) => {
  const { code, stderr } = await bench(option, value)
  expect(code).toBe(2)
  expect(stderr).toContain(option)
})

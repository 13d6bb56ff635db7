// The line that `npm test` ends with counts what the runner reported, and nothing that went wrong looks green.
import { spawnSync } from 'node:child_process'
import { mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, it, vi } from 'vitest'
import { readRun, summarize } from '../../scripts/summary.mjs'

const PASSES = "import { it } from 'vitest'\nit('passes', () => {})\n"
const FAILS = "import { it } from 'vitest'\nit('fails', () => { throw new Error('as it should') })\n"
// Each test runs a tool or two as a process of its own, which takes its time on a busy machine.
vi.setConfig({ testTimeout: 120_000 })

const root = fileURLToPath(new URL('../..', import.meta.url))

it('adds up all runs', async () => {
  const runs = [await run({ 'a.test.ts': PASSES, 'b.test.ts': PASSES }), await run({ 'c.test.ts': PASSES })]
  expect(summarize(runs, [], { ci: true })).toEqual({ ok: true, lines: ['3 passed, 0 failed'] })
})

it('counts failed tests', async () => {
  const { ok, lines } = summarize([await run({ 'a.test.ts': PASSES, 'b.test.ts': FAILS })], [], { ci: false })
  expect({ ok, last: lines.at(-1) }).toEqual({ ok: false, last: '1 passed, 1 failed' })
})

it('names skipped tests, and counts them as failures in CI', async () => {
  const runs = [await run({ 'a.test.ts': `${PASSES}it.skip('is left out', () => {})\nit.todo('is to be written')\n` })]
  expect(summarize(runs, [], { ci: false })).toMatchObject({ ok: true, lines: expect.arrayContaining(['1 passed, 0 failed']) })
  const { ok, lines } = summarize(runs, [], { ci: true })
  expect(ok).toBe(false)
  expect(lines).toEqual([
    expect.stringMatching(/^skipped .*is left out$/),
    expect.stringMatching(/^skipped .*is to be written$/),
    '1 passed, 2 failed',
  ])
})

it.each([
  ['a file that does not load', "throw new Error('at load')\n"],
  ['a hook that throws', `import { beforeAll } from 'vitest'\nbeforeAll(() => { throw new Error('in hook') })\n${PASSES}`],
  ['an error that nobody catches', `${PASSES}setTimeout(() => { throw new Error('stray') })\n`],
  ['a worker that crashes', `${PASSES}it('crashes', () => process.kill(process.pid, 'SIGKILL'))\n`],
  ['a file without tests', 'export {}\n'],
])('does not look green after %s', async (_, text) => {
  const { ok, lines } = summarize([await run({ 'a.test.ts': PASSES, 'b.test.ts': text })], [], { ci: false })
  expect(ok).toBe(false)
  expect(lines.at(-1)).not.toContain(' 0 failed')
})

it('does not look green when no test ran, or no report was left', async () => {
  expect(summarize([await run({})], [], { ci: false }).lines.at(-1)).toBe('0 passed, 1 failed')
  expect(summarize([readRun('tests', undefined, 0)], [], { ci: false }).lines.at(-1)).toBe('0 passed, 1 failed')
  expect(summarize([readRun('tests', '{"testRes', 0)], [], { ci: false }).lines.at(-1)).toBe('0 passed, 1 failed')
})

it('counts a failed check as a failure and names it', async () => {
  const { lines } = summarize([await run({ 'a.test.ts': PASSES })], ['biome'], { ci: false })
  expect(lines).toEqual(['failed check: biome', '1 passed, 1 failed'])
})

/** A real run of the runner over these files. */
async function run(files: Record<string, string>) {
  const directory = await mkdtemp(join(tmpdir(), 'faketcp-summary-'))
  try {
    await symlink(join(root, 'node_modules'), join(directory, 'node_modules'))
    for (const [name, text] of Object.entries(files)) await writeFile(join(directory, name), text)
    const report = join(directory, 'report.json')
    const { status } = spawnSync(
      join(root, 'node_modules/.bin/vitest'),
      ['run', '--root', directory, '--reporter=json', `--outputFile=${report}`],
      {
        cwd: directory,
        encoding: 'utf8',
      },
    )
    return readRun('tests', await readFile(report, 'utf8').catch(() => undefined), status)
  } finally {
    await rm(directory, { recursive: true })
  }
}

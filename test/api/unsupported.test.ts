// Where the library cannot work it can still be imported, and each verb says the same one thing.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, it } from 'vitest'

const directory = mkdtempSync(join(tmpdir(), 'faketcp-broken-'))
const broken = join(directory, 'faketcp.node')
writeFileSync(broken, 'not a shared object')
afterAll(() => rmSync(directory, { recursive: true }))

const library = fileURLToPath(new URL('../../dist/index.js', import.meta.url))

/** What each verb rejects with in a fresh process. */
function rejections(prelude: string, env: Record<string, string> = {}): Array<{ name: string; code: string; message: string }> {
  const script = `
    ${prelude}
    const { dial, listen, listeners } = await import(${JSON.stringify(library)})
    const calls = [() => dial('127.0.0.1:9191'), () => listen('127.0.0.1:0'), () => listeners(['127.0.0.1:0'])]
    const results = await Promise.allSettled(calls.map((call) => call()))
    console.log(JSON.stringify(results.map(({ reason }) => ({ name: reason?.name, code: reason?.code, message: reason?.message }))))`
  const child = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
    encoding: 'utf8',
    timeout: 20_000,
    env: { ...process.env, ...env },
  })
  expect(child.stderr).toBe('')
  return JSON.parse(child.stdout) as Array<{ name: string; code: string; message: string }>
}

describe.each([
  [
    'another operating system',
    "Object.defineProperty(process, 'platform', { value: 'darwin' })",
    {},
    /works on Linux only, this is darwin/,
  ],
  [
    'an architecture without an addon',
    "Object.defineProperty(process, 'arch', { value: 'mips' })",
    { FAKETCP_ADDON: '/nonexistent.node' },
    /linux-mips.*node-gyp rebuild/,
  ],
  ['a broken addon', '', { FAKETCP_ADDON: broken }, /No native addon/],
])('on %s', (_, prelude, env, message) => {
  it('every verb rejects with ERR_FAKETCP_UNSUPPORTED, importing does not fail', () => {
    const results = rejections(prelude, env)
    expect(results.map(({ name, code }) => [name, code])).toEqual(Array(3).fill(['FakeTcpError', 'ERR_FAKETCP_UNSUPPORTED']))
    for (const result of results) expect(result.message).toMatch(message)
  })
})

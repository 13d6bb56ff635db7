import { afterEach, describe, expect, it, vi } from 'vitest'

const NOWHERE = '/nowhere/faketcp.node'

async function freshLoader() {
  vi.resetModules()
  return import('../../lib/native/loader.ts')
}

afterEach(() => {
  vi.unstubAllEnvs()
  vi.unstubAllGlobals()
})

it('loads once', async () => {
  const { loadBinding } = await freshLoader()
  expect(loadBinding()).toBe(loadBinding())
})

it('looks in prebuilds, then in build/Release, of this package', async () => {
  vi.stubEnv('FAKETCP_ADDON', '')
  const { addonPaths } = await freshLoader()
  const root = new URL('../../', import.meta.url).pathname
  expect(addonPaths()).toEqual([
    expect.stringMatching(new RegExp(`^${root}prebuilds/linux-${process.arch}(-musl)?/faketcp\\.node$`)),
    `${root}build/Release/faketcp.node`,
  ])
})

describe('where there is no addon', () => {
  it('importing does not throw; loading throws one error that names the platform, the paths and what to do', async () => {
    vi.stubEnv('FAKETCP_ADDON', NOWHERE)
    const { loadBinding } = await freshLoader()
    expect(loadBinding).toThrow(
      /^No native addon for linux-\w+.* could be loaded\. Tried: \/nowhere\/faketcp\.node \(no such file\)\. Build it with/,
    )
  })

  it('keeps the loader’s own error as the cause', async () => {
    vi.stubEnv('FAKETCP_ADDON', new URL(import.meta.url).pathname.replace('loader.test.ts', 'sanitized.sh'))
    const { loadBinding } = await freshLoader()
    expect(loadBinding).toThrow(expect.objectContaining({ cause: expect.any(Error) }))
  })

  it('says so on another platform', async () => {
    vi.stubEnv('FAKETCP_ADDON', NOWHERE)
    vi.stubGlobal('process', { ...process, env: process.env, platform: 'darwin', arch: 'arm64' })
    const { loadBinding } = await freshLoader()
    expect(loadBinding).toThrow(/on Linux only, this is darwin-arm64/)
  })
})

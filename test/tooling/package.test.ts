// What is published: one build behind import and require, types for both, and nothing that is compiled or run on installation.
import { spawnSync } from 'node:child_process'
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import process from 'node:process'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, it, vi } from 'vitest'

const root = fileURLToPath(new URL('../..', import.meta.url))
let consumer = ''

// Compiling takes its time on a busy machine.
vi.setConfig({ testTimeout: 120_000 })

beforeAll(async () => {
  consumer = await mkdtemp(join(tmpdir(), 'faketcp-consumer-'))
  await mkdir(join(consumer, 'node_modules'))
  await symlink(root, join(consumer, 'node_modules/faketcp'))
  await symlink(join(root, 'node_modules/@types'), join(consumer, 'node_modules/@types'))
})

afterAll(() => rm(consumer, { recursive: true }))

it('gives import and require the same module, without a warning, and its parts the same classes', async () => {
  await writeFile(
    join(consumer, 'both.cjs'),
    "import('faketcp').then((esm) => console.log(require('faketcp').FakeTcpError === esm.FakeTcpError))\n",
  )
  await writeFile(
    join(consumer, 'udp.cjs'),
    "import('faketcp/udp').then(async (udp) => {\n  const root = require('faketcp')\n  const listener = await udp.listen('127.0.0.1:0')\n  console.log(require('faketcp/udp').dial === udp.dial, listener instanceof root.FakeTcpListener, root.dial !== udp.dial)\n  await listener.close()\n})\n",
  )
  expect(node('udp.cjs')).toEqual({ status: 0, stdout: 'true true true\n', stderr: '' })
  await writeFile(
    join(consumer, 'tunnel.cjs'),
    "import('faketcp/tunnel').then(async (tunnel) => {\n  const error = await tunnel.tunnelServer({}).catch((error) => error)\n  console.log(require('faketcp/tunnel').tunnelServer === tunnel.tunnelServer, error instanceof require('faketcp').FakeTcpError)\n})\n",
  )
  expect(node('tunnel.cjs')).toEqual({ status: 0, stdout: 'true true\n', stderr: '' })
  await writeFile(join(consumer, 'require.cjs'), "console.log(typeof require('faketcp').dial)\n")
  expect(node('both.cjs')).toEqual({ status: 0, stdout: 'true\n', stderr: '' })
  expect(node('require.cjs')).toEqual({ status: 0, stdout: 'function\n', stderr: '' })
})

it.each(['nodenext', 'node20'])('has types for import and require (module: %s)', async (module) => {
  const use =
    "const error: FakeTcpError = new FakeTcpError('ERR_FAKETCP_IDLE', 'idle')\nconst opening: Promise<unknown> = dial('10.77.0.2:9191')\n"
  await writeFile(join(consumer, 'esm.mts'), `import { dial, FakeTcpError } from 'faketcp'\n${use}export { error, opening }\n`)
  await writeFile(
    join(consumer, 'cjs.cts'),
    `import faketcp = require('faketcp')\nconst { dial } = faketcp\nconst opening: Promise<unknown> = dial('10.77.0.2:9191')\nexport { opening }\n`,
  )
  const tsc = join(root, 'node_modules/typescript/bin/tsc')
  expect(
    node(tsc, '--noEmit', '--strict', '--target', 'es2023', '--lib', 'es2023,esnext.disposable', '--module', module, 'esm.mts', 'cjs.cts'),
  ).toEqual({
    status: 0,
    stdout: '',
    stderr: '',
  })
})

it('packs the builds, the addon and the documents, and no source or test', () => {
  const { stdout } = spawnSync('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'], { cwd: root, encoding: 'utf8' })
  const [{ files }] = JSON.parse(stdout) as [{ files: { path: string }[] }]
  const paths = files.map(({ path }) => path)
  const expected = [
    'dist/bin/faketcp.js',
    'dist/index.js',
    'dist/index.d.ts',
    'index.cjs',
    'index.d.cts',
    'LICENSE',
    'README.md',
    'CHANGELOG.md',
    'package.json',
  ]
  expect(paths).toEqual(expect.arrayContaining(expected))
  expect(paths).toContainEqual(expect.stringMatching(/^prebuilds\/linux-\w+(-musl)?\/faketcp\.node$/))
  expect(paths.filter((path) => /^(lib|native|test|scripts|examples|bench)\/|binding\.gyp/.test(path))).toEqual([])
})

it('runs nothing when it is installed, and records no registry', async () => {
  const manifest = JSON.parse(await readFile(join(root, 'package.json'), 'utf8'))
  expect(manifest).toMatchObject({ gypfile: false })
  expect(Object.keys(manifest)).not.toContain('os')
  for (const script of ['preinstall', 'install', 'postinstall']) expect(manifest.scripts).not.toHaveProperty(script)
  expect(await readFile(join(root, 'package-lock.json'), 'utf8')).not.toContain('"resolved"')
})

function node(...args: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { cwd: consumer, encoding: 'utf8' })
  return { status, stdout, stderr }
}

// What the README shows works as it stands: its code compiles and runs, its commands exist.
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { createNetwork } from '../support/hosts.ts'
import { headings } from '../support/markdown.ts'
import { ROOT, Running, TSX } from './commands.ts'

let readme: string
/** A project of a user: the README's code in files, the package in node_modules. */
let project: string

/** The README's TypeScript; a block is named by its first line, if that is a file name. */
function blocks(): Map<string, string> {
  const codes = [...readme.matchAll(/^```ts\n(.*?)^```$/gms)].map(([, code]) => code)
  return new Map(codes.map((code, i) => [/^\/\/ (\S+\.ts)\n/.exec(code)?.[1] ?? `block-${i}.ts`, code]))
}

beforeAll(async () => {
  readme = await readFile(`${ROOT}/README.md`, 'utf8')
  project = await mkdtemp(join(tmpdir(), 'faketcp-readme-'))
  await mkdir(join(project, 'node_modules/@types'), { recursive: true })
  await symlink(ROOT, join(project, 'node_modules/faketcp'))
  await symlink(join(ROOT, 'node_modules/@types/node'), join(project, 'node_modules/@types/node'))
  await writeFile(join(project, 'package.json'), '{ "type": "module" }')
  for (const [name, code] of blocks()) await writeFile(join(project, name), code)
})

afterAll(() => rm(project, { recursive: true, force: true }))

it('shows a server and a client that work', async () => {
  await using network = await createNetwork()
  const host = await network.addHost('one')
  const server = new Running(host.spawn(TSX, ['server.ts'], { cwd: project, stdio: ['ignore', 'pipe', 'pipe'] }))
  await server.says(/^listening$/m)
  const client = new Running(host.spawn(TSX, ['client.ts'], { cwd: project, stdio: ['ignore', 'pipe', 'pipe'] }))
  expect(await client.ended()).toBe(0)
  expect(client.output).toBe('hello\n')
  await server.interrupt()
  expect(server.output).toBe('listening\n')
})

it('shows code that compiles', { timeout: 60_000 }, () => {
  expect([...blocks().keys()]).toEqual(['server.ts', 'client.ts', 'block-2.ts', 'block-3.ts', 'block-4.ts'])
  const options = [
    '--noEmit',
    '--strict',
    '--target',
    'ES2022',
    '--lib',
    'ES2023,ESNext.Disposable',
    '--module',
    'NodeNext',
    '--types',
    'node',
  ]
  const { stdout, status } = spawnSync(`${ROOT}/node_modules/.bin/tsc`, [...options, ...blocks().keys()], {
    cwd: project,
    encoding: 'utf8',
  })
  expect(stdout).toBe('')
  expect(status).toBe(0)
})

it('names commands and files that exist', async () => {
  const { scripts } = JSON.parse(await readFile(`${ROOT}/package.json`, 'utf8'))
  for (const [, script] of readme.matchAll(/npm run ([a-z:]+)/g)) expect(scripts).toHaveProperty([script])
  for (const [, path] of readme.matchAll(/npx tsx (examples\/\S+\.ts)/g)) expect(existsSync(join(ROOT, path)), path).toBe(true)
  for (const [, path, heading] of readme.matchAll(/\]\((?!#|https?:)([^)#]+)(?:#([^)]+))?\)/g)) {
    expect(existsSync(join(ROOT, path)), path).toBe(true)
    if (heading !== undefined) expect(headings(await readFile(join(ROOT, path), 'utf8')), path).toContain(heading)
  }
})

it('names error codes and diagnostics channels that exist', async () => {
  const files = (await readdir(`${ROOT}/lib`)).filter((name) => name.endsWith('.ts'))
  const library = (await Promise.all(files.map((name) => readFile(`${ROOT}/lib/${name}`, 'utf8')))).join('\n')
  const names = [...readme.matchAll(/ERR_FAKETCP_[A-Z_]*[A-Z]|faketcp:[a-z:]+/g)].map(([name]) => name)
  expect(names.length).toBeGreaterThan(5)
  for (const name of names) expect(library).toContain(`'${name}'`)
})

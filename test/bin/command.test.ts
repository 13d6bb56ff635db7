// The built command: exit codes, --check, keys. What it does with a running tunnel is in test/e2e/tunnel-command.test.ts.
import { once } from 'node:events'
import { chmod, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { EXIT } from '../../bin/exit-codes.ts'
import { keyFileFinding, keyStrengthFinding, makeKey } from '../../bin/key.ts'
import { faketcp } from './command.ts'

let directory = ''
const file = (name: string) => join(directory, name)

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'faketcp-command-'))
})

afterAll(() => rm(directory, { recursive: true }))

const SERVER = ['tunnel', 'server', '--listen', '127.0.0.1:0', '--to', '127.0.0.1:51820']

describe('exit codes', () => {
  it.each([['--help'], ['--version'], ['tunnel', '--help'], ['doctor', '--help'], ['key', '--help']])('0: %s %s', (...args) => {
    expect(faketcp(args)).toMatchObject({ code: EXIT.ok, stderr: '' })
  })

  it.each<[string[], string]>([
    [['tunel'], "unknown command 'tunel'"],
    [['tunnel', 'server', '--keyfile', 'x'], "unknown option '--keyfile'\n(Did you mean --key-file?)"],
    [['tunnel', 'middle'], 'Allowed choices are server, client'],
    [['tunnel', 'server', '--listen', ':4000', '--to', 'a:1', '--dscp', '64'], '--dscp must be an integer from 0 to 63; got 64'],
    [['tunnel', 'server'], '--listen is missing\n--to is missing'],
    [['tunnel', '--listen', ':4000', '--to', 'a:1'], 'say which end this is'],
    [['tunnel', 'server', '--config', '/nowhere.toml'], '/nowhere.toml: no such file'],
    [[...SERVER, '--key-file', '/nowhere.key'], '/nowhere.key: no such file'],
    [[...SERVER, '--key', 'too short'], "Option 'key' must be"],
  ])('2: %j', (args, message) => {
    const { code, stderr } = faketcp(args)
    expect(stderr).toContain(message)
    expect(code).toBe(EXIT.usage)
  })

  it('3: without CAP_NET_RAW', () => {
    const { code, stderr } = faketcp(SERVER, { capabilities: '-all' })
    expect(stderr).toMatch(/^faketcp: socket EPERM .*CAP_NET_RAW/m)
    expect(code).toBe(EXIT.notPermitted)
  })

  it('4: an address that is taken, and one that is not of this host', async () => {
    const taken = createServer().listen(0, '127.0.0.1')
    await once(taken, 'listening')
    const { port } = taken.address() as AddressInfo
    try {
      expect(faketcp([...SERVER, '--metrics', `127.0.0.1:${port}`])).toMatchObject({ code: EXIT.address })
      expect(faketcp(['tunnel', 'server', '--listen', `127.0.0.1:${port}`, '--to', '127.0.0.1:1'])).toMatchObject({ code: EXIT.address })
      expect(faketcp(['tunnel', 'client', '--listen', '192.0.2.1:5000', '--to', '127.0.0.1:1'])).toMatchObject({ code: EXIT.address })
    } finally {
      taken.close()
    }
  })

  it('5: without an addon', () => {
    expect(faketcp(SERVER, { env: { FAKETCP_ADDON: '/nowhere.node' } })).toMatchObject({ code: EXIT.unsupported })
  })
})

describe('--check', () => {
  it('explains, finds no problem, opens no tunnel and exits with 0', async () => {
    await writeFile(file('good.key'), `${makeKey()}\n`, { mode: 0o600 })
    await writeFile(
      file('client.toml'),
      `role = "client"\nlisten = "127.0.0.1:0"\nto = "localhost:4000"\nkey-file = "good.key"\nflows = 4\n`,
    )
    const { code, stdout, stderr } = faketcp(['tunnel', '--config', file('client.toml'), '--check'])
    expect(stderr).toBe('')
    expect(stdout).toContain(
      'Take UDP datagrams at 127.0.0.1:0, and carry them to the tunnel server at localhost:4000, with 4 flows that the UDP peers share.',
    )
    expect(stdout).toContain('Encrypt and authenticate every message')
    expect(stdout).toMatch(/^ok {7}to {2,}localhost is (127\.0\.0\.1|::1)/m)
    expect(stdout).toMatch(/^ok {7}key file {2,}\S+good\.key, mode 0600$/m)
    expect(stdout).toMatch(/^Everything is in order\.$/m)
    expect(code).toBe(EXIT.ok)
  })

  it('lets the command line overrule the file, a key in one form the key in the other', async () => {
    await writeFile(file('server.toml'), 'role = "server"\nlisten = "127.0.0.1:0"\nto = "127.0.0.1:1"\nkey-file = "nowhere.key"\n')
    const { code, stdout } = faketcp(['tunnel', '--config', file('server.toml'), '--to', '127.0.0.1:2', '--key', makeKey(), '--check'])
    expect(stdout).toContain('to 127.0.0.1:2 by UDP')
    expect(stdout).toMatch(/^warning {2}key {2,}on the command line/m)
    expect(code).toBe(EXIT.ok)
    expect(faketcp(['tunnel', 'client', '--config', file('server.toml'), '--check'])).toMatchObject({ code: EXIT.usage })
  })

  it('exits with 1 where there is a problem: a name, an address, a key, a right', async () => {
    await writeFile(file('weak.key'), 'short', { mode: 0o644 })
    const args = [
      'tunnel',
      'server',
      '--listen',
      '192.0.2.1:4000',
      '--to',
      'no-such-host.invalid:1',
      '--key-file',
      file('weak.key'),
      '--guard',
      'ttl',
      '--check',
    ]
    const { code, stdout } = faketcp(args, { capabilities: '-all' })
    for (const line of [
      /^problem {2}listen .*cannot be taken: EADDRNOTAVAIL$/m,
      /^problem {2}to .*no-such-host\.invalid$/m,
      /^warning {2}key file .*mode 0644: every user of this host can read it$/m,
      /^problem {2}key strength .*5 bytes: too short$/m,
      /^problem {2}CAP_NET_RAW /m,
      /^problem {2}CAP_NET_ADMIN /m,
    ]) {
      expect(stdout).toMatch(line)
    }
    expect(code).toBe(EXIT.failed)
  })

  it('calls an address that is in use no problem: the tunnel that is checked may be running', async () => {
    const taken = createServer().listen(0, '127.0.0.1')
    await once(taken, 'listening')
    try {
      const { port } = taken.address() as AddressInfo
      const { code, stdout } = faketcp(['tunnel', 'server', '--listen', `127.0.0.1:${port}`, '--to', '127.0.0.1:1', '--check'])
      expect(stdout).toMatch(/^warning {2}listen .*EADDRINUSE$/m)
      expect(code).toBe(EXIT.ok)
    } finally {
      taken.close()
    }
  })
})

describe('keys', () => {
  it('are 32 random bytes in base64', () => {
    const keys = [faketcp(['key']), faketcp(['key'])].map(({ stdout }) => stdout)
    for (const key of keys) expect(Buffer.from(key, 'base64')).toHaveLength(32)
    expect(keys[0]).not.toBe(keys[1])
  })

  it('are written for their owner only, and never over another', async () => {
    const path = file('new.key')
    expect(faketcp(['key', '--out', path])).toEqual({ code: EXIT.ok, stdout: '', stderr: '' })
    expect((await stat(path)).mode & 0o777).toBe(0o600)
    const key = await readFile(path, 'utf8')
    expect(keyStrengthFinding(key.trim()).verdict).toBe('ok')
    expect(faketcp(['key', '--out', path])).toMatchObject({ code: EXIT.usage })
    expect(await readFile(path, 'utf8')).toBe(key)
  })

  it.each<[string, string]>([
    ['fifteen bytes..', 'problem'],
    ['correct horse battery staple', 'warning'],
    ['aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'warning'],
    ['0123456789abcdef0123456789abcdef', 'ok'],
    ['yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=', 'ok'],
  ])('%s is judged: %s', (key, verdict) => {
    expect(keyStrengthFinding(key).verdict).toBe(verdict)
  })

  it('in a file that others can read draw a warning when the tunnel starts, those of a group do not', async () => {
    expect([0o600, 0o440, 0o644, 0o604].map((mode) => keyFileFinding('k', mode).verdict)).toEqual(['ok', 'ok', 'warning', 'warning'])
    await writeFile(file('open.key'), makeKey())
    await chmod(file('open.key'), 0o644)
    // It does not start, for want of CAP_NET_RAW; the warning comes first.
    const { stderr } = faketcp([...SERVER, '--key-file', file('open.key')], { capabilities: '-all' })
    expect(stderr).toMatch(/^warning: key: .*open\.key, mode 0644: every user of this host can read it; chmod 600 /m)
  })
})

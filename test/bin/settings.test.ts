// The settings of a tunnel: command line and configuration file take the same, refuse the same, and say so.
import { Command } from 'commander'
import { describe, expect, it } from 'vitest'
import { checkTogether } from '../../bin/settings/check.ts'
import { parseConfig } from '../../bin/settings/config-file.ts'
import { nearest } from '../../bin/settings/nearest.ts'
import { addSettings, writtenSettings } from '../../bin/settings/options.ts'
import { kebab, SETTINGS, type Setting, type SettingName, settingNames, type Values } from '../../bin/settings/schema.ts'

const FILE = '/etc/faketcp/office.toml'

function fromCommandLine(...args: string[]): Values {
  const command = new Command().exitOverride().configureOutput({ writeErr: () => {} })
  addSettings(command)
  command.parse(args, { from: 'user' })
  return writtenSettings(command)
}

const fromFile = (text: string): Values => parseConfig(text, FILE).values

/** A value of each setting: as an option, as TOML, and what both become. */
function sample(name: SettingName, setting: Setting): { args: string[]; toml: string; value: unknown } {
  const key = kebab(name)
  const given = (text: string, value: string | number) => ({ args: [`--${key}`, text], toml: `${key} = ${JSON.stringify(value)}`, value })
  switch (setting.is) {
    case 'address':
      return given('192.0.2.1:4000', '192.0.2.1:4000')
    case 'path':
      return given('/run/key', '/run/key')
    case 'text':
      return given('secret', 'secret')
    case 'integer':
      return given(String(setting.max), setting.max)
    case 'choice':
      return given(setting.of[1], setting.of[1])
    case 'flag':
      return { args: [setting.usually ? `--no-${key}` : `--${key}`], toml: `${key} = ${!setting.usually}`, value: !setting.usually }
  }
}

/** What is no value of it, as an option and as TOML. */
function wrong(setting: Setting): [option: string, toml: string] | undefined {
  switch (setting.is) {
    case 'address':
      return ['not an address', '"not an address"']
    case 'integer':
      return [String(setting.max + 1), String(setting.max + 1)]
    case 'choice':
      return ['none of them', '"none of them"']
    default:
      return undefined
  }
}

describe('each setting', () => {
  it.each(settingNames)('%s means the same as an option and in a file', (name) => {
    const { args, toml, value } = sample(name, SETTINGS[name])
    expect(fromCommandLine(...args)).toEqual({ [name]: value })
    expect(fromFile(toml)).toEqual({ [name]: value })
  })

  const checked = settingNames.filter((name) => wrong(SETTINGS[name]) !== undefined)
  it.each(checked)('%s is refused for the same reason in both', (name) => {
    const [option, toml] = wrong(SETTINGS[name])!
    const reason = (run: () => unknown) => {
      try {
        run()
      } catch (error) {
        return /must be .*/.exec((error as Error).message)?.[0]
      }
      throw new Error('It was taken')
    }
    const inFile = reason(() => fromFile(`${kebab(name)} = ${toml}`))
    expect(inFile).toMatch(/^must be .*; got /)
    expect(reason(() => fromCommandLine(`--${kebab(name)}`, option))).toBe(inFile)
  })

  it('says nothing of what was not written, so that a file, and then the defaults of the library, hold', () => {
    expect(fromCommandLine()).toEqual({})
    expect(fromFile('')).toEqual({})
  })
})

describe('a configuration file', () => {
  it('may say which end it is for', () => {
    expect(parseConfig('role = "client"', FILE).role).toBe('client')
    expect(() => parseConfig('role = "both"', FILE)).toThrow("role must be one of 'server', 'client'")
  })

  it('names every mistake, and for an unknown key the nearest known one', () => {
    const text = 'keyfile = "a"\nidle_timeout_ms = 5\ndscp = "46"\nflow = 2\n[tunnel]\nx = 1'
    expect(() => parseConfig(text, FILE)).toThrow(
      [
        `${FILE}: unknown key 'keyfile'; the nearest known one is 'key-file'`,
        `${FILE}: unknown key 'idle_timeout_ms'; the nearest known one is 'idle-timeout-ms'`,
        `${FILE}: dscp must be an integer from 0 to 63; got '46'`,
        `${FILE}: unknown key 'flow'; the nearest known one is 'flows'`,
        `${FILE}: unknown key 'tunnel'; the nearest known one is '${nearest('tunnel', ['role', ...settingNames.map(kebab)])}'`,
      ].join('\n'),
    )
  })

  it('that is no TOML is told by line and column, without its text', () => {
    expect(() => parseConfig('listen = ":4000"\nkey = "secret\n', FILE)).toThrow(new RegExp(`^${FILE}:2:\\d+: [^\\n]*$`))
  })

  it('does not show the key that it refuses', () => {
    expect(() => parseConfig('key = 12345', FILE)).toThrow('key must be a text that is not empty; got something else')
  })

  it('takes a path as relative to itself', () => {
    expect(fromFile('key-file = "office.key"')).toEqual({ keyFile: '/etc/faketcp/office.key' })
  })
})

it('the nearest word allows for typing mistakes, missing dashes and other cases', () => {
  const known = settingNames.map(kebab)
  expect(['lsiten', 'keyFile', 'KEY_FILE', 'keepalive', 'metric', 'dcsp'].map((word) => nearest(word, known))).toEqual([
    'listen',
    'key-file',
    'key-file',
    'keep-alive-ms',
    'metrics',
    'dscp',
  ])
})

describe('settings together', () => {
  const good: Values = { listen: ':4000', to: 'example.net:51820' }
  const problems = (values: Values, role: 'server' | 'client' = 'server') =>
    checkTogether(role, { ...good, ...values }, (name) => `--${name}`)

  it('need listen and to, and no more', () => {
    expect(problems({})).toEqual([])
    expect(checkTogether('server', {}, (name) => name)).toEqual(['listen is missing', 'to is missing'])
  })

  it.each<[Values, string]>([
    [{ to: 'example.net:0' }, "--to needs a port from 1 to 65535; got 'example.net:0'"],
    [{ key: 'a', keyFile: 'b' }, '--key and --key-file exclude each other'],
    [{ cipher: 'aes-256-gcm' }, '--cipher needs --key-file'],
    [{ firewall: 'nftables' }, '--firewall needs --guard ttl'],
    [{ capture: 'raw', link: 'packet' }, '--link packet does not go with --capture raw'],
    [{ flows: 2 }, '--flows is for a client, not for a server'],
  ])('%j are refused', (values, problem) => {
    expect(problems(values)).toEqual([problem])
  })

  it('of a client may say how many flows', () => {
    expect(problems({ flows: 2, connectTimeoutMs: 100 }, 'client')).toEqual([])
  })
})

// Whether a setting's value is right, for the command line and for files alike: what is found wrong is said in one line for each.
import { parseHostPort } from '../../lib/address.ts'
import { expectation, kebab, type Role, SETTINGS, type Setting, type SettingName, type Values } from './schema.ts'

/**
 * Adds a checked value, or says what is wrong with it.
 *
 * @param shown how the setting is written where the value comes from: `--key-file`, or `key-file`
 */
export function addValue(values: Values, name: SettingName, value: unknown, shown: string, problems: string[]): void {
  if (isRight(SETTINGS[name], value)) Object.assign(values, { [name]: value })
  else problems.push(`${shown} must be ${expectation(SETTINGS[name])}; got ${describe(name, value)}`)
}

function isRight(setting: Setting, value: unknown): boolean {
  switch (setting.is) {
    case 'address':
      return typeof value === 'string' && isAddress(value)
    case 'path':
    case 'text':
      return typeof value === 'string' && value !== ''
    case 'integer':
      return typeof value === 'number' && Number.isInteger(value) && value >= setting.min && value <= setting.max
    case 'choice':
      return typeof value === 'string' && setting.of.includes(value)
    case 'flag':
      return typeof value === 'boolean'
  }
}

function isAddress(text: string): boolean {
  try {
    parseHostPort(text)
    return true
  } catch {
    return false
  }
}

/** A key is not for logs. */
function describe(name: SettingName, value: unknown): string {
  if (name === 'key') return 'something else'
  if (typeof value === 'string') return `'${value}'`
  return typeof value === 'object' && value !== null ? (Array.isArray(value) ? 'an array' : 'a table') : String(value)
}

/** What is wrong with settings that are right one by one. `shown`: how they are written where the user looks. */
export function checkTogether(role: Role, values: Values, shown: (name: string) => string): string[] {
  const problems: string[] = []
  for (const name of ['listen', 'to'] as const) if (values[name] === undefined) problems.push(`${shown(name)} is missing`)
  for (const name of ['to', 'metrics'] as const) {
    const address = values[name]
    if (address !== undefined && parseHostPort(address).port === 0)
      problems.push(`${shown(name)} needs a port from 1 to 65535; got '${address}'`)
  }
  if (values.key !== undefined && values.keyFile !== undefined) problems.push(`${shown('key')} and ${shown('key-file')} exclude each other`)
  const keyed = values.key !== undefined || values.keyFile !== undefined
  if (!keyed && values.cipher !== undefined && values.cipher !== 'auto') problems.push(`${shown('cipher')} needs ${shown('key-file')}`)
  if (values.firewall !== undefined && values.guard !== 'ttl') problems.push(`${shown('firewall')} needs ${shown('guard')} ttl`)
  if (values.capture === 'raw' && values.link === 'packet')
    problems.push(`${shown('link')} packet does not go with ${shown('capture')} raw`)
  for (const name of Object.keys(values) as SettingName[]) {
    const { role: only }: Setting = SETTINGS[name]
    if (only !== undefined && only !== role) problems.push(`${shown(kebab(name))} is for a ${only}, not for a ${role}`)
  }
  return problems
}

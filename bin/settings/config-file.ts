// Configuration files: TOML whose keys are the options of the command line without their dashes. Every mistake in a file is told at once.
import { readFileSync, statSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { parse, TomlError } from 'smol-toml'
import { readNamed, UsageError } from '../exit-codes.ts'
import { addValue } from './check.ts'
import { nearest } from './nearest.ts'
import { kebab, ROLES, type Role, SETTINGS, settingNames, type Values } from './schema.ts'

export interface ConfigFile {
  readonly role: Role | undefined
  readonly values: Values
  /** Permission bits: a file with a key in it is to be as secret as a key file. */
  readonly mode: number
}

/** @throws UsageError for what is wrong in it, or that it is not there; EACCES */
export function readConfigFile(path: string): ConfigFile {
  const [text, mode] = readNamed(path, () => [readFileSync(path, 'utf8'), statSync(path).mode & 0o777] as const)
  return { ...parseConfig(text, path), mode }
}

/** @param path for messages, and for what is relative to it */
export function parseConfig(text: string, path: string): Omit<ConfigFile, 'mode'> {
  const values: Values = {}
  const problems: string[] = []
  let role: Role | undefined
  for (const [key, value] of Object.entries(readToml(text, path))) {
    const name = settingNames.find((one) => kebab(one) === key)
    if (key === 'role') {
      role = ROLES.find((one) => one === value)
      if (role === undefined) problems.push(`role must be one of ${ROLES.map((one) => `'${one}'`).join(', ')}`)
    } else if (name === undefined) {
      problems.push(`unknown key '${key}'; the nearest known one is '${nearest(key, ['role', ...settingNames.map(kebab)])}'`)
    } else addValue(values, name, value, key, problems)
  }
  if (problems.length > 0) throw new UsageError(problems.map((problem) => `${path}: ${problem}`).join('\n'))
  for (const name of settingNames) {
    const value = values[name]
    if (SETTINGS[name].is === 'path' && typeof value === 'string') Object.assign(values, { [name]: resolve(dirname(path), value) })
  }
  return { role, values }
}

function readToml(text: string, path: string): Record<string, unknown> {
  try {
    return parse(text)
  } catch (error) {
    if (!(error instanceof TomlError)) throw error
    // The message's further lines show the place in the file, which may hold a key.
    throw new UsageError(`${path}:${error.line}:${error.column}: ${error.message.split('\n')[0]}`)
  }
}

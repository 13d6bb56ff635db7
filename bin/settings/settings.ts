// What a tunnel is to be: the configuration file, overruled by the command line, checked as a whole.
import { UsageError } from '../exit-codes.ts'
import { checkTogether } from './check.ts'
import type { Role, Values } from './schema.ts'

export interface Settings extends Values {
  readonly listen: string
  readonly to: string
  readonly role: Role
  /** The configuration file and its permission bits, where the key itself stands in it. */
  readonly keyIn: { readonly path: string; readonly mode: number } | undefined
}

/**
 * @param role as on the command line
 * @throws UsageError
 */
export async function resolveSettings(role: Role | undefined, written: Values, path: string | undefined): Promise<Settings> {
  const file = path === undefined ? undefined : (await import('./config-file.ts')).readConfigFile(path)
  const fromFile: Values = { ...file?.values }
  // A key is one setting in two forms.
  if (written.key !== undefined || written.keyFile !== undefined) {
    delete fromFile.key
    delete fromFile.keyFile
  }
  if (role !== undefined && file?.role !== undefined && role !== file.role) {
    throw new UsageError(`${path}: role is '${file.role}', the command line says '${role}'`)
  }
  const settled = role ?? file?.role
  if (settled === undefined)
    throw new UsageError("say which end this is: 'faketcp tunnel server' or 'faketcp tunnel client', or role in the configuration file")
  const values: Values = { ...fromFile, ...written }
  const problems = checkTogether(settled, values, (name) => (path === undefined ? `--${name}` : name))
  const { listen, to } = values
  if (problems.length > 0 || listen === undefined || to === undefined) throw new UsageError(problems.join('\n'))
  const keyIn = path !== undefined && file !== undefined && fromFile.key !== undefined ? { path, mode: file.mode } : undefined
  return { ...values, listen, to, role: settled, keyIn }
}

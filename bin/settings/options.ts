// The settings as options of a commander command, and what was written for them.
import { type Command, InvalidArgumentError, Option } from 'commander'
import { addValue } from './check.ts'
import { kebab, SETTINGS, type Setting, type SettingName, settingNames, type Values } from './schema.ts'

export function addSettings(command: Command): void {
  for (const name of settingNames) command.addOption(toOption(name, SETTINGS[name]))
}

function toOption(name: SettingName, setting: Setting): Option {
  const notes = [
    setting.role === undefined ? '' : `${setting.role} only`,
    setting.standard === undefined ? '' : `default: ${setting.standard}`,
  ]
  const help = [setting.help, ...notes.filter(Boolean).map((note) => `(${note})`)].join(' ')
  const flag = `--${kebab(name)}`
  switch (setting.is) {
    case 'flag':
      return setting.usually ? new Option(`--no-${kebab(name)}`, `do not ${help}`) : new Option(flag, help)
    case 'choice':
      return new Option(`${flag} <which>`, `${help}: ${setting.of.join(', ')}`).argParser(parserOf(name, flag, (text) => text))
    case 'integer':
      return new Option(`${flag} <${setting.placeholder}>`, help).argParser(
        parserOf(name, flag, (text) => (/^\d+$/.test(text) ? Number(text) : text)),
      )
    default:
      return new Option(`${flag} <${setting.placeholder}>`, help).argParser(parserOf(name, flag, (text) => text))
  }
}

/** The check of configuration files, for one option. */
function parserOf(name: SettingName, flag: string, read: (text: string) => unknown): (text: string) => unknown {
  return (text) => {
    const values: Values = {}
    const problems: string[] = []
    addValue(values, name, read(text), flag, problems)
    if (problems.length > 0) throw new InvalidArgumentError(problems[0])
    return values[name]
  }
}

/** What stands on the command line, defaults left out. */
export function writtenSettings(command: Command): Values {
  const values: Values = {}
  for (const name of settingNames) {
    if (command.getOptionValueSource(name) === 'cli') Object.assign(values, { [name]: command.getOptionValue(name) })
  }
  return values
}

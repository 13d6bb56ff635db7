// npm run compare: what tells a connection of ours from one of two kernels, field by field. Root.
import process from 'node:process'
import { compare, differs } from './compare.ts'
import { type Family, recordedConversation } from './traffic.ts'

for (const family of [4, 6] as Family[]) {
  const findings = compare(await recordedConversation(family, 'kernel'), await recordedConversation(family, 'ours'))
  process.stdout.write(`IPv${family}: ${findings.filter(differs).length} of ${findings.length} fields differ\n`)
  for (const finding of findings) {
    const { field, kernel, ours } = finding
    process.stdout.write(
      differs(finding)
        ? `  DIFFERS  ${field}\n             kernel: ${kernel}\n             ours:   ${ours}\n`
        : `  equal    ${field}: ${kernel}\n`,
    )
  }
}

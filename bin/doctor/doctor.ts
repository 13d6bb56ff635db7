// `faketcp doctor`: whether this machine can do what the library needs, found out by trying, and what to do where it cannot.
import { type Finding, formatFindings, hasProblem, summarizeFindings } from '../findings.ts'
import { capabilityFindings, readCapabilities } from './capabilities.ts'
import { deviceFindings, listDevices } from './devices.ts'
import { firewallFindings } from './firewall.ts'
import { kernelFinding, loadAddon, nodeFinding } from './machine.ts'
import { connectionFinding, repairFinding, socketFindings, udpFinding } from './sockets.ts'
import { sysctlFindings } from './sysctls.ts'

export interface Section {
  readonly title: string
  readonly findings: readonly Finding[]
}

export async function diagnose(): Promise<Section[]> {
  const kernel = kernelFinding()
  const { binding, finding: addon } = loadAddon()
  const machine: Section = { title: 'Machine', findings: [nodeFinding(), kernel, addon] }
  if (kernel.verdict === 'problem') return [machine]
  const capabilities = readCapabilities()
  const sections: Section[] = [machine, { title: 'Capabilities', findings: capabilityFindings(capabilities) }]
  if (binding !== undefined) {
    // One at a time: what one of them captures would be strange to another.
    const findings = socketFindings(binding)
    findings.push(udpFinding(binding))
    findings.push(await repairFinding(binding))
    findings.push(await connectionFinding())
    sections.push({ title: 'Sockets', findings }, { title: 'Devices (offloads)', findings: deviceFindings(listDevices(binding)) })
  }
  sections.push({ title: 'Firewall tools', findings: await firewallFindings() })
  sections.push({ title: 'Kernel settings', findings: sysctlFindings(capabilities) })
  return sections.filter(({ findings }) => findings.length > 0)
}

export function formatDiagnosis(sections: readonly Section[], { colour }: { readonly colour: boolean }): string {
  const all = sections.flatMap(({ findings }) => findings)
  return [...sections.map(({ title, findings }) => `${title}\n${formatFindings(findings, { colour })}\n`), summarizeFindings(all)].join(
    '\n',
  )
}

/** `{ ok, findings: [{ section, subject, verdict, found, advice? }] }` */
export function diagnosisJson(sections: readonly Section[]): string {
  const findings = sections.flatMap(({ title, findings }) => findings.map((finding) => ({ section: title, ...finding })))
  return JSON.stringify({ ok: !hasProblem(findings), findings }, undefined, 2)
}

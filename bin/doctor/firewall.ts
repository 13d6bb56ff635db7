// The firewall tools, which only the guard 'ttl' needs.
import { tryTool } from '../../lib/carrier/firewall-tool.ts'
import { type Finding, ok, warning } from '../findings.ts'

const TOOLS = ['nft', 'iptables', 'ip6tables']

export async function firewallFindings(): Promise<Finding[]> {
  const results = await Promise.all(TOOLS.map((tool) => tryTool(tool, ['--version'])))
  const works = new Map(TOOLS.map((tool, i) => [tool, 'stdout' in results[i]]))
  const enough = works.get('nft') || (works.get('iptables') && works.get('ip6tables'))
  return results.map((result, i) => {
    const tool = TOOLS[i]
    if ('stdout' in result) return ok(tool, result.stdout.trim().split('\n')[0])
    if (enough) return ok(tool, `${result.why}; guard 'ttl' can be had without it`)
    return warning(
      tool,
      `${result.why}; guard 'ttl' cannot be had. The default guard 'filter' needs no tool`,
      "nothing, unless you want guard 'ttl': then install nftables, or iptables with ip6tables",
    )
  })
}

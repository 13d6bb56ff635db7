// Everything that the bench can set side by side, by name and by what it is. No measuring here.

export const LINKS = ['raw', 'packet', 'auto'] as const
/** How faketcp sends: its option `link`. */
export type Link = (typeof LINKS)[number]

export const INTERFACES = ['stream', 'batch'] as const
/** `stream`: write() and 'data', a Buffer for each message. `batch`: sendTrain() and 'train', a Buffer for many. */
export type Interface = (typeof INTERFACES)[number]

export const LOADS = ['dgram', 'iperf3', 'udp'] as const
/** What goes through a tunnel: Node's own UDP, iperf3, or the library's UDP in trains. */
export type ToolLoad = (typeof LOADS)[number]

/** One end of a tunnel. Every word may hold placeholders. */
export interface ToolEnd {
  /** Commands that prepare the host (addresses, rules, sysctls), which is gone afterwards. */
  readonly setup: readonly (readonly string[])[]
  readonly command: readonly string[]
  /** The program is ready when its output matches. */
  readonly ready?: RegExp
}

export interface Tool {
  readonly name: string
  /** What goes in: datagrams, or a byte stream. */
  readonly carries: 'udp' | 'tcp'
  readonly maxFlows: number
  /** Bytes. */
  readonly maxMessageSize: number
  readonly server: ToolEnd
  readonly client: ToolEnd
}

export type FaketcpSpec = { readonly is: 'faketcp'; readonly link: Link; readonly interface: Interface }
export type UdpSpec = { readonly is: 'udp'; readonly interface: Interface }
/** What a Node process at each end plays. */
export type NodeSpec = FaketcpSpec | UdpSpec | { readonly is: 'dgram' } | { readonly is: 'net' }
export type ToolSpec = { readonly is: 'tool'; readonly tool: Tool; readonly load: ToolLoad }
export type Spec = NodeSpec | { readonly is: 'iperf3'; readonly protocol: 'udp' | 'tcp' } | ToolSpec

export function nameOf(spec: Spec): string {
  switch (spec.is) {
    case 'faketcp':
      return `faketcp ${spec.link}${spec.interface === 'batch' ? ' batch' : ''}`
    case 'udp':
      return `faketcp/udp${spec.interface === 'batch' ? ' batch' : ''}`
    case 'iperf3':
      return `iperf3 ${spec.protocol}`
    case 'tool':
      return spec.load === 'dgram' || spec.tool.carries === 'tcp' ? spec.tool.name : `${spec.tool.name} ${spec.load}`
    default:
      return spec.is
  }
}

/** By its name, as figures carry nothing else. */
export function isOurs(name: string): boolean {
  return name.startsWith('faketcp ') || name.startsWith('faketcp/')
}

/** False where messages are bytes of a stream, divided by their size. */
export function keepsBoundaries(spec: Spec): boolean {
  switch (spec.is) {
    case 'net':
      return false
    case 'iperf3':
      return spec.protocol === 'udp'
    case 'tool':
      return spec.tool.carries === 'udp'
    default:
      return true
  }
}

// The settings of `faketcp tunnel`, each written down once: its option on the command line, its key in a configuration file, its check and its
// help all come from here, so they cannot differ.

interface Common {
  /** For --help and the reference, without a full stop. */
  readonly help: string
  /** Shown in --help; what holds where nothing is said. */
  readonly standard?: string
  /** Only this end knows it. */
  readonly role?: 'client'
}

/** How a setting is written and checked. Paths are text that, in a file, is relative to the file's directory. */
export type Setting = Common &
  (
    | { readonly is: 'address' | 'path' | 'text'; readonly placeholder: string }
    | { readonly is: 'integer'; readonly placeholder: string; readonly min: number; readonly max: number }
    | { readonly is: 'choice'; readonly of: readonly string[] }
    | { readonly is: 'flag'; readonly usually: boolean }
  )

const WEEK_MS = 7 * 24 * 3_600_000

/** In the order of --help. */
export const SETTINGS = {
  listen: { is: 'address', placeholder: 'host:port', help: 'server: where flows are accepted; client: where UDP peers send to' },
  to: { is: 'address', placeholder: 'host:port', help: 'server: the UDP service; client: the tunnel server' },
  keyFile: { is: 'path', placeholder: 'file', help: 'pre-shared key, the same at both ends; without one nothing is encrypted' },
  key: { is: 'text', placeholder: 'text', help: 'the key itself; on a command line other users of this host can see it' },
  cipher: { is: 'choice', of: ['auto', 'aes-256-gcm', 'chacha20-poly1305'], standard: 'auto', help: 'with a key' },
  flows: {
    is: 'integer',
    placeholder: 'n',
    min: 0,
    max: 256,
    standard: '0',
    role: 'client',
    help: 'all UDP peers share n flows; 0: each has one of its own',
  },
  connectTimeoutMs: {
    is: 'integer',
    placeholder: 'ms',
    min: 1,
    max: WEEK_MS,
    standard: '5000',
    role: 'client',
    help: 'for one attempt to open a flow; it is repeated without end',
  },
  idleTimeoutMs: {
    is: 'integer',
    placeholder: 'ms',
    min: 1,
    max: WEEK_MS,
    standard: '180000',
    help: 'a UDP conversation without a datagram for so long is forgotten',
  },
  maxPeers: { is: 'integer', placeholder: 'n', min: 1, max: 65_535, standard: '4096', help: 'UDP conversations at once' },
  receiveBufferBytes: {
    is: 'integer',
    placeholder: 'bytes',
    min: 4096,
    max: 2 ** 30,
    standard: 'client 8 MiB, server 1 MiB for each conversation',
    help: 'receive buffer of UDP sockets',
  },
  link: { is: 'choice', of: ['auto', 'packet', 'raw'], standard: 'auto', help: 'how packets are sent: by AF_PACKET or by IP raw socket' },
  capture: { is: 'choice', of: ['auto', 'packet', 'raw'], standard: 'auto', help: 'how packets are captured' },
  guard: {
    is: 'choice',
    of: ['filter', 'ttl'],
    standard: 'filter',
    help: "what keeps the kernel's own sockets mute; ttl adds a firewall rule",
  },
  firewall: { is: 'choice', of: ['auto', 'nftables', 'iptables'], standard: 'auto', help: 'with guard ttl: which tool makes the rule' },
  keepAliveMs: {
    is: 'integer',
    placeholder: 'ms',
    min: 0,
    max: WEEK_MS,
    standard: '45000',
    help: 'after so long without a sign of the other end it is asked for one; 0: never',
  },
  dscp: { is: 'integer', placeholder: 'n', min: 0, max: 63, standard: '0', help: 'differentiated services code point of every packet' },
  strict: { is: 'flag', usually: true, help: 'drop segments that do not show that their sender sees ours (acknowledgement, timestamp)' },
  graceMs: {
    is: 'integer',
    placeholder: 'ms',
    min: 0,
    max: WEEK_MS,
    standard: '3000',
    help: 'how long the end may take after SIGTERM or SIGINT',
  },
  metrics: { is: 'address', placeholder: 'host:port', help: 'serve Prometheus metrics there, at /metrics' },
  status: {
    is: 'flag',
    usually: false,
    help: 'show flows, rates, loss and drops, each second on a terminal, each 10 s as a line elsewhere',
  },
  verbose: { is: 'flag', usually: false, help: 'log each flow that opens or ends' },
} as const satisfies Readonly<Record<string, Setting>>

export type SettingName = keyof typeof SETTINGS

type ValueOf<S extends Setting> = S extends { is: 'integer' }
  ? number
  : S extends { is: 'flag' }
    ? boolean
    : S extends { is: 'choice'; of: readonly (infer C)[] }
      ? C
      : string

/** What was said; what was not is left out, so that a file can be overruled and the library's own defaults hold. */
export type Values = { -readonly [N in SettingName]?: ValueOf<(typeof SETTINGS)[N]> }

export const ROLES = ['server', 'client'] as const
export type Role = (typeof ROLES)[number]

export const settingNames = Object.keys(SETTINGS) as SettingName[]

/** `keyFile` is `key-file` on the command line and in a file. */
export function kebab(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)
}

/** What a setting must be, for messages. */
export function expectation(setting: Setting): string {
  switch (setting.is) {
    case 'address':
      return "an address such as '192.0.2.1:4000', 'example.net:4000' or '[2001:db8::1]:4000'"
    case 'path':
    case 'text':
      return 'a text that is not empty'
    case 'integer':
      return `an integer from ${setting.min} to ${setting.max}`
    case 'choice':
      return `one of ${setting.of.map((one) => `'${one}'`).join(', ')}`
    case 'flag':
      return 'true or false'
  }
}

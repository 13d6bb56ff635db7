// The ttl guard: what a carrier's kernel socket sends is marked, with TTL or hop limit 1, and a rule of the host's firewall drops exactly that. One
// rule serves all flows of a thread; it is there before the first carrier needs it, and goes with the last holder. It knows no flow.
import { readFileSync } from 'node:fs'
import process from 'node:process'
import { EPERM, FakeTcpError, fromNative, systemError } from '../errors.ts'
import type { NativeCarrier } from '../native/binding.ts'
import type { Firewall, FirewallRule } from './firewall-tool.ts'
import { openIptablesRule } from './iptables-rule.ts'
import { openNftRule } from './nft-rule.ts'

export type { Firewall }

/**
 * SO_MARK of all carriers with this guard, in every process: each rule covers them all, and none names anybody else's packets.
 * 'ftcp' in ASCII; whoever routes by marks sees it on packets that are dropped.
 */
const MARK = 0x66746370
/** capabilities(7) */
const CAP_NET_ADMIN = 12n
const NET_ADMIN_HINT = "guard 'ttl' needs the capability CAP_NET_ADMIN, for the mark of its sockets and for the firewall rule"
/** A rule that was gone sooner than that is not replaced before somebody asks for it. */
const STOOD_MS = 1000

export class TtlGuard {
  readonly #make: (mark: number, onGone: () => void) => Promise<FirewallRule>
  #holders = 0
  #rule: FirewallRule | undefined
  #opening: Promise<void> | undefined

  constructor(make: (mark: number, onGone: () => void) => Promise<FirewallRule>) {
    this.#make = make
  }

  /** The rule is there. */
  get standing(): boolean {
    return this.#rule?.standing === true
  }

  /**
   * Resolves when the rule is there, and with one holder more.
   *
   * @throws (rejects) `ERR_FAKETCP_GUARD`
   */
  async open(): Promise<this> {
    this.hold()
    try {
      await this.#stand()
      return this
    } catch (error) {
      this.release()
      throw error
    }
  }

  /** The rule stays, until as many calls of `release`. */
  hold(): void {
    this.#holders++
  }

  release(): void {
    if (--this.#holders === 0) this.#drop()
  }

  /**
   * What a connected carrier sends from here on is dropped by the rule. Where somebody has taken the rule away nothing is done: its filter mutes it.
   *
   * @throws `EPERM` without CAP_NET_ADMIN, which the process may have given up meanwhile
   */
  quieten(carrier: NativeCarrier, where: { address: string; port: number }): void {
    if (!this.standing) return
    try {
      carrier.quieten(MARK)
    } catch (error) {
      throw fromNative(error, where, { [EPERM]: NET_ADMIN_HINT })
    }
  }

  async #stand(): Promise<void> {
    if (this.standing) return
    this.#opening ??= this.#raise().finally(() => {
      this.#opening = undefined
    })
    await this.#opening
  }

  async #raise(): Promise<void> {
    let stoodAt = Number.POSITIVE_INFINITY
    const rule = await this.#make(MARK, () => {
      forget(rule)
      if (this.#holders === 0 || performance.now() - stoodAt < STOOD_MS) return
      // Where that fails, the next dial or listen tries again and says why.
      this.#stand().catch(() => {})
    })
    stoodAt = performance.now()
    this.#rule = rule
    remember(rule)
    if (this.#holders === 0) this.#drop()
  }

  #drop(): void {
    const rule = this.#rule
    if (rule === undefined) return
    this.#rule = undefined
    rule.close()
    forget(rule)
  }
}

/** Of this thread. */
const rules = new Set<FirewallRule>()
const guards: Record<Firewall, TtlGuard> = { nftables: new TtlGuard(openNftRule), iptables: new TtlGuard(openIptablesRule) }

function remember(rule: FirewallRule): void {
  if (rules.size === 0) process.on('exit', removeAll)
  rules.add(rule)
}

function forget(rule: FirewallRule): void {
  if (rules.delete(rule) && rules.size === 0) process.off('exit', removeAll)
}

function removeAll(): void {
  for (const rule of rules) rule.closeNow()
}

/**
 * Gives the guard once its rule is there; the caller is a holder and calls `release`.
 *
 * @param firewall 'auto': nftables where it works, else iptables
 * @throws (rejects) `ERR_FAKETCP_GUARD` with what the tools said, `EPERM` without CAP_NET_ADMIN
 */
export async function openTtlGuard(firewall: Firewall | 'auto'): Promise<TtlGuard> {
  if (!mayAdministerNetwork()) throw systemError(EPERM, 'setsockopt', {}, NET_ADMIN_HINT)
  if (firewall !== 'auto') return guards[firewall].open()
  // Once iptables had to serve, no dial waits for nft again.
  if (guards.iptables.standing && !guards.nftables.standing) return guards.iptables.open()
  let first: unknown
  try {
    return await guards.nftables.open()
  } catch (error) {
    first = error
  }
  try {
    return await guards.iptables.open()
  } catch (error) {
    if (!(first instanceof FakeTcpError) || !(error instanceof FakeTcpError)) throw error
    throw new FakeTcpError('ERR_FAKETCP_GUARD', `${first.message}. ${error.message}`, { cause: error })
  }
}

/** Where /proc does not say, the tools will. */
function mayAdministerNetwork(): boolean {
  try {
    const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/thread-self/status', 'latin1'))
    return effective === null || ((BigInt(`0x${effective[1]}`) >> CAP_NET_ADMIN) & 1n) === 1n
  } catch {
    return true
  }
}

// By which link a flow's segments leave, and why: by packet where somebody knows the next hop and the peer can take it, else by IP raw socket.
// It asks nobody: what it goes by is kept up to date by the path.
import type { Path } from '../link/next-hops.ts'

export class LinkChoice {
  #path: Path | undefined
  #why: string | undefined = 'not open yet'
  /** Bytes of the longest IP packet that the flow sends. */
  longest = 0
  /** The peer captures by AF_PACKET, as it has told. */
  peerSplitsTrains = false

  get path(): Path | undefined {
    return this.#path
  }

  /** The handshake is complete. */
  take(path: Path): void {
    this.#path = path
  }

  /** There will be no path: the flow sends by raw socket, for this reason. */
  refuse(why: string): void {
    this.#why = why
  }

  /** Row of the hop to send by packet; -1: by raw socket. */
  get hop(): number {
    const path = this.#path
    if (path === undefined || path.hop < 0) return -1
    // On the same host IP itself takes a packet with no route attached for a martian (ip_route_input_slow): only AF_PACKET sees it arrive.
    if (path.local && !this.peerSplitsTrains) return -1
    // The device would take what is too long for it; a raw socket says EMSGSIZE.
    if (path.mtu > 0 && path.mtu < this.longest) return -1
    return path.hop
  }

  /** Why segments leave by raw socket; undefined where they do not. */
  get why(): string | undefined {
    const path = this.#path
    if (path === undefined) return this.#why
    if (path.hop < 0) return path.why
    if (path.local && !this.peerSplitsTrains) return 'the peer is on this host and does not capture by AF_PACKET'
    if (path.mtu > 0 && path.mtu < this.longest) return `the MTU of the interface is ${path.mtu} now, the longest packet ${this.longest}`
    return undefined
  }

  /** The flow has ended; what was said last stays true. */
  release(): void {
    this.#why = this.hop >= 0 ? undefined : this.why
    this.#path?.release()
    this.#path = undefined
  }
}

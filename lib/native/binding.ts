// What the native addon offers, as types. It knows sockets and packet bytes; it takes no options beyond these and decides nothing.

/**
 * Every function that makes a system call throws an `Error` with `errno` (negative, as in libuv), `code` ('EPERM', ...) and `syscall`.
 * Programs are arrays of `struct sock_filter` in host byte order (8 bytes an instruction), as `lib/wire/bpf.ts` assembles them.
 * Callbacks run on the thread that made the object, each inside a callback scope, so that ticks and microtasks run after it.
 */
export interface Binding {
  readonly Capture: new (options: CaptureOptions) => NativeCapture
  readonly PacketSender: new (options: SenderOptions) => NativePacketSender
  readonly RawSender: new (options: RawSenderOptions) => NativeSender
  readonly Carrier: new (options: CarrierOptions) => NativeCarrier
  readonly CarrierListener: new (options: CarrierListenerOptions) => NativeCarrierListener
  readonly CarrierInbox: new (options: CarrierInboxOptions) => NativeCarrierInbox
  readonly RouteSocket: new (options: RouteSocketOptions) => NativeRouteSocket
  /** @param pid a child of this process */
  readonly OwnedChild: new (
    pid: number,
  ) => NativeOwnedChild
  readonly PathReports: new (options: PathReportsOptions) => NativePathReports
  readonly UdpSocket: new (options: UdpSocketOptions) => NativeUdpSocket
  /** Throws an `Error` with the code 'ENOTSUP' where the process has no OpenSSL or it refuses the cipher. */
  readonly TunnelCodec: new (
    options: TunnelCodecOptions,
  ) => NativeTunnelCodec
  /** Writes the four words of the source address that the host would use towards `address` (`getsockname` of a connected datagram socket)
   * into `out`, and returns the path MTU known for it (IP_MTU), or 0. With the destination local, source and destination are equal. */
  sourceAddress(address: string, out: Int32Array): number
  /** Reads the four words of an address; returns false if the text is none. `fe80::1%eth0` is accepted, the zone is left out. */
  parseAddress(address: string, out: Int32Array): boolean
  /** Whether an interface merges segments without keeping their sizes (`ethtool -k`: large-receive-offload). False where nobody knows. */
  largeReceiveOffload(ifindex: number): boolean
  /** What an interface has switched on: OFFLOAD_* bits, or a negative errno. */
  offloads(ifindex: number): number
  /** The constants of native/layout.h by name, for the test that compares them with lib/native/layout.ts. */
  readonly layout: Readonly<Record<string, number>>
}

export interface CaptureOptions {
  /** `packet`: AF_PACKET SOCK_RAW with PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING and PACKET_AUXDATA on every interface, ETH_P_IP or ETH_P_IPV6.
   * `raw`: an IP raw socket of protocol TCP. */
  readonly mode: 'packet' | 'raw'
  readonly family: 4 | 6
  readonly program: Uint8Array
  /** SO_RCVBUFFORCE, else SO_RCVBUF. */
  readonly receiveBufferBytes: number
  /** Received packets lie here, `slots` of `slotBytes` each; overwritten by the next read, so whatever is to be kept is copied in `onBatch`. */
  readonly slab: Uint8Array
  readonly slots: number
  /** At least 65 535 + link header + virtio header; 66 000 is right. */
  readonly slotBytes: number
  /** `slots * D_WORDS` words. */
  readonly descriptors: Int32Array
  /** `CAPTURE_COUNTERS` numbers, only ever increased. */
  readonly counters: Float64Array
  /** Once for each recvmmsg that brought at least one well-formed packet: that many descriptors are filled. */
  readonly onBatch: (count: number) => void
}

export interface NativeCapture {
  setFilter(program: Uint8Array): void
  /** Reads what is waiting now, as the poll would (bounded), calling `onBatch`; does nothing inside `onBatch`. Returns packets read. */
  drain(): number
  /** Packets the kernel dropped for want of buffer since the capture was opened. One system call. */
  kernelDrops(): number
  /** What the kernel granted (SO_RCVBUF). */
  readonly receiveBufferBytes: number
  ref(): void
  unref(): void
  /** Idempotent. `onBatch` is never called afterwards. */
  close(): void
}

export interface RawSenderOptions extends SenderOptions {
  readonly family: 4 | 6
}

export interface SenderOptions {
  readonly sendBufferBytes: number
  /** After `send` reported EAGAIN: the socket takes packets again. */
  readonly onWritable: () => void
}

export interface NativeSender {
  /**
   * Writes IP and TCP headers and checksums for `count` trains from `descriptors[from * D_WORDS]` on and sends their segments in order by sendmmsg,
   * payload taken from where it lies. A partial sendmmsg is resumed.
   *
   * @returns segments accepted by the kernel, counted over all trains. When fewer than asked, `errno` says why the next one was refused
   * (negative errno); with EAGAIN `onWritable` follows.
   */
  send(descriptors: Int32Array, from: number, count: number, buffers: readonly Uint8Array[]): number
  /** Why the last `send` stopped early; 0 if it did not. */
  readonly errno: number
  /** Idempotent. */
  close(): void
}

/** AF_PACKET with virtio headers, both families. */
export interface NativePacketSender extends Omit<NativeSender, 'send'> {
  /**
   * As `NativeSender.send`, but equal segments of a train that follow each other leave as one packet with a GSO size, checksums left to the kernel.
   *
   * @param hops HOP_WORDS words for each hop that a descriptor's D_HOP names
   */
  send(descriptors: Int32Array, from: number, count: number, buffers: readonly Uint8Array[], hops: Int32Array): number
}

export interface CarrierOptions {
  readonly family: 4 | 6
  readonly localAddress: string
  /** 0: the kernel chooses. */
  readonly localPort: number
  /** Attached before connect. */
  readonly filter: Uint8Array
  /** Attached in native the moment the connection is complete. */
  readonly mute: Uint8Array
  /** TCP_USER_TIMEOUT. */
  readonly userTimeoutMs: number
  /** Type of service or traffic class, 0 to 255, of every packet of the socket. */
  readonly tos: number
}

export interface NativeCarrier {
  /** Local port after bind. */
  readonly localPort: number
  /** Non-blocking connect; `onSettled(0)` once connected and muted, or the negative errno. */
  connect(address: string, port: number, onSettled: (errno: number) => void): void
  /** Fills the flow's nine key words. */
  key(out: Int32Array): void
  /** Fills `INFO_WORDS` words. */
  info(out: Int32Array): void
  /**
   * Ends the carrier, once: further calls return 'none'.
   * - `silent`: no packet leaves: SO_BINDTODEVICE lo + SO_LINGER 0, or TCP_REPAIR where that fails (tried first when the remote address is local).
   * - `fin`: plain close. - `reset`: SO_LINGER 0, the kernel sends RST.
   *
   * @returns how it was done: 'device', 'repair', 'fin', 'reset', 'none'. When neither way of silence works it is left to 'reset'.
   */
  end(how: 'silent' | 'fin' | 'reset'): string
  /**
   * Passes the connected socket to whoever has this inbox: another thread, or another process of the same user in this network namespace.
   * Nothing of it is seen on the wire. Once it is queued the kernel keeps it: if the receiver dies before it has taken it, the kernel closes it.
   *
   * @returns 0, and this carrier has ended; or the negative errno (ECONNREFUSED: nobody has that inbox), and nothing has changed
   */
  handOver(inbox: string): number
  /**
   * From here on what this carrier sends has SO_MARK `mark` (32 bits) and TTL or hop limit 1, until `end('fin')` or `end('reset')`, whose packets are ordinary again.
   * `info` then says GUARD_TTL. Only connected carriers. Throws EPERM without CAP_NET_ADMIN.
   */
  quieten(mark: number): void
  /** How the environment's end treats this carrier if nobody ended it: 'fin' (default) or 'silent'. */
  setExit(how: 'fin' | 'silent'): void
}

export interface CarrierListenerOptions {
  readonly family: 4 | 6
  readonly address: string
  readonly port: number
  readonly backlog: number
  readonly ipv6Only: boolean
  readonly filter: Uint8Array
  readonly mute: Uint8Array
  readonly userTimeoutMs: number
  /** As for a carrier; the accepted ones have it too. */
  readonly tos: number
  /** Given, the socket shares its port with others of one user (SO_REUSEPORT), and the program picks one of them for a handshake (SO_ATTACH_REUSEPORT_CBPF). */
  readonly steering?: Uint8Array | undefined
  /** Up to 64 accepted and muted carriers, in order. With a negative `errno` (EMFILE, ENOBUFS, ...) accepting has stopped until `resume()`. */
  readonly onAccept: (carriers: NativeCarrier[], errno: number) => void
}

export interface NativeCarrierListener {
  readonly localPort: number
  /** False where the kernel refused the steering program: it picks by a hash of its own then. */
  readonly steered: boolean
  resume(): void
  ref(): void
  unref(): void
  /** Idempotent. Accepted carriers live on. */
  close(): void
}

export interface CarrierInboxOptions {
  /** In the abstract namespace of Unix sockets, which belongs to the network namespace; at most 100 bytes. */
  readonly name: string
  /** Carriers handed over, at most 64 at a time. With a negative `errno` (EMFILE, ...) receiving has stopped until `resume()`. */
  readonly onCarriers: (carriers: NativeCarrier[], errno: number) => void
}

/** Receives what `NativeCarrier.handOver` sends. The constructor throws EADDRINUSE while another has the name. Never keeps the process alive. */
export interface NativeCarrierInbox {
  resume(): void
  /** Idempotent. What has not been taken yet is closed by the kernel. */
  close(): void
}

/** A child process that is killed and reaped when this environment ends, also by `worker.terminate()`; Node would leave it a zombie. */
export interface NativeOwnedChild {
  /** It has ended. Idempotent. */
  release(): void
}

export interface RouteSocketOptions {
  /** Something of the host's network has changed: CHANGED_* bits, once for all notifications that were waiting; every bit after some were lost. */
  readonly onChange: (what: number) => void
}

/**
 * rtnetlink, for which no capability is needed (except LINK_HEADER of `link`). The questions return 0 or a negative errno, the kernel's own where it refused; -EBADF once closed.
 * The kernel answers within the call. Watching for changes never keeps the process alive.
 */
export interface NativeRouteSocket {
  /**
   * How the host would send to the remote address of the key at `at`, from its local address (unspecified: from any).
   *
   * @param ifindex 0 unless the addresses are link-local
   * @param out `ROUTE_WORDS` words
   */
  route(key: Int32Array, at: number, ifindex: number, out: Int32Array): number
  /** The neighbour entry of the address in the four words at `at`; -ENOENT if there is none. @param out `NEIGHBOUR_WORDS` words */
  neighbour(ifindex: number, address: Int32Array, at: number, out: Int32Array): number
  /** @param out `LINK_WORDS` words */
  link(ifindex: number, out: Int32Array): number
  /** Idempotent. `onChange` is never called afterwards. */
  close(): void
}

export interface PathReportsOptions {
  readonly family: 4 | 6
  /** Attached to the ICMP raw socket. */
  readonly program: Uint8Array
  /** `16 * REPORT_WORDS` words, overwritten by the next read. */
  readonly reports: Int32Array
  /** Once for each recvmmsg that brought at least one well-formed report: that many are filled. */
  readonly onReports: (count: number) => void
}

/** Hears that packets were too long for their path. Needs CAP_NET_RAW. Never keeps the process alive. */
export interface NativePathReports {
  /** Idempotent. `onReports` is never called afterwards. */
  close(): void
}

export interface UdpSocketOptions {
  readonly family: 4 | 6
  /** One of this host's, or the unspecified address: then trains tell which one they came to, and go out from the one they name. */
  readonly address: string
  /** 0: the kernel chooses. */
  readonly port: number
  /** For family 6; without it the unspecified address takes IPv4, too, as IPv4-mapped addresses. */
  readonly ipv6Only: boolean
  /**
   * Who else may have the port. `none`: nobody. `offer`: `EADDRINUSE` if anybody has it who has not joined; sockets of this user may join later. `join`:
   * those do; until they are connected, datagrams of anybody may reach them.
   */
  readonly sharing: 'none' | 'offer' | 'join'
  /** Type of service or traffic class, 0 to 255. */
  readonly tos: number
  /** Datagrams that do not fit the path are refused with EMSGSIZE; else they are fragmented. */
  readonly dontFragment: boolean
  /** SO_RCVBUFFORCE, else SO_RCVBUF. */
  readonly receiveBufferBytes: number
  /** SO_SNDBUFFORCE, else SO_SNDBUF. */
  readonly sendBufferBytes: number
  /** As for a capture, at most 64 slots of at least 65 535 bytes. Sockets of one thread may share slab and descriptors: what was read is used up within `onBatch`. */
  readonly slab: Uint8Array
  readonly slots: number
  readonly slotBytes: number
  /** `slots * D_WORDS` words, of which D_KEY, D_OFFSET, D_LENGTH, D_SEGMENT and D_IFINDEX are filled; an empty datagram is a train of its own, of length and segment 0. */
  readonly descriptors: Int32Array
  /** `CAPTURE_COUNTERS` numbers, by COUNT_* and REJECT_TRUNCATED. */
  readonly counters: Float64Array
  /** Once for each recvmmsg that brought something: that many descriptors are filled. Consecutive datagrams of one peer and one size are one train. */
  readonly onBatch: (count: number) => void
  /** As for a sender. */
  readonly onWritable: () => void
  /** What the kernel has heard of a connected socket's datagrams (negative errno): ECONNREFUSED, EMSGSIZE, ... The socket lives on. May be called within `send`. */
  readonly onError: (errno: number) => void
}

/** A kernel UDP socket. */
export interface NativeUdpSocket extends NativeSender {
  readonly localPort: number
  /** What the kernel granted (SO_RCVBUF). */
  readonly receiveBufferBytes: number
  /**
   * From here on only datagrams of this peer arrive, and it is where all trains go to. What had arrived before, of whomever, is still read, with its true source.
   */
  connect(address: string, port: number): void
  /** Fills the nine key words; the remote end is 0 unless connected. */
  key(out: Int32Array): void
  /** Of a connected socket: bytes of the longest IP packet that the kernel believes the path takes (IP_MTU). */
  pathMtu(): number
  /**
   * Sends trains, from D_KEY's local address if that is not unspecified, to its remote end; those are the socket's own once it is connected. Of the other words only
   * D_OFFSET, D_LENGTH, D_SEGMENT, D_SKIP, and D_IFINDEX for link-local addresses, are read. D_LENGTH 0 is one empty datagram. Equal segments that
   * follow each other leave in one piece (UDP_SEGMENT), one by one where the kernel refuses that.
   *
   * @returns as `NativeSender.send`, counted in datagrams
   */
  send(descriptors: Int32Array, from: number, count: number, buffers: readonly Uint8Array[]): number
  /** Reads what is waiting now, as the poll would (bounded), calling `onBatch`; does nothing inside its own `onBatch`. Returns datagrams read, merged ones counted once. */
  drain(): number
  /** Datagrams that the kernel has dropped for want of buffer. One system call. */
  kernelDrops(): number
  ref(): void
  unref(): void
}

/** Of one direction of a flow, and never of another flow: numbers start at 0, and a key under which a number came twice is worth nothing. */
export interface TunnelKeys {
  readonly cipher: 'aes-256-gcm' | 'chacha20-poly1305'
  /** 32 bytes. All are copied. */
  readonly key: Uint8Array
  /** 12 bytes, to which numbers are added by XOR. */
  readonly iv: Uint8Array
  /** 32 bytes: key of the mask over the numbers. */
  readonly mask: Uint8Array
}

/** Both or none (plain). */
export interface TunnelCodecOptions {
  readonly seal?: TunnelKeys | undefined
  /** Its `key` must differ from that of `seal`, else messages that come back to their sender would be taken for the peer's. */
  readonly open?: TunnelKeys | undefined
}

/** The tunnel's messages (docs/wire.md), a train for each call. Nothing is allocated for a message. */
export interface NativeTunnelCodec {
  /** Bytes that a message is longer than its payload: 3 plain, 25 sealed. */
  readonly overhead: number
  /**
   * A train of payloads, `length` bytes at `offset` of `memory`, one for each `segment` bytes (the last may be shorter), becomes a train of messages at
   * `outOffset` of `out`, one for each `segment + overhead` bytes. A `length` of 0 is one message without payload. `out` must not overlap the payloads.
   *
   * @returns bytes written; 0 when the numbers (48 bits) are used up, and the flow has to end
   */
  pack(
    type: number,
    session: number,
    memory: Uint8Array,
    offset: number,
    length: number,
    segment: number,
    out: Uint8Array,
    outOffset: number,
  ): number
  /**
   * A train of messages, one for each `segment` bytes (the last may be shorter), becomes runs of payloads in place: the train is overwritten. Messages
   * that are not good are left out and counted.
   *
   * @param runs RUN_WORDS words for each run, at least one
   * @returns runs filled; with all of them filled, there may be something `unread`
   */
  unpack(memory: Uint8Array, offset: number, length: number, segment: number, runs: Int32Array): number
  /** Bytes at the end of the last train that are still to be unpacked, by another call. */
  readonly unread: number
  /** @param out CODEC_COUNTERS numbers, totals since the codec was made */
  counters(out: Float64Array): void
  /** Forgets the keys. `pack` and `unpack` throw afterwards. Idempotent. */
  close(): void
}

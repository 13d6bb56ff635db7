// What an acceptor of one shard keeps of connections that come to nothing, with carriers that behave as told. Real ones are in test/e2e/shards*.
import { afterEach, expect, it } from 'vitest'
import { EngineAcceptor } from '../../lib/engine/acceptor.ts'
import { FlowTable } from '../../lib/flow/table.ts'
import type { Binding, CarrierListenerOptions, NativeCarrier } from '../../lib/native/binding.ts'
import type { AcceptorSink } from '../../lib/transport.ts'
import { shardOf } from '../../lib/wire/shards.ts'
import { FLOW_OPTIONS } from './world.ts'

const [ENOTCONN, ECONNREFUSED] = [-107, -111]
const COUNT = 4
const nothing = () => {}

class FakeCarrier {
  readonly ended: string[] = []
  readonly #words: Int32Array
  /** How often `key` answers before the peer's reset has ended the connection. */
  answers: number

  constructor(words: Int32Array, answers: number) {
    this.#words = words
    this.answers = answers
  }
  key(out: Int32Array): void {
    if (this.answers-- <= 0) throw Object.assign(new Error('getpeername ENOTCONN'), { errno: ENOTCONN, code: 'ENOTCONN' })
    out.set(this.#words)
  }
  handOver(): number {
    return ECONNREFUSED
  }
  end(how: string): string {
    this.ended.push(how)
    return how
  }
}

/** Sockets that never say anything; connections come from `accept`. */
function acceptor() {
  let listening: CarrierListenerOptions | undefined
  const socket = { ref: nothing, unref: nothing, close: nothing, resume: nothing, setFilter: nothing, drain: nothing, kernelDrops: () => 0 }
  class Socket {
    constructor(options: CarrierListenerOptions) {
      Object.assign(this, socket, { localPort: 9191, steered: true, receiveBufferBytes: 0 })
      if ('onAccept' in options) listening = options
    }
  }
  const binding = {
    parseAddress: (_address: string, out: Int32Array) => out.set([0, 0, 0xffff, 0x0a000001]) ?? true,
    Capture: Socket,
    RawSender: Socket,
    CarrierListener: Socket,
    CarrierInbox: Socket,
    PathReports: Socket,
  } as unknown as Binding
  const made = new EngineAcceptor(binding, FlowTable.create({ capacity: 16 }), {
    ...{
      address: '10.0.0.1',
      port: 9191,
      ipv6Only: false,
      flow: FLOW_OPTIONS,
      capture: 'packet',
      link: 'raw',
      guard: undefined,
    },
    shard: { index: 0, count: COUNT },
  })
  const accept = (carrier: FakeCarrier) => listening?.onAccept([carrier as unknown as NativeCarrier], 0)
  return { made, accept }
}

/** A connection of a client whose shard is another one. */
function strayKey(): Int32Array {
  for (let port = 40_000; ; port++) {
    const key = Int32Array.of(0, 0, 0xffff, 0x0a000002, 0, 0, 0xffff, 0x0a000001, (port << 16) | 9191)
    if (shardOf(key, 0, COUNT) !== 0) return key
  }
}

const opened: EngineAcceptor[] = []
afterEach(() => Promise.all(opened.splice(0).map((one) => one.close())))

it.each<[string, number, ReturnType<AcceptorSink['refuse']>]>([
  ['is reset by its peer before it is accepted', 1, undefined],
  ['is refused', 2, 'maxConnections'],
])('a connection of another shard that %s leaves no exception behind', (_what, answers, refusal) => {
  const { made, accept } = acceptor()
  opened.push(made)
  const sink: AcceptorSink = { refuse: () => refusal, onChannel: nothing, onRefused: nothing, onError: nothing }
  made.attach(sink)
  const carrier = new FakeCarrier(strayKey(), answers)
  accept(carrier)
  expect([carrier.ended, made.stats.shard?.strays, made.stats.shard?.exceptions]).toEqual([['reset'], 1, 0])
})

// Listeners that share a port, and carriers that change hands: who accepts, and that a carrier on its way belongs to exactly one.
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readlinkSync } from 'node:fs'
import process from 'node:process'
import { setImmediate } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import type { NativeCarrier } from '../../lib/native/binding.ts'
import * as layout from '../../lib/native/layout.ts'
import { Assembler } from '../../lib/wire/bpf.ts'
import { captureProgram, steeringProgram } from '../../lib/wire/programs.ts'
import { shardOf } from '../../lib/wire/shards.ts'
import { binding, CaptureRig, carrierPair, connect, dialler, ListenerRig, loopback, unusedPort } from './rig.ts'

const { KEY_WORDS } = layout
const ECONNREFUSED = -111

function keyOf(carrier: NativeCarrier): Int32Array {
  const out = new Int32Array(KEY_WORDS)
  carrier.key(out)
  return out
}

/** The name of an inbox that nobody else has. */
const unusedName = () => `faketcp-test:${process.pid}:${unusedPort()}`

/** TCP sockets that this process has open. */
const openSockets = () =>
  readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      const name = readlinkSync(`/proc/self/fd/${fd}`)
      return name.startsWith('socket:') ? [name] : []
    } catch {
      return [] // the directory's own
    }
  })

/** fixtures/inbox.py at the other end. */
class Other {
  said = ''
  readonly #child: ChildProcessWithoutNullStreams

  private constructor(child: ChildProcessWithoutNullStreams) {
    this.#child = child
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      this.said += text.trim()
    })
  }

  /** Resolves with its first word. */
  static async start(what: string, name: string): Promise<Other> {
    const child = spawn('python3', ['-B', fileURLToPath(new URL('fixtures/inbox.py', import.meta.url)), what, name])
    const other = new Other(child)
    await once(child.stdout, 'data')
    return other
  }

  go(): void {
    this.#child.stdin.write('\n')
  }

  async ended(): Promise<void> {
    if (this.#child.exitCode === null) await once(this.#child, 'close')
  }
}

class InboxRig implements Disposable {
  readonly name = unusedName()
  readonly received: NativeCarrier[] = []
  readonly errors: number[] = []
  readonly native = new binding.CarrierInbox({
    name: this.name,
    onCarriers: (carriers, errno) => {
      if (errno !== 0) this.errors.push(errno)
      this.received.push(...carriers)
    },
  });

  [Symbol.dispose](): void {
    this.native.close()
    for (const carrier of this.received) carrier.end('silent')
  }
}

describe.each([4, 6] as const)('listeners on one port over IPv%i', (family) => {
  it('are picked by the program, which counts them in the order in which they came', async () => {
    const port = unusedPort()
    const steering = steeringProgram(3)
    using first = new ListenerRig(family, { port, steering })
    using second = new ListenerRig(family, { port, steering })
    using third = new ListenerRig(family, { port, steering })
    const group = [first, second, third]
    expect(group.map(({ native }) => native.steered)).toEqual([true, true, true])
    for (let i = 0; i < 30; i++) {
      const client = dialler(family)
      expect(await connect(client, loopback(family), port)).toBe(0)
      const key = keyOf(client)
      // The listener's view: the two ends change places.
      const mirrored = Int32Array.of(...key.subarray(4, 8), ...key.subarray(0, 4), (client.localPort << 16) | port)
      const server = await group[shardOf(mirrored, 0, 3)].accepted()
      expect([...keyOf(server)]).toEqual([...mirrored])
      for (const carrier of [client, server]) carrier.end('silent')
    }
  })

  it('refuse one that has the port to itself, and are refused by it', () => {
    const port = unusedPort()
    const steering = steeringProgram(2)
    {
      using _sharing = new ListenerRig(family, { port, steering })
      expect(() => new ListenerRig(family, { port })).toThrow(expect.objectContaining({ code: 'EADDRINUSE', syscall: 'bind' }))
    }
    using _alone = new ListenerRig(family, { port })
    expect(() => new ListenerRig(family, { port, steering })).toThrow(expect.objectContaining({ code: 'EADDRINUSE', syscall: 'bind' }))
  })
})

it('a group works without a program that the kernel refuses, and says so', async () => {
  const port = unusedPort()
  const steering = new Uint8Array(8).fill(0xff)
  using first = new ListenerRig(4, { port, steering })
  using second = new ListenerRig(4, { port, steering })
  expect([first.native.steered, second.native.steered]).toEqual([false, false])
  const client = dialler(4)
  expect(await connect(client, '127.0.0.1', port)).toBe(0)
  const server = await Promise.race([first.accepted(), second.accepted()])
  for (const carrier of [client, server]) carrier.end('silent')
})

it("a group goes by the kernel's own choice where the program names nobody", async () => {
  const port = unusedPort()
  const steering = new Assembler().ret(0xffffffff).assemble()
  using first = new ListenerRig(4, { port, steering })
  using second = new ListenerRig(4, { port, steering })
  const clients = Array.from({ length: 40 }, () => dialler(4))
  expect(new Set(await Promise.all(clients.map((client) => connect(client, '127.0.0.1', port))))).toEqual(new Set([0]))
  const servers = await Promise.all([first.accepted(), second.accepted()]) // each of them got some
  for (const carrier of [...clients, ...servers]) carrier.end('silent')
})

describe('a carrier that is handed over', () => {
  it("is the receiver's from then on, connected and mute as before, and nothing of it is on the wire", async () => {
    using pair = await carrierPair(4)
    using inbox = new InboxRig()
    const { localPort } = pair.server
    const program = captureProgram({ link: 'packet', family: 4, ports: [localPort, pair.client.localPort] })
    using wire = new CaptureRig({ mode: 'packet', family: 4, program })
    const key = keyOf(pair.server)
    expect(pair.server.handOver(inbox.name)).toBe(0)
    expect(pair.server.end('reset')).toBe('none')
    expect(() => pair.server.key(key)).toThrow(expect.objectContaining({ code: 'EBADF' }))
    expect(pair.server.handOver(inbox.name)).toBe(-9)
    await expect.poll(() => inbox.received.length).toBe(1)
    const [carrier] = inbox.received
    expect([...keyOf(carrier)]).toEqual([...key])
    const info = new Int32Array(layout.INFO_WORDS)
    carrier.info(info)
    expect(info[layout.INFO_STATE]).toBe(1)
    await setImmediate()
    wire.native.drain()
    expect(wire.trains).toEqual([])
    expect(inbox.errors).toEqual([])
  })

  it('stays where it is when nobody has the inbox', async () => {
    using pair = await carrierPair(4)
    const key = keyOf(pair.server)
    expect(pair.server.handOver(unusedName())).toBe(ECONNREFUSED)
    expect([...keyOf(pair.server)]).toEqual([...key])
    const name = unusedName()
    new binding.CarrierInbox({ name, onCarriers: () => {} }).close()
    expect(pair.server.handOver(name)).toBe(ECONNREFUSED)
  })

  it('is closed by the kernel when its receiver ends before it has taken it', async () => {
    const before = openSockets().length
    using pair = await carrierPair(4)
    const inbox = new InboxRig()
    using wire = new CaptureRig({ mode: 'packet', family: 4, ports: [pair.client.localPort] })
    expect(pair.server.handOver(inbox.name)).toBe(0)
    inbox.native.close()
    // The kernel's FIN, as for a process that died: the peer learns of it.
    const [fin] = await wire.received(1)
    expect(fin.flags & layout.FIN).toBe(layout.FIN)
    pair.client.end('silent')
    wire.native.close()
    await expect.poll(() => openSockets().length).toBe(before)
  })

  it('is one of many at once', async () => {
    using inbox = new InboxRig()
    const pairs = await Promise.all(Array.from({ length: 150 }, () => carrierPair(4)))
    const before = openSockets().length
    for (const { server } of pairs) expect(server.handOver(inbox.name)).toBe(0)
    await expect.poll(() => inbox.received.length).toBe(150)
    expect(openSockets().length).toBe(before)
    expect(new Set(inbox.received.map((carrier) => keyOf(carrier)[layout.KEY_PORTS])).size).toBe(150)
    for (const { client } of pairs) client.end('silent')
  })

  it('is not one that is still connecting', () => {
    using inbox = new InboxRig()
    using listener = new ListenerRig(4)
    const carrier = dialler(4)
    carrier.connect('127.0.0.1', listener.native.localPort, () => {})
    expect(carrier.handOver(inbox.name)).toBe(-106)
    carrier.end('silent')
  })
})

describe('an inbox', () => {
  it('has its name alone, and gives it back', () => {
    using inbox = new InboxRig()
    const again = () => new binding.CarrierInbox({ name: inbox.name, onCarriers: () => {} })
    expect(again).toThrow(expect.objectContaining({ code: 'EADDRINUSE', syscall: 'bind' }))
    inbox.native.close()
    inbox.native.close()
    inbox.native.resume()
    again().close()
  })

  it('waits for a sender that has connected and is slow, and for others meanwhile', async () => {
    using pair = await carrierPair(4)
    using inbox = new InboxRig()
    const slow = await Other.start('slow', inbox.name)
    const silent = await Other.start('silent', inbox.name)
    const emptyHanded = await Other.start('empty-handed', inbox.name)
    expect(pair.server.handOver(inbox.name)).toBe(0)
    await expect.poll(() => inbox.received.length).toBe(1)
    for (const other of [silent, emptyHanded, slow]) {
      other.go()
      await other.ended()
    }
    await expect.poll(() => inbox.received.length).toBe(2)
    expect(inbox.errors).toEqual([])
    const waiting = await Other.start('silent', inbox.name)
    await setImmediate() // it had connected before it said so, and has been accepted by now
    const before = openSockets().length
    inbox.native.close()
    expect(openSockets().length).toBe(before - 2)
    waiting.go()
    await waiting.ended()
  })

  it('takes one socket from each sender, and leaves no others open', async () => {
    using inbox = new InboxRig()
    const before = openSockets().length
    const greedy = await Other.start('with-both-hands', inbox.name)
    greedy.go()
    await greedy.ended()
    await expect.poll(() => inbox.received.length).toBe(1)
    await expect.poll(() => openSockets().length).toBe(before + 1)
  })

  it.runIf(process.getuid?.() === 0)('takes nothing of other users, and nobody gives to theirs', async () => {
    using pair = await carrierPair(4)
    {
      using inbox = new InboxRig()
      const stranger = await Other.start('stranger-sends', inbox.name)
      expect(stranger.said).toBe('0')
      await stranger.ended()
      await setImmediate()
      expect(inbox.received).toEqual([])
    }
    const name = unusedName()
    const stranger = await Other.start('stranger-listens', name)
    expect(pair.server.handOver(name)).toBe(-13)
    await stranger.ended()
    expect(stranger.said).toBe('ready0')
    expect(keyOf(pair.server)[layout.KEY_PORTS] & 0xffff).toBe(pair.server.localPort)
  })

  it('may be closed inside onCarriers', async () => {
    using pair = await carrierPair(4)
    const name = unusedName()
    const carrier = await new Promise<NativeCarrier>((resolve) => {
      const inbox = new binding.CarrierInbox({
        name,
        onCarriers: ([carrier]) => {
          inbox.close()
          resolve(carrier)
        },
      })
      pair.server.handOver(name)
    })
    expect(carrier.end('silent')).toBe('repair')
  })

  it('refuses names that are none', () => {
    expect(() => new binding.CarrierInbox({ name: 'x'.repeat(200), onCarriers: () => {} })).toThrow(/name/)
    expect(() => new binding.CarrierInbox({ name: 7 as never, onCarriers: () => {} })).toThrow(TypeError)
  })
})

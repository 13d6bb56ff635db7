// How next hops are kept: sharing, rates, back-offs and bounds, against a kernel that answers as told. What a real one says is in
// next-hops-hosts.test.ts.
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { NextHops, type Path } from '../../lib/link/next-hops.ts'
import {
  CHANGED_ADDRESS,
  CHANGED_LINK,
  CHANGED_NEIGHBOUR,
  CHANGED_ROUTE,
  HOP_BYTES,
  HOP_HEADER,
  HOP_IFINDEX,
  HOP_WORDS,
} from '../../lib/native/layout.ts'
import { addressWords } from '../native/packets.ts'
import { FakeKernel, macWords, REACHABLE, STALE } from './fixtures/kernel.ts'

const MAC = '02:00:5e:10:20:fe'
const OTHER_MAC = '02:00:5e:10:20:ff'
const THIRD_MAC = '02:00:5e:10:20:fd'
const OWN_MAC = '02:00:00:00:00:02'
const ELSEWHERE = 'the peer is heard on another interface'
const [EAGAIN, ENOMEM, EINVAL, ENETDOWN, ENOBUFS] = [-11, -12, -22, -100, -105]

let kernel: FakeKernel
let changes: number
let hops: NextHops

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'setInterval', 'clearInterval', 'performance'] })
  kernel = new FakeKernel()
  changes = 0
  hops = new NextHops(kernel.binding, () => {
    changes++
  })
})
afterEach(() => {
  hops.close()
  vi.useRealTimers()
})

const keyOf = (remote: string, local = '10.0.0.1', port = 80) => Int32Array.of(...addressWords(remote), ...addressWords(local), port)
const open = (remote: string, local?: string): Path => hops.open(keyOf(remote, local), 0, 0)
const pass = (ms: number) => vi.advanceTimersByTimeAsync(ms)
const reachable = (address: string, mac = MAC) => kernel.neighbours.set(address, { state: REACHABLE, mac })
const heard = (path: Path, mac: string, ifindex = 2) => path.heard(ifindex, ...macWords(mac))
async function notify(what: number) {
  kernel.notify(what)
  await pass(5)
}

function headerOf(path: Path): string | undefined {
  if (path.hop < 0) return undefined
  const at = path.hop * HOP_WORDS
  expect(hops.table[at + HOP_IFINDEX]).toBe(kernel.ifindex)
  return Buffer.from(hops.table.buffer, (at + HOP_HEADER) * 4, hops.table[at + HOP_BYTES]).toString('hex')
}
const frame = (to: string, from = OWN_MAC) => `${to}${from}0800`.replaceAll(':', '')

describe('paths and rows', () => {
  it('are one for all flows between two addresses, from keys anywhere in an array', () => {
    const words = Int32Array.of(7, 7, ...keyOf('10.0.0.2', '10.0.0.1', 1), ...keyOf('10.0.0.2', '10.0.0.1', 2))
    const path = hops.open(words, 2, 0)
    expect(hops.open(words, 11, 5)).toBe(path)
    expect(open('10.0.0.3')).not.toBe(path)
    expect(kernel.asked).toEqual({ route: 3, neighbour: 2, link: 1 })
  })

  it('rows are shared by gateway, and used again only when nobody has them', async () => {
    for (const [i, mac] of [MAC, OTHER_MAC].entries()) reachable(`10.0.0.10${i}`, mac)
    for (let i = 1; i < 5; i++) kernel.gateways.set(`192.0.2.${i}`, `10.0.0.10${i % 2}`)
    const [a, b, c, d] = [1, 2, 3, 4].map((i) => open(`192.0.2.${i}`))
    expect([a.hop === c.hop, b.hop === d.hop, a.hop === b.hop]).toEqual([true, true, false])
    const row = a.hop
    a.release()
    reachable('10.0.0.9', THIRD_MAC)
    expect(open('10.0.0.9').hop).not.toBe(row)
    expect(headerOf(c)).toBe(frame(OTHER_MAC))
    c.release()
    reachable('10.0.0.8', OWN_MAC)
    const last = open('10.0.0.8')
    expect([last.hop, headerOf(last)]).toEqual([row, frame(OWN_MAC)])
  })

  it('the table grows and keeps what it holds', () => {
    const paths = Array.from({ length: 200 }, (_, i) => {
      reachable(`10.0.1.${i}`, `02:00:00:00:01:${i.toString(16).padStart(2, '0')}`)
      return open(`10.0.1.${i}`)
    })
    expect(paths.map(headerOf)).toEqual(paths.map((_, i) => frame(`02:00:00:00:01:${i.toString(16).padStart(2, '0')}`)))
    expect(new Set(paths.map(({ hop }) => hop)).size).toBe(200)
  })

  it('a path lives until its last flow has released it', async () => {
    reachable('10.0.0.2')
    const [path] = [open('10.0.0.2'), open('10.0.0.2')]
    path.release()
    expect(headerOf(path)).toBe(frame(MAC))
    path.release()
    path.release()
    expect([path.hop, path.why]).toEqual([-1, 'released'])
    expect(vi.getTimerCount()).toBe(0)
    expect(open('10.0.0.2')).not.toBe(path)
  })

  it('opening one tells nobody else', async () => {
    open('10.0.0.2')
    reachable('10.0.0.3')
    open('10.0.0.3')
    await pass(5000)
    expect(changes).toBe(0)
  })
})

describe('without netlink', () => {
  it.each(['EAFNOSUPPORT', 'EPERM'])('no path has a hop, and says so (%s)', (code) => {
    const refusing = class {
      constructor() {
        throw Object.assign(new Error(`socket ${code}`), { code })
      }
    }
    const none = new NextHops({ RouteSocket: refusing as never }, () => {})
    const path = none.open(keyOf('10.0.0.2'), 0, 0)
    expect(path).toMatchObject({ hop: -1, why: `netlink unavailable (${code})`, mtu: 0, local: false })
    path.heard(2, ...macWords(MAC))
    path.refused(EINVAL)
    path.release()
    none.close()
  })

  it('neither have those of a closed one, old or new', async () => {
    reachable('10.0.0.2')
    const path = open('10.0.0.2')
    hops.close()
    hops.close()
    expect([path.hop, path.why, open('10.0.0.3').why, kernel.closed]).toEqual([-1, 'closed', 'closed', 1])
    path.refused(EINVAL)
    heard(path, MAC)
    path.release()
    await notify(CHANGED_LINK)
    expect([vi.getTimerCount(), changes]).toEqual([0, 0])
  })
})

describe('a refused packet', () => {
  it('costs the hop for 1 s, and twice as long each time it happens again, to 30 s', async () => {
    reachable('10.0.0.2')
    const path = open('10.0.0.2')
    const times: number[] = []
    for (let i = 0; i < 7; i++) {
      path.refused(EINVAL)
      expect([path.hop, path.why]).toEqual([-1, 'refused: EINVAL'])
      const start = performance.now()
      while (path.hop < 0) await pass(100)
      times.push(Math.floor((performance.now() - start) / 1000))
    }
    expect(times).toEqual([1, 2, 4, 8, 16, 30, 30])
    await pass(61_000)
    path.refused(EINVAL)
    await pass(2100)
    expect(headerOf(path)).toBe(frame(MAC))
  })

  it('reported by many flows at once counts once', async () => {
    reachable('10.0.0.2')
    const path = open('10.0.0.2')
    for (let i = 0; i < 10; i++) path.refused(EINVAL)
    await pass(2100)
    expect(headerOf(path)).toBe(frame(MAC))
    expect(changes).toBe(2)
  })

  it('is forgotten when the hop changes', async () => {
    reachable('10.0.0.2')
    const path = open('10.0.0.2')
    path.refused(ENETDOWN)
    expect(path.why).toBe('refused: ENETDOWN')
    reachable('10.0.0.2', OTHER_MAC)
    await notify(CHANGED_NEIGHBOUR)
    expect(headerOf(path)).toBe(frame(OTHER_MAC))
  })

  it('with a number that is no errno is reported as that', () => {
    reachable('10.0.0.2')
    const path = open('10.0.0.2')
    path.refused(22)
    expect(path.why).toBe('refused: 22')
  })
})

describe('captured frames', () => {
  it('of several routers do not make the hop flap, nor the kernel be asked for each', async () => {
    const path = open('10.0.0.2')
    heard(path, MAC)
    expect(headerOf(path)).toBe(frame(MAC))
    await pass(100)
    kernel.asked.neighbour = 0
    const seen = new Set<string | undefined>()
    for (let i = 0; i < 4000; i++) {
      heard(path, i % 2 === 0 ? OTHER_MAC : MAC)
      seen.add(headerOf(path))
    }
    expect([...seen]).toEqual([frame(MAC)])
    expect(kernel.asked.neighbour).toBeLessThanOrEqual(1)
    heard(path, OTHER_MAC)
    await pass(2100)
    expect(headerOf(path)).toBe(frame(OTHER_MAC))
  })

  it('that change make the kernel be asked once a second, however often they do', async () => {
    reachable('10.0.0.2')
    const path = open('10.0.0.2')
    kernel.asked.neighbour = 0
    for (let i = 0; i < 100; i++) {
      heard(path, i % 2 === 0 ? MAC : OTHER_MAC)
      await pass(100)
    }
    expect(kernel.asked.neighbour).toBeGreaterThan(5)
    expect(kernel.asked.neighbour).toBeLessThanOrEqual(11)
    expect([headerOf(path), changes]).toEqual([frame(MAC), 0])
  })

  it('from elsewhere than a stale entry says have it confirmed sooner', async () => {
    kernel.neighbours.set('10.0.0.2', { state: STALE, mac: MAC })
    const path = open('10.0.0.2')
    const first = performance.now()
    expect(path.probeDue).toBeLessThanOrEqual(first)
    path.probed(first)
    expect(path.probeDue).toBe(first + 15_000)
    await pass(2000)
    heard(path, OTHER_MAC)
    expect(path.probeDue).toBe(first + 5000)
  })

  it('without a link address, or with a group’s, or zeros, are no answer', () => {
    const path = open('10.0.0.2')
    path.heard(2, 0, 0)
    heard(path, '01:00:5e:00:00:01')
    heard(path, '00:00:00:00:00:00')
    expect([path.hop, path.why]).toEqual([-1, 'neighbour unresolved'])
  })

  it('answer for the interface that they came by, and no other', async () => {
    kernel.devices.set(3, OTHER_MAC)
    const path = open('10.0.0.2')
    heard(path, MAC)
    expect(headerOf(path)).toBe(frame(MAC))
    kernel.ifindex = 3
    await notify(CHANGED_ROUTE)
    expect([path.hop, path.why]).toEqual([-1, ELSEWHERE])
    heard(path, THIRD_MAC, 3)
    expect(headerOf(path)).toBe(frame(THIRD_MAC, OTHER_MAC))
  })

  it('on another interface than the route names leave the way to the kernel, until they come by that one again', async () => {
    reachable('10.0.0.2')
    const path = open('10.0.0.2')
    heard(path, MAC)
    expect(headerOf(path)).toBe(frame(MAC))
    heard(path, OTHER_MAC, 3)
    expect([path.hop, path.why]).toEqual([-1, ELSEWHERE])
    expect(changes).toBe(0)
    await pass(0)
    expect(changes).toBe(1)
    // Two ways in turn: not a change for each packet.
    for (let i = 0; i < 100; i++) heard(path, i % 2 === 0 ? MAC : OTHER_MAC, i % 2 === 0 ? 2 : 3)
    expect([path.hop, path.why]).toEqual([-1, ELSEWHERE])
    heard(path, MAC)
    await pass(1100)
    expect(headerOf(path)).toBe(frame(MAC))
  })

  it('of the handshake count from the start', () => {
    reachable('10.0.0.2')
    expect(hops.open(keyOf('10.0.0.2'), 0, 3).why).toBe(ELSEWHERE)
    reachable('10.0.0.3')
    expect(headerOf(hops.open(keyOf('10.0.0.3'), 0, 2))).toBe(frame(MAC))
  })

  it('are an answer that the kernel is asked to better: a probe each second, a look-up each second', async () => {
    const path = open('10.0.0.2')
    heard(path, MAC)
    const now = performance.now()
    expect(path.probeDue).toBeLessThanOrEqual(now)
    path.probed(now)
    expect(path.probeDue).toBe(now + 1000)
    // Without a notification: it was lost, say.
    reachable('10.0.0.2', OTHER_MAC)
    await pass(1100)
    expect([headerOf(path), path.probeDue]).toEqual([frame(OTHER_MAC), Number.POSITIVE_INFINITY])
  })
})

describe('notifications', () => {
  it('in a burst lead to one round, and one word of it', async () => {
    for (let i = 2; i < 12; i++) open(`10.0.0.${i}`)
    kernel.asked.route = 0
    kernel.asked.link = 0
    for (let i = 2; i < 12; i++) reachable(`10.0.0.${i}`)
    for (let i = 0; i < 1000; i++) kernel.notify(CHANGED_LINK | CHANGED_ROUTE | CHANGED_ADDRESS | CHANGED_NEIGHBOUR)
    await pass(5)
    // Ten routes and the local address that they share.
    expect([kernel.asked.route, kernel.asked.link, changes]).toEqual([11, 1, 1])
  })

  it('of neighbours have neighbours looked up, and nothing else', async () => {
    kernel.gateways.set('192.0.2.1', '10.0.0.254').set('192.0.2.2', '10.0.0.254')
    const [first, second] = [open('192.0.2.1'), open('192.0.2.2')]
    Object.assign(kernel.asked, { route: 0, link: 0, neighbour: 0 })
    reachable('10.0.0.254')
    await notify(CHANGED_NEIGHBOUR)
    expect(kernel.asked).toEqual({ route: 0, link: 0, neighbour: 1 })
    expect([headerOf(first), headerOf(second), changes]).toEqual([frame(MAC), frame(MAC), 1])
  })

  it('without end leave most of the time to others', async () => {
    kernel.msPerAnswer = 0.1
    const busy = new NextHops(
      kernel.binding,
      () => {},
      () => performance.now() + kernel.spentMs,
    )
    for (let i = 1; i < 100; i++) busy.open(keyOf(`10.0.0.${i}`), 0, 0)
    kernel.spentMs = 0
    for (let i = 0; i < 1000; i++) {
      kernel.notify(CHANGED_ROUTE)
      await pass(1)
    }
    busy.close()
    expect(kernel.spentMs).toBeGreaterThan(50)
    expect(kernel.spentMs).toBeLessThan(150)
  })

  it('for 10 000 paths are worked off in parts', async () => {
    for (let i = 0; i < 10_000; i++) {
      kernel.gateways.set(`198.18.${i >> 8}.${i & 255}`, '10.0.0.254')
      open(`198.18.${i >> 8}.${i & 255}`)
    }
    const inOneTurn: number[] = []
    kernel.asked.route = 0
    kernel.notify(CHANGED_ROUTE)
    while (kernel.asked.route < 10_001) {
      const before = kernel.asked.route
      await vi.advanceTimersToNextTimerAsync()
      inOneTurn.push(kernel.asked.route - before)
    }
    expect(Math.max(...inOneTurn)).toBeLessThanOrEqual(201)
    // Closing in the middle of a round ends it.
    kernel.notify(CHANGED_ROUTE)
    await pass(3)
    hops.close()
    const asked = kernel.asked.route
    await pass(5000)
    expect(kernel.asked.route).toBe(asked)
  })

  it('that never come are made up for by a look at everything now and then', async () => {
    reachable('10.0.0.2')
    const path = open('10.0.0.2')
    reachable('10.0.0.2', OTHER_MAC)
    kernel.mtu = 1400
    await pass(30_100)
    expect([headerOf(path), path.mtu]).toEqual([frame(OTHER_MAC), 1400])
  })

  it('of a local address that is gone are for those paths that have it', async () => {
    kernel.own.add('10.0.0.9')
    reachable('10.0.0.2')
    const [one, nine] = [open('10.0.0.2'), open('10.0.0.2', '10.0.0.9')]
    await pass(1000)
    kernel.own.delete('10.0.0.9')
    kernel.notify(CHANGED_ADDRESS)
    await pass(5)
    const gone = nine.addressGoneSince
    expect([one.addressGoneSince, gone > 1000 && gone <= performance.now(), nine.why]).toEqual([
      Number.POSITIVE_INFINITY,
      true,
      'local address gone',
    ])
    await pass(60_000)
    expect(nine.addressGoneSince).toBe(gone)
    kernel.own.add('10.0.0.9')
    await notify(CHANGED_ADDRESS)
    expect([nine.addressGoneSince, headerOf(nine)]).toEqual([Number.POSITIVE_INFINITY, frame(MAC)])
  })

  it('never say that a local address is gone which look-ups never found, as in a VRF: it has no hop, but its flows live', async () => {
    reachable('10.0.0.2')
    const path = open('10.0.0.2', '10.9.9.9')
    await pass(60_000)
    expect([path.addressGoneSince, path.hop, path.why]).toEqual([Number.POSITIVE_INFINITY, -1, 'local address in another routing domain'])
    kernel.own.add('10.9.9.9')
    await notify(CHANGED_ADDRESS)
    expect(headerOf(path)).toBe(frame(MAC))
    kernel.own.delete('10.9.9.9')
    await notify(CHANGED_ADDRESS)
    expect([path.addressGoneSince < Number.POSITIVE_INFINITY, path.why]).toEqual([true, 'local address gone'])
  })

  it.each([EAGAIN, ENOBUFS, ENOMEM])('that cannot be looked into (%i) do not make a local address gone', async (errno) => {
    reachable('10.0.0.2')
    const path = open('10.0.0.2')
    kernel.routeErrno = errno
    await notify(CHANGED_ADDRESS)
    expect([path.addressGoneSince, path.hop]).toEqual([Number.POSITIVE_INFINITY, -1])
    kernel.routeErrno = 0
    await notify(CHANGED_ADDRESS)
    expect(headerOf(path)).toBe(frame(MAC))
  })
})

it('rows do not leak when paths come, move and go', async () => {
  for (let round = 0; round < 50; round++) {
    const paths = Array.from({ length: 10 }, (_, i) => {
      reachable(`10.0.2.${i}`, `02:00:00:00:02:${i.toString(16).padStart(2, '0')}`)
      return open(`10.0.2.${i}`)
    })
    for (let i = 0; i < 10; i++) reachable(`10.0.2.${i}`, `02:00:00:${round.toString(16).padStart(2, '0')}:03:0${i}`)
    await notify(CHANGED_NEIGHBOUR)
    for (const path of paths) path.release()
  }
  expect(hops.table.length).toBeLessThanOrEqual(32 * HOP_WORDS)
})

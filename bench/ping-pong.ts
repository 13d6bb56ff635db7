// Round trips of one message at a time.
import type { Peer } from './contenders/contender.ts'

/** In microseconds, ascending. */
export interface RoundTrips {
  readonly microseconds: number[]
  readonly lost: number
}

/** A round trip that takes longer is lost. */
const LOST_MS = 100

const ignore = () => {}

/** Sends back what arrives. */
export function echo(peer: Peer): void {
  peer.receive((message) => peer.burst(message, 1, ignore))
}

export function pingPong(peer: Peer, size: number, ms: number): Promise<RoundTrips> {
  const message = Buffer.alloc(size, 'x')
  const microseconds: number[] = []
  const end = performance.now() + ms
  let lost = 0
  let sentAt = 0
  let missing = 0
  return new Promise((resolve) => {
    const finish = () => {
      clearInterval(watch)
      peer.receive(ignore)
      resolve({ microseconds: microseconds.sort((a, b) => a - b), lost })
    }
    const ping = () => {
      missing = size
      sentAt = performance.now()
      peer.burst(message, 1, ignore)
    }
    const watch = setInterval(() => {
      const now = performance.now()
      if (now - sentAt < LOST_MS) return
      lost++
      if (now < end) ping()
      else finish()
    }, LOST_MS)
    peer.receive((answer) => {
      missing -= answer.length
      if (missing > 0) return
      const now = performance.now()
      microseconds.push((now - sentAt) * 1000)
      if (now < end) ping()
      else finish()
    })
    ping()
  })
}

// What a peer's process holds: taken before and after, the two must be equal.
import { expect } from 'vitest'
import { descriptors } from '../support/leaks.ts'
import type { Peer } from './peer.ts'

/** timeWait takes 2 s. */
const WAIT = { timeout: 8000, interval: 50 }

export interface Held {
  readonly descriptors: string[]
  /** Timers, sockets, requests: what Node waits for. */
  readonly resources: string[]
  readonly flows: number
}

export async function held(peer: Peer): Promise<Held> {
  return { descriptors: await descriptors(peer.pid), resources: await peer.activeResources(), flows: await peer.flows() }
}

/** No socket, no timer, no slot more than before. */
export async function expectNothingLeft(peer: Peer, before: Held): Promise<void> {
  await expect.poll(() => held(peer), WAIT).toEqual(before)
}

/** The process ends by itself, once the test no longer holds it. */
export async function expectExit(peer: Peer): Promise<void> {
  await peer.letGo()
  expect(await peer.agent.exit).toEqual({ code: 0, signal: null })
}

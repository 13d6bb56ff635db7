// Before and after all tests: removes what test processes that were killed have left.
import { removeStaleNetworks } from './hosts.ts'

export function setup(): void {
  if (process.getuid?.() === 0) removeStaleNetworks()
}

export const teardown = setup

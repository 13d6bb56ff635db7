// Every combination of capture and sender that the options allow: sending by packet goes with capturing by packet only.
import { linkContract } from './link-contract.ts'

for (const family of [4, 6] as const) {
  linkContract({ family, capture: 'packet', sender: 'packet' })
  linkContract({ family, capture: 'packet', sender: 'raw' })
  linkContract({ family, capture: 'raw', sender: 'raw' })
}

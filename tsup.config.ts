// Builds the library and the command line into dist: ESM, with types for the library, what its parts share in chunks. The .cjs files require that same
// build, so no module of the library may use top-level await.
import { defineConfig } from 'tsup'

const LIBRARY = { index: 'lib/index.ts', tunnel: 'lib/tunnel/index.ts', udp: 'lib/udp/index.ts' }

export default defineConfig({
  entry: { ...LIBRARY, 'bin/faketcp': 'bin/faketcp.ts' },
  format: 'esm',
  target: 'node20',
  platform: 'node',
  dts: { entry: LIBRARY },
  sourcemap: true,
  clean: true,
})

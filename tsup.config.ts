// Bundles the library into dist: one ESM build with its types, in which the entries share what they have in common. The .cjs files require that same build, so
// no module may use top-level await.
import { defineConfig } from 'tsup'

export default defineConfig({
  entry: { index: 'lib/index.ts', udp: 'lib/udp/index.ts' },
  format: 'esm',
  target: 'node20',
  platform: 'node',
  dts: true,
  sourcemap: true,
  clean: true,
})

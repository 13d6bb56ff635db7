// Bundles the library into dist: one ESM build with its types. index.cjs requires that same build, so no module may use top-level await.
import { defineConfig } from 'tsup'

export default defineConfig({
  entry: ['lib/index.ts'],
  format: 'esm',
  target: 'node20',
  platform: 'node',
  dts: true,
  sourcemap: true,
  clean: true,
})

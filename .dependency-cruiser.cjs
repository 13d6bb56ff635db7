// Import directions in lib and bin, checked by `npm run lint`: imports run downwards only, and never in a circle. The layers are those of
// docs/architecture.md; a new file must be given its place here.

/** Each layer may import from itself and from the layers that it names. */
const LAYERS = {
  // The command line works through what everybody can import; only its doctor tries the parts one by one.
  command: { path: '^bin/(?!doctor/)', to: ['doctor', 'index', 'tunnel', 'udp', 'leaves'] },
  doctor: { path: '^bin/doctor/', to: ['report', 'index', 'udp', 'carrier', 'link', 'leaves', 'native'] },
  report: { path: '^bin/findings\\.ts$', to: ['leaves'] },
  index: { path: '^lib/index\\.ts$', to: ['tunnel', 'udp', 'verbs', 'streams', 'transport', 'flow', 'link', 'leaves'] },
  tunnel: { path: '^lib/tunnel/', to: ['flow', 'udp', 'verbs', 'streams', 'transport', 'link', 'leaves', 'native'] },
  udp: { path: '^lib/udp/', to: ['verbs', 'streams', 'transport', 'flow', 'link', 'leaves', 'native'] },
  verbs: {
    path: '^lib/(dial|listen|listeners|opening|options)\\.ts$',
    to: ['streams', 'transport', 'engine', 'flow', 'wire', 'carrier', 'link', 'leaves', 'native'],
  },
  // conn.ts and listener.ts are streams over any transport: they know no fake TCP.
  streams: { path: '^lib/(conn|listener)\\.ts$', to: ['transport', 'leaves'] },
  transport: { path: '^lib/transport\\.ts$', to: ['leaves'] },
  engine: { path: '^lib/engine(\\.ts$|/|-)', to: ['transport', 'flow', 'wire', 'carrier', 'link', 'leaves', 'native'] },
  carrier: { path: '^lib/carrier/', to: ['flow', 'wire', 'leaves', 'native'] },
  link: { path: '^lib/link/', to: ['flow', 'wire', 'leaves', 'native'] },
  // flow and wire are pure TypeScript and run without the addon: of native they know the layout of the words, no more. The rules of the wire
  // work on the words of a flow's slot, so they know that layout too.
  wire: { path: '^lib/wire/', to: ['slots', 'leaves', 'layout'] },
  flow: { path: '^lib/flow/', to: ['leaves', 'layout'] },
  slots: { path: '^lib/flow/(layout|serial)\\.ts$', to: ['layout'] },
  leaves: { path: '^lib/(errors|stats|diagnostics|address|clock|message-arena)\\.ts$', to: ['native'] },
  native: { path: '^lib/native/', to: ['errors'] },
  errors: { path: '^lib/errors\\.ts$', to: [] },
  layout: { path: '^lib/native/layout\\.ts$', to: [] },
}

const own = Object.entries(LAYERS).map(([name, { path, to }]) => ({
  name: `${name}-imports-downwards`,
  comment: `The layer ${name} may import only from: ${[name, ...to].join(', ')} (docs/architecture.md, layers)`,
  severity: 'error',
  from: { path },
  to: { path: '^(lib|bin)/', pathNot: [path, ...to.map((layer) => LAYERS[layer].path)] },
}))

module.exports = {
  forbidden: [
    {
      name: 'no-cycles',
      comment: 'Modules that import each other cannot be understood apart',
      severity: 'error',
      from: {},
      to: { circular: true },
    },
    ...own,
    {
      name: 'every-file-has-a-layer',
      comment: 'Give the file a layer in .dependency-cruiser.cjs',
      severity: 'error',
      from: { path: '^(lib|bin)/', pathNot: Object.values(LAYERS).map(({ path }) => path) },
      to: {},
    },
    {
      name: 'lib-imports-lib-only',
      comment:
        'The library needs no package (those in `dependencies` are for the command line), and no tests, examples, benches or scripts',
      severity: 'error',
      from: { path: '^lib/' },
      to: { pathNot: '^lib/', dependencyTypesNot: ['core'] },
    },
    {
      name: 'bin-imports-bin-and-lib-only',
      comment: 'What ships must not need tests, examples, benches or scripts',
      severity: 'error',
      from: { path: '^bin/' },
      to: { pathNot: '^(lib|bin)/', dependencyTypesNot: ['core', 'npm'] },
    },
    {
      name: 'no-dev-dependency-in-bin',
      comment: 'Only `dependencies` are installed with the package',
      severity: 'error',
      from: { path: '^bin/' },
      to: { dependencyTypes: ['npm-dev', 'npm-no-pkg', 'npm-unknown', 'unknown', 'undetermined'] },
    },
  ],
  options: {
    tsConfig: { fileName: 'tsconfig.json' },
    // Type-only imports bind modules as much as others do.
    tsPreCompilationDeps: true,
    doNotFollow: { path: 'node_modules' },
    enhancedResolveOptions: { exportsFields: ['exports'], conditionNames: ['import', 'types', 'node', 'default'] },
  },
}

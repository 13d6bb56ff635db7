export * from './dist/tunnel.js'

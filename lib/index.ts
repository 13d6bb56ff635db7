// faketcp: messages inside packets that look like one healthy TCP connection. Exports only.
export { type ConnOptions, FakeTcpConn, type FakeTcpConnEvents, type Train, type WriteCallback } from './conn.ts'
export { dial } from './dial.ts'
export { FakeTcpError, type FakeTcpErrorCode, type SystemError } from './errors.ts'
export { type FlowEntry, FlowTable, type FlowTableHandle, type FlowTableOptions } from './flow/table.ts'
export type { CaptureMode } from './link/capture.ts'
export type { LinkMode } from './link/sender.ts'
export { listen } from './listen.ts'
export { FakeTcpListener, type FakeTcpListenerEvents, type ListenerOptions } from './listener.ts'
export { listeners } from './listeners.ts'
export {
  createFlowTable,
  type DialOptions,
  type Firewall,
  type FramingMode,
  type ListenOptions,
  type Shard,
  type StreamOptions,
} from './options.ts'
export type { CaptureStats, ConnStats, DirectionStats, FramingStats, Guard, ListenerStats, Rejected, ShardStats } from './stats.ts'
export type { CloseReason, Drop, DropReason, Family, ListenAddress, MtuChange, RefusedConnection } from './transport.ts'

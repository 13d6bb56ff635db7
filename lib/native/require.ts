// The addon, or the one error that says why it cannot be had here.
import { FakeTcpError } from '../errors.ts'
import type { Binding } from './binding.ts'
import { loadBinding } from './loader.ts'

/** @throws FakeTcpError `ERR_FAKETCP_UNSUPPORTED` */
export function requireBinding(): Binding {
  try {
    return loadBinding()
  } catch (cause) {
    throw new FakeTcpError('ERR_FAKETCP_UNSUPPORTED', cause instanceof Error ? cause.message : String(cause), { cause })
  }
}

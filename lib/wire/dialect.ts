// How the far end must be spoken to, as it stands in a flow's S_DIALECT word. docs/wire.md tells what each means.

/** Not known yet: spoken to like tcpraw, one message a segment with PSH. */
export const DIALECT_UNKNOWN = 0
/** This library: a hello was exchanged. */
export const DIALECT_NATIVE = 1
/** Fake TCP without a hello, such as the Go library tcpraw. */
export const DIALECT_TCPRAW = 2
/** A real TCP, which gets and gives a byte stream. */
export const DIALECT_TCP = 3

/** What the far end of a dialled flow is said to be. */
export type Dialect = 'native' | 'tcpraw' | 'tcp'

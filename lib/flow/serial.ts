// Serial number arithmetic for 32-bit sequence numbers (RFC 1982; RFC 9293, 3.4). Knows nothing of flows or segments.
// Every number may be given signed or unsigned; results that are sequence numbers are signed (`| 0`), as an Int32Array keeps them.

/** How far `a` lies after `b` (negative: before it). Two numbers exactly 2^31 apart give -2^31 both ways. */
export function distance(a: number, b: number): number {
  return (a - b) | 0
}

/** Whether `a` lies before `b`. Undefined by RFC 1982 for numbers 2^31 apart; here both lie before each other. */
export function before(a: number, b: number): boolean {
  return ((a - b) | 0) < 0
}

/** Whether `a` lies after `b`. Numbers 2^31 apart lie after neither. */
export function after(a: number, b: number): boolean {
  return ((a - b) | 0) > 0
}

/** The later of two sequence numbers. */
export function maxSeq(a: number, b: number): number {
  return ((a - b) | 0) > 0 ? a | 0 : b | 0
}

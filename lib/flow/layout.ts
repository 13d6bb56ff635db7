// The flow table's memory: one SharedArrayBuffer, every word of it named here, with who may write it, the lock order, and why a
// thread may be terminated between any two operations without leaving the table broken. Constants and geometry only.
//
// | part | words | content |
// |---|---|---|
// | header | HEADER_WORDS | magic, layout version, geometry, hash seed; written once, before the buffer is shared |
// | locks | (shards + 1) * LOCK_WORDS | one lock for each shard, then the pool's; 64 bytes apart, so that two are never on one cache line |
// | registry | MAX_OWNERS * ENTRY_WORDS | one entry for each thread that inserts, removes or had to lock (registry.ts) |
// | index | shards * buckets * BUCKET_WORDS | open addressing, linear probing: a hash and a slot number + 1 (0: empty) |
// | free slots | capacity | a stack of slot numbers, one pool for all shards: a shard can never run out while another has room |
// | slots | capacity * SLOT_WORDS | the flows. A slot never moves while its flow lives |
//
// LOCK ORDER. At most one shard's lock at a time, and the pool's lock only inside it or alone. No lock is held across a call out.
//   shard lock  guards the shard's buckets, and S_VERSION, S_HASH, S_KEY, S_OWNER of the slots whose hash falls into the shard
//   pool lock   guards the stack, POOL_FREE, and every change of a slot between free and not free
//
// WHO WRITES A SLOT. Key, owner, version and hash change only on insert and remove. All others belong to the owner thread alone, who writes them
// without a lock (S_STATE: any state but `free`, which only `remove` writes). Everybody may read everything: a reader who is not the
// owner takes S_VERSION before and after, and what it read in between belongs to one flow if both are the same even number.
//
// READING WITHOUT A LOCK. LOCK_SEQUENCE is odd while buckets change. `find` reads it, probes, and reads it again. An owner who looks for
// a flow of its own need not even do that: a slot that bears its own number and the wanted key cannot be removed by anybody else, so a
// hit is final whatever others do to the buckets meanwhile; only a miss, or another owner's flow, is validated.
//
// DEATH. A slot tells the truth about itself, index and stack are only derived from the slots, and both can be rebuilt at any moment:
//   version even, state free      free                       -> belongs on the stack
//   version odd                   half written               -> belongs to whoever holds the lock of the shard that S_HASH names
//   version even, state not free  a flow                     -> belongs into the index of that shard
// A lock is broken (by compare-and-swap from the dead owner's number to the breaker's) only when its owner's kernel thread is gone, and
// whoever broke it rebuilds what it guards before anything else. Insert, under the shard's lock:
//   a. lock taken, sequence still even      nothing has changed; the rebuild changes nothing
//   b. pool lock taken                      as a; the stack is rebuilt to what it was
//   c. S_HASH written, version odd          the slot is half written; while the pool lock is dead the stack's rebuild leaves it out,
//      POOL_FREE lowered, pool unlocked     and the shard's rebuild frees it (taking, and if need be breaking, the pool lock)
//   d. owner, key, words, state written     as c
//   e. sequence odd, bucket written         as c: the rebuild starts from empty buckets. Readers wait on the odd sequence, or on the lock
//   f. version even                         the flow exists, with a dead owner: `reap` takes it
//   g. sequence even, unlocked              as f
// Remove, under the shard's lock and then the pool's:
//   h. version odd                          the slot is half written: the shard's rebuild finishes the removal
//   i. sequence odd, buckets shifted, even  as h: buckets are rebuilt
//   j. state free, then version even        free, not yet on the stack: the pool lock is dead too, so the stack is rebuilt
//   k. slot on the stack, POOL_FREE raised  done but for the locks; rebuilding changes nothing
// A rebuild that is itself cut off leaves the lock in its own dead name, and all it did was to bring index, stack and half-written slots
// nearer to the truth: the next breaker starts again from the slots. Frees in a rebuild go through j and k. A rebuild never touches
// another shard's half-written slots (their hash names the other shard, and is written before the version turns odd, read after it).
// A thread that dies waiting leaves LOCK_WAITING set: one needless wake-up.

/** `FTFL`. */
export const MAGIC = 0x4654464c
/** Raised with every change of this file that an attached thread could notice. */
export const LAYOUT_VERSION = 3

export const H_MAGIC = 0
export const H_LAYOUT_VERSION = 1
export const H_CAPACITY = 2
export const H_SHARDS = 3
/** Two words, random for each table. */
export const H_SEED = 4
/** Locks of dead threads that were broken since the table was made (Atomics.add by the breaker). */
export const H_RECOVERIES = 6
export const HEADER_WORDS = 16

/** 0: free; otherwise the holder's owner number + 1. */
export const LOCK_OWNER = 0
/** Set by a thread before it sleeps on LOCK_OWNER; whoever unlocks clears it and wakes all. */
export const LOCK_WAITING = 1
/** Shards only: odd while the buckets change. Written by the lock's holder. */
export const LOCK_SEQUENCE = 2
/** Pool only: number of free slots, which is the height of the stack. */
export const POOL_FREE = 3
/** 64 bytes. */
export const LOCK_WORDS = 16

/** 0: never used; otherwise the kernel thread id, negated while the entry is being taken, or NO_THREAD_ID. */
export const ENTRY_THREAD = 0
/** When the thread started, low 32 bits of field 22 of its /proc stat file: thread ids are reused, the pair is not. */
export const ENTRY_START = 1
/** Counts the threads that have had this entry. Part of the owner number: what a predecessor left behind stays recognisable. */
export const ENTRY_GENERATION = 2
export const ENTRY_WORDS = 4
export const OWNER_BITS = 8
export const MAX_OWNERS = 1 << OWNER_BITS
export const GENERATION_MASK = (1 << 22) - 1

export const BUCKET_HASH = 0
export const BUCKET_SLOT = 1
export const BUCKET_WORDS = 2

/** 256 bytes: four cache lines. */
export const SLOT_WORDS = 64

/** Values of S_STATE. */
export const FREE = 0
export const OPENING = 1
export const OPEN = 2
export const CLOSING = 3
export const TIME_WAIT = 4

// What a look-up compares comes first: the twelve words from the key to the version are on one cache line whether the allocator starts the
// buffer on a line or, as malloc does, 16 bytes after the start of one.
/** Nine words in the order of native/layout.ts. */
export const S_KEY = 0
/** Owner number of the thread whose flow this is, NO_OWNER in a free slot. */
export const S_OWNER = 9
/** FREE to TIME_WAIT. The owner writes any of them but FREE. */
export const S_STATE = 10
/** Even: stable. Odd: being inserted or removed. Raised by two with each insert and each remove. */
export const S_VERSION = 11
export const S_HASH = 12
/** Next sequence number to send. */
export const S_SND_NXT = 13
/** One past the highest sequence number ever sent. */
export const S_SND_MAX = 14
/** The peer's highest acknowledgement. */
export const S_SND_UNA = 15
/** The peer's window in bytes, scaled. */
export const S_SND_WND = 16
/** Our acknowledgement: one past the highest sequence number seen. */
export const S_RCV_NXT = 17
/** The acknowledgement last sent. */
export const S_RCV_ACKED = 18
/** How far from the highest we accept, in bytes: the largest window that we advertise. */
export const S_RCV_WND = 19
/** The window that we advertise now, as it stands in the header. */
export const S_RCV_WINDOW_FIELD = 20
/** Shift of the peer's window field. */
export const S_SND_SCALE = 21
/** Shift of ours. */
export const S_RCV_SCALE = 22
/** Our initial sequence number. */
export const S_ISN = 23
/** The peer's initial sequence number. */
export const S_IRS = 24
/** The engine's number for the dialect. */
export const S_DIALECT = 25
/** Bit set, see FLAG_*. */
export const S_FLAGS = 26
/** The peer's newest TSval. */
export const S_TS_RECENT = 27
/** Added to a millisecond clock it gives our TSval. */
export const S_TS_OFFSET = 28
/** Bytes of the longest message that fits one segment. */
export const S_MAX_MESSAGE = 29
/** How often the window bound set S_SND_NXT back to S_SND_UNA. */
export const S_SET_BACKS = 30
// Words 32 to 49 are the counters below.
/** The newest TSval sent. */
export const S_TS_SENT = 50
/** The newest of ours that the peer has echoed. */
export const S_TS_ECHOED = 51
/** An acknowledgement below this is too old to be believed of a peer that is judged strictly. */
export const S_ACK_FLOOR = 52
/** What S_ACK_FLOOR is raised to next. */
export const S_ACK_FLOOR_NEXT = 53
/** The same for echoed timestamps. */
export const S_ECHO_FLOOR = 54
export const S_ECHO_FLOOR_NEXT = 55
/** IPv4 identification of the next segment, 16 bits. */
export const S_IP_ID = 56
/** What D_TTL of native/layout.ts wants: TOS or traffic class, and TTL or hop limit. */
export const S_TOS_TTL = 57
/** Bytes of the longest IP packet that the path is known to take. */
export const S_PATH_MTU = 58
// Word 31 and from S_SPARE to the end are free for later. All are 0 in a new flow.
export const S_SPARE = 59

/** Bits of S_FLAGS: the handshake negotiated timestamps (RFC 7323). */
export const FLAG_TIMESTAMPS = 1
/** What arrives must show that its sender sees what we send. */
export const FLAG_STRICT = 2

// Counters are doubles: element `(base >> 1) + F_*` of the Float64Array over the same memory. They take words 32–49.
export const F_MESSAGES_IN = 16
export const F_BYTES_IN = 17
export const F_MESSAGES_OUT = 18
export const F_BYTES_OUT = 19
export const F_DROPPED_IN = 20
export const F_DROPPED_OUT = 21
export const F_LAST_HEARD_MS = 22
export const F_LAST_SENT_MS = 23
export const F_OPENED_MS = 24

/** S_OWNER of a free slot. */
export const NO_OWNER = -1
/** ENTRY_THREAD where the system does not tell (no /proc): such a thread counts as alive for ever. */
export const NO_THREAD_ID = 0x7fffffff

/** Where each part starts, in words from the start of the buffer. */
export interface Geometry {
  readonly capacity: number
  readonly shards: number
  /** Buckets of each shard, a power of two. */
  readonly buckets: number
  readonly locks: number
  readonly poolLock: number
  readonly registry: number
  readonly index: number
  readonly stack: number
  readonly slots: number
  readonly words: number
}

/**
 * The layout of a table of `capacity` slots in `shards` shards. A shard's index is at most half full when it holds all flows of a table
 * of up to 1024, or six standard deviations more than its share of a larger one.
 */
export function geometry(capacity: number, shards: number): Geometry {
  const share = capacity / shards
  const most = Math.min(capacity, Math.max(1024, Math.ceil(share + 6 * Math.sqrt(share) + 16)))
  const buckets = 2 ** Math.ceil(Math.log2(2 * most))
  const locks = HEADER_WORDS
  const poolLock = locks + shards * LOCK_WORDS
  const registry = poolLock + LOCK_WORDS
  const index = registry + MAX_OWNERS * ENTRY_WORDS
  const stack = index + shards * buckets * BUCKET_WORDS
  const slots = Math.ceil((stack + capacity) / LOCK_WORDS) * LOCK_WORDS
  return { capacity, shards, buckets, locks, poolLock, registry, index, stack, slots, words: slots + capacity * SLOT_WORDS }
}

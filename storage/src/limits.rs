//! Every bound of the store, by name, in one place.
//!
//! A bound that depends on another is proven at compile time at the end of this file.

/// Longest user, device, conversation or client id, in bytes.
pub const MAX_ID_BYTES: usize = 64;
/// Longest message body, in bytes.
pub const MAX_BODY_BYTES: usize = 64 * 1024;
/// Longest content type, in bytes.
pub const MAX_CONTENT_TYPE_BYTES: usize = 128;
/// Longest conversation name, in bytes.
pub const MAX_NAME_BYTES: usize = 256;
/// Most members that one command may name.
pub const MAX_MEMBERS_PER_COMMAND: usize = 1_000;
/// Most members that a group or channel may have.
pub const MAX_MEMBERS: usize = 5_000;
/// Most references that one command may append, over all queues.
pub const MAX_FAN_OUT: usize = 100_000;
/// Most devices that one user may have.
pub const MAX_DEVICES_PER_USER: usize = 64;
/// Most items, messages or conversations in one page of a query.
pub const MAX_PAGE: usize = 500;
/// How long a client id names the same send, in milliseconds (24 h).
pub const DEDUP_WINDOW_MS: u64 = 24 * 60 * 60 * 1_000;
/// Records of the dedup window that a filter in memory knows, so that new requests need not be looked
/// up; with more in the window, all are. 60 MiB at most.
pub const MAX_SEEN_RECORDS: usize = 40 * 1024 * 1024;
/// Records that the filter takes in from the store behind one checkpoint, after a start.
pub const LEARN_STEP_RECORDS: usize = 1024 * 1024;
/// Most expired dedup records that one command removes; more than one, so that the backlog shrinks.
pub const DEDUP_EXPIRE_PER_COMMAND: usize = 4;
/// Longest message lifetime that a sender may ask for, in milliseconds (ten years).
pub const MAX_TTL_MS: u64 = 10 * 365 * 24 * 60 * 60 * 1_000;
/// Most commands in one log entry.
pub const MAX_BATCH_COMMANDS: usize = 1_024;
/// Largest log entry payload, in bytes.
pub const MAX_ENTRY_BYTES: usize = 4 * 1024 * 1024;
/// Commands are gathered into one entry up to this many bytes of bodies.
pub const TARGET_BATCH_BYTES: usize = 1024 * 1024;
/// Commands are gathered into one entry up to about this many references, over all queues.
pub const TARGET_BATCH_REFERENCES: usize = 2 * MAX_FAN_OUT;
/// Dirty state that the hot tier may hold before proposals wait, in bytes.
pub const DEFAULT_DIRTY_BYTES: usize = 256 * 1024 * 1024;
/// Most spans of references in one stored queue segment.
pub const QUEUE_SEGMENT_SPANS: usize = 256;
/// A stored queue segment below this many bytes takes in the references that follow it.
pub const QUEUE_SEGMENT_MERGE_BYTES: usize = 2 * 1024;
/// Largest stored queue segment, in bytes; only reached when each span names another long id.
pub const MAX_QUEUE_SEGMENT_BYTES: usize = 64 * 1024;
/// A stored message segment is closed once it has this many bytes.
pub const MESSAGE_SEGMENT_BYTES: usize = 32 * 1024;
/// Largest stored message segment, in bytes: one that was almost full and took one big message.
pub const MAX_MESSAGE_SEGMENT_BYTES: usize = MESSAGE_SEGMENT_BYTES + MAX_BODY_BYTES + 1_024;
/// Most records in one stored segment of the dedup window: a retry of an old send reads one.
pub const DEDUP_SEGMENT_RECORDS: usize = 128;
/// Largest stored segment of dedup records, in bytes.
pub const MAX_DEDUP_SEGMENT_BYTES: usize = DEDUP_SEGMENT_RECORDS * (3 * MAX_ID_BYTES + 64);
/// Largest stored record, in bytes; the members of a full conversation are the largest.
pub const MAX_RECORD_BYTES: usize = MAX_MEMBERS * (MAX_ID_BYTES + 16);
/// Decoded message segments that queries keep for each other, in bytes.
pub const SEGMENT_CACHE_BYTES: usize = 16 * 1024 * 1024;
/// A conversation list looks for the newest message that is still shown among this many.
pub const LAST_MESSAGE_LOOKBACK: u64 = 64;
/// Largest value that the codec decodes, whatever its caller allows, in bytes.
pub const MAX_DECODE_BYTES: usize = 16 * 1024 * 1024;
/// Longest key of the cold tier, without the shard in front, in bytes.
pub const MAX_KEY_BYTES: usize = 512;
/// Largest value of the cold tier, in bytes.
pub const MAX_VALUE_BYTES: usize = 1024 * 1024;
/// Most keys in one write batch of an engine: sled's memory explodes with large ones.
pub const MAX_ENGINE_BATCH_KEYS: usize = 32;
/// Bytes of keys and values at which an engine's write batch is closed.
pub const TARGET_ENGINE_BATCH_BYTES: usize = 1024 * 1024;
/// Memory that an engine may use for its block cache, in bytes.
pub const ENGINE_CACHE_BYTES: usize = 64 * 1024 * 1024;
/// Bytes that fjall gathers in memory before it writes a table.
pub const ENGINE_WRITE_BUFFER_BYTES: usize = 16 * 1024 * 1024;
/// Bytes of keys and values at which a frame of a journal or snapshot file is closed.
pub const TARGET_FRAME_BYTES: usize = 256 * 1024;
/// Largest frame of a journal or snapshot file, in bytes: one largest change on top of a full frame.
pub const MAX_FRAME_BYTES: usize = 1536 * 1024;

const _: () = assert!(MAX_MEMBERS_PER_COMMAND <= MAX_MEMBERS);
const _: () = assert!(MAX_MEMBERS <= MAX_FAN_OUT);
const _: () = assert!(DEDUP_EXPIRE_PER_COMMAND > 1);
const _: () = assert!(TARGET_BATCH_BYTES + 2 * MAX_BODY_BYTES <= MAX_ENTRY_BYTES);
const _: () = assert!(MAX_ENTRY_BYTES * 4 <= DEFAULT_DIRTY_BYTES);
const _: () = assert!(MAX_ENTRY_BYTES <= MAX_DECODE_BYTES);
const _: () =
    assert!(TARGET_FRAME_BYTES + MAX_KEY_BYTES + MAX_VALUE_BYTES + 64 * 1024 <= MAX_FRAME_BYTES);
const _: () = assert!(MAX_FRAME_BYTES <= MAX_DECODE_BYTES);
const _: () = assert!(QUEUE_SEGMENT_SPANS * (2 * MAX_ID_BYTES + 32) <= MAX_QUEUE_SEGMENT_BYTES);
const _: () = assert!(MAX_ID_BYTES * 2 + MAX_CONTENT_TYPE_BYTES + 64 <= 1_024);
const _: () = assert!(MAX_QUEUE_SEGMENT_BYTES <= MAX_VALUE_BYTES);
const _: () = assert!(MAX_MESSAGE_SEGMENT_BYTES <= MAX_VALUE_BYTES);
const _: () = assert!(MAX_DEDUP_SEGMENT_BYTES <= MAX_VALUE_BYTES);
const _: () = assert!(MAX_RECORD_BYTES <= MAX_VALUE_BYTES);

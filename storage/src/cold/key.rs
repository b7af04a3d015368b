//! How a shard's keys lie in the engine, and which changes the cold tier takes.
//!
//! ```text
//! shard (u16, big-endian) | 0x00 "meta"          the newest finished checkpoint's meta
//! shard (u16, big-endian) | 0x01 … 0xfe | …      the hot tier's keys, as it gave them
//! ```
//!
//! No key starts with 0xff, so that `shard | 0xff` ends every range.

use crate::Fault;
use crate::engine::ChangeRef;
use crate::limits::{MAX_KEY_BYTES, MAX_VALUE_BYTES};
use crate::model::ShardId;

/// The lowest key that the hot tier may use.
pub(super) const LOWEST: &[u8] = &[0x01];
/// Above the highest key that the hot tier may use.
pub(super) const END: &[u8] = &[0xff];
/// Above every key of every shard.
pub(super) const ENGINE_END: &[u8] = &[0xff, 0xff, 0xff];
/// The meta's key, without the shard.
pub(super) const META: &[u8] = b"\x00meta";

/// A key as the engine has it.
pub(super) fn stored(shard: ShardId, key: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(2 + key.len());
    store(&mut stored, shard, key);
    stored
}

/// Replaces what is in `stored` by a key as the engine has it.
pub(super) fn store(stored: &mut Vec<u8>, shard: ShardId, key: &[u8]) {
    stored.clear();
    stored.extend_from_slice(&shard.0.to_be_bytes());
    stored.extend_from_slice(key);
}

/// A key as the hot tier knows it, from one that the engine has.
pub(super) fn bare(stored: &[u8]) -> &[u8] {
    &stored[2..]
}

/// Refuses a change outside the bounds, or of a key that is not the hot tier's to use.
pub(super) fn check(change: ChangeRef<'_>) -> Result<(), Fault> {
    let key = change.key();
    if key < LOWEST || key >= END || key.len() > MAX_KEY_BYTES {
        let len = key.len();
        return Err(Fault::corrupt(format!("a key of {len} bytes that the cold tier can't have")));
    }
    match change {
        ChangeRef::Put(_, value) if value.len() > MAX_VALUE_BYTES => {
            let len = value.len();
            Err(Fault::corrupt(format!("a value of {len} bytes, more than the cold tier takes")))
        }
        _ => Ok(()),
    }
}

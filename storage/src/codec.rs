//! How values become bytes and come back: the one place that names bincode.
//!
//! Every encoded value is a version byte followed by bincode's standard layout (little-endian,
//! variable-length integers), for log entries, stored values and peer calls alike. Golden vectors
//! in `tests/golden/` pin the bytes, so that another crate can take bincode's place without a
//! migration.
//!
//! Promised: [`decode`] takes only what is exactly one value: it refuses other versions, bytes that
//! are left over, and input past the caller's bound before anything is allocated; ids are checked by
//! their own types. (bincode takes a number that is spelt longer than [`encode`] spells it, so bytes
//! that decode need not be those that encode: compare values, or the bytes that were written.) A hostile length inside the input never allocates more than a small multiple of
//! the input's own length. Left to others: checksums, which belong to the files and the transport.

mod pieces;

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Fault;
use crate::command::{Batch, Command};
use crate::limits::{MAX_BATCH_COMMANDS, MAX_DECODE_BYTES, MAX_ENTRY_BYTES};

pub use self::pieces::{Reader, Writer};

/// The version byte of everything that this build encodes.
pub const VERSION: u8 = 1;

/// A batch that does not fit into one log entry of [`MAX_ENTRY_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a batch of {commands} commands and {bytes} bytes is more than one log entry takes")]
pub struct BatchTooLarge {
    /// How many commands it has.
    pub commands: usize,
    /// How many bytes it takes encoded.
    pub bytes: usize,
}

const CONFIG: Configuration<LittleEndian, Varint> = bincode::config::standard();

/// Room for what most values take: growing to it byte by byte would copy them several times.
const USUAL_BYTES: usize = 64;

/// Encodes a value, with the version byte in front.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    encode_about(value, USUAL_BYTES)
}

/// [`encode`] where the value takes about so many bytes.
pub fn encode_about<T: Serialize>(value: &T, bytes: usize) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(bytes);
    encode_over(value, &mut encoded);
    encoded
}

/// Replaces what is in `bytes` by what [`encode`] gives.
pub(crate) fn encode_over<T: Serialize + ?Sized>(value: &T, bytes: &mut Vec<u8>) {
    bytes.clear();
    bytes.push(VERSION);
    encode_into(value, bytes);
}

/// Appends a value's bytes without a version byte, for a file whose header has the version.
pub(crate) fn encode_into<T: Serialize + ?Sized>(value: &T, bytes: &mut Vec<u8>) {
    bincode::serde::encode_into_std_write(value, bytes, CONFIG).expect(
        "the store's types have plain fields and sized sequences, and a vector takes any write",
    );
}

/// Decodes what [`encode`] gave. `what` names the record in errors; `max_len` bounds its bytes.
///
/// # Errors
/// [`Fault::Version`] for another version, [`Fault::Corrupt`] for anything else that is not exactly
/// one value of the type. No content gets into the message.
pub fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8], max_len: usize) -> Result<T, Fault> {
    check_length(what, bytes, max_len)?;
    decode_body(what, body(what, bytes)?)
}

/// Decodes what [`encode_into`] appended; the value may borrow from it.
pub(crate) fn decode_bare<'a, T: Deserialize<'a>>(
    what: &str,
    bytes: &'a [u8],
    max_len: usize,
) -> Result<T, Fault> {
    check_length(what, bytes, max_len)?;
    decode_body(what, bytes)
}

/// Encodes a log entry's payload.
///
/// # Errors
/// [`BatchTooLarge`] past [`MAX_BATCH_COMMANDS`] or [`MAX_ENTRY_BYTES`]: whoever gathers batches
/// keeps below both.
pub fn encode_batch(batch: &Batch) -> Result<Vec<u8>, BatchTooLarge> {
    let bytes = encode_about(batch, batch.commands.iter().map(Command::encoded_about).sum());
    if batch.commands.len() > MAX_BATCH_COMMANDS || bytes.len() > MAX_ENTRY_BYTES {
        return Err(BatchTooLarge { commands: batch.commands.len(), bytes: bytes.len() });
    }
    Ok(bytes)
}

/// Decodes a log entry's payload.
///
/// # Errors
/// Those of [`decode`], and [`Fault::Corrupt`] for more than [`MAX_BATCH_COMMANDS`] commands.
pub fn decode_batch(bytes: &[u8]) -> Result<Batch, Fault> {
    let batch: Batch = decode("a log entry's batch", bytes, MAX_ENTRY_BYTES)?;
    if batch.commands.len() > MAX_BATCH_COMMANDS {
        return Err(Fault::corrupt("a log entry's batch has too many commands"));
    }
    Ok(batch)
}

/// What follows the version byte.
fn body<'a>(what: &str, bytes: &'a [u8]) -> Result<&'a [u8], Fault> {
    match bytes.split_first() {
        None => Err(Fault::corrupt(format!("{what} is empty"))),
        Some((&VERSION, body)) => Ok(body),
        Some((&found, _)) => {
            Err(Fault::Version { what: what.to_owned(), found, supported: VERSION })
        }
    }
}

fn check_length(what: &str, bytes: &[u8], max_len: usize) -> Result<(), Fault> {
    let most = max_len.min(MAX_DECODE_BYTES);
    if bytes.len() > most {
        let len = bytes.len();
        return Err(Fault::corrupt(format!("{what} has {len} bytes, more than {most}")));
    }
    Ok(())
}

fn check_all_used(what: &str, left: usize) -> Result<(), Fault> {
    match left {
        0 => Ok(()),
        left => Err(Fault::corrupt(format!("{what} has {left} bytes too many"))),
    }
}

fn decode_body<'a, T: Deserialize<'a>>(what: &str, body: &'a [u8]) -> Result<T, Fault> {
    let (value, used) = decode_front(what, body)?;
    check_all_used(what, body.len() - used)?;
    Ok(value)
}

/// Decodes the value that `body` begins with; returns how long it is too.
///
/// bincode takes its memory bound as a constant, and counts up to eight bytes for one of input; so
/// the bound is picked by the input's length from a short ladder.
fn decode_front<'a, T: Deserialize<'a>>(what: &str, body: &'a [u8]) -> Result<(T, usize), Fault> {
    const SMALL: usize = 64 * 1024;
    const MEDIUM: usize = 1024 * 1024;
    if body.len() <= SMALL {
        decode_within::<{ 16 * SMALL }, T>(what, body)
    } else if body.len() <= MEDIUM {
        decode_within::<{ 16 * MEDIUM }, T>(what, body)
    } else {
        decode_within::<{ 16 * MAX_DECODE_BYTES }, T>(what, body)
    }
}

fn decode_within<'a, const MEMORY: usize, T: Deserialize<'a>>(
    what: &str,
    body: &'a [u8],
) -> Result<(T, usize), Fault> {
    let config: Configuration<LittleEndian, Varint, Limit<MEMORY>> = CONFIG.with_limit::<MEMORY>();
    bincode::serde::borrow_decode_from_slice(body, config)
        .map_err(|_| Fault::corrupt(format!("{what} does not decode")))
}

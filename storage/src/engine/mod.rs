//! The cold tier's engine: ordered keys and values, and nothing more.
//!
//! An engine has to order keys, take small batches and say when they are durable. Whether a checkpoint
//! as a whole is atomic, it may leave to the cold tier's journal. Three do that much: [`memory`] for tests and the simulation,
//! [`fjall`] by default, [`sled`] as the alternative. One conformance suite runs on all of them.
//!
//! [`open`] picks one by configuration and marks the folder with it, so that a data folder made
//! with one engine is never opened with the other and taken for empty.

use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Fault;
use crate::limits::{MAX_ENGINE_BATCH_KEYS, TARGET_ENGINE_BATCH_BYTES};

mod folder;
mod writeback;
pub mod memory;
pub mod sled;
pub mod fjall;

pub use self::folder::{open, owner};

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// Which engine keeps the cold tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EngineKind {
    /// sled 0.34.
    Sled,
    /// fjall 3.
    #[default]
    Fjall,
}

impl EngineKind {
    /// Its name, in the configuration and on disk.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sled => "sled",
            Self::Fjall => "fjall",
        }
    }

    /// Whether it may give back less, after a loss of power, than it had reported durable.
    pub fn may_lose_flushed(self) -> bool {
        self == Self::Sled
    }
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A name that is no engine's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an engine is `sled` or `fjall`")]
pub struct UnknownEngine;

impl FromStr for EngineKind {
    type Err = UnknownEngine;
    fn from_str(name: &str) -> Result<Self, UnknownEngine> {
        [Self::Sled, Self::Fjall]
            .into_iter()
            .find(|kind| kind.as_str() == name)
            .ok_or(UnknownEngine)
    }
}

/// The order in which [`Engine::visit`] goes through keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the start of the range.
    Ascending,
    /// From the end of the range.
    Descending,
}

/// One change of the engine's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Sets a key.
    Put(#[serde(with = "serde_bytes")] Vec<u8>, #[serde(with = "serde_bytes")] Vec<u8>),
    /// Removes a key.
    Delete(#[serde(with = "serde_bytes")] Vec<u8>),
}

impl Change {
    /// The key that it changes.
    pub fn key(&self) -> &[u8] {
        match self {
            Self::Put(key, _) | Self::Delete(key) => key,
        }
    }

    /// Bytes of its key and value.
    pub fn size(&self) -> usize {
        self.as_ref().size()
    }

    /// The same, borrowing.
    pub fn as_ref(&self) -> ChangeRef<'_> {
        match self {
            Self::Put(key, value) => ChangeRef::Put(key, value),
            Self::Delete(key) => ChangeRef::Delete(key),
        }
    }
}

/// A [`Change`] that borrows key and value; it has the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChangeRef<'a> {
    /// Sets a key.
    Put(
        #[serde(borrow, with = "serde_bytes")] &'a [u8],
        #[serde(borrow, with = "serde_bytes")] &'a [u8],
    ),
    /// Removes a key.
    Delete(#[serde(borrow, with = "serde_bytes")] &'a [u8]),
}

impl<'a> ChangeRef<'a> {
    /// The key that it changes.
    pub fn key(self) -> &'a [u8] {
        match self {
            Self::Put(key, _) | Self::Delete(key) => key,
        }
    }

    /// Bytes of its key and value.
    pub fn size(self) -> usize {
        match self {
            Self::Put(key, value) => key.len() + value.len(),
            Self::Delete(key) => key.len(),
        }
    }

    /// The same change of another key.
    pub fn with_key(self, key: &'a [u8]) -> Self {
        match self {
            Self::Put(_, value) => Self::Put(key, value),
            Self::Delete(_) => Self::Delete(key),
        }
    }

    /// A change with its own key and value.
    pub fn to_change(self) -> Change {
        match self {
            Self::Put(key, value) => Change::Put(key.to_vec(), value.to_vec()),
            Self::Delete(key) => Change::Delete(key.to_vec()),
        }
    }
}

/// What takes changes, one after the other.
pub type Sink<'a> = dyn FnMut(ChangeRef<'_>) -> Result<(), Fault> + 'a;
/// What gives all its changes to a sink.
pub type Feed<'a> = dyn FnMut(&mut Sink<'_>) -> Result<(), Fault> + 'a;

/// What [`Engine::visit`] calls with each key and value.
pub type Visitor<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// Ordered keys and values. Writes are readable on return and durable after [`Engine::flush`]; a
/// crash before it may keep any of them. One writer at a time; readers at any time. No key is empty.
pub trait Engine: Send + Sync + std::fmt::Debug + 'static {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Fault>;
    /// Goes through the pairs with `start <= key < end` until the visitor breaks off. The visitor
    /// must not call the engine. Holds no more than one pair in memory at a time.
    fn visit(
        &self,
        start: &[u8],
        end: &[u8],
        direction: Direction,
        visitor: &mut Visitor<'_>,
    ) -> Result<(), Fault>;
    /// Carries out changes, in order. Not atomic. Splits large batches by itself.
    fn write(&self, changes: Vec<Change>) -> Result<(), Fault>;
    /// Carries out changes whose keys ascend, each key once: the same as [`Engine::write`], for an
    /// engine that has a shorter way for many of them. Readers may see them only at the end.
    fn write_sorted(&self, feed: &mut Feed<'_>) -> Result<(), Fault> {
        let mut piece = Vec::new();
        feed(&mut |change| {
            piece.push(change.to_change());
            if piece.len() < MAX_ENGINE_BATCH_KEYS {
                return Ok(());
            }
            self.write(std::mem::take(&mut piece))
        })?;
        self.write(piece)
    }
    /// Whether [`Engine::write_sorted`] is all or nothing, also at a crash, and durable on return. The
    /// cold tier needs no journal then.
    fn writes_sorted_whole(&self) -> bool {
        false
    }
    /// Below how many bytes a value that goes on growing is better written again than followed by
    /// another one. 0 where small values cost little and rewriting them costs more.
    fn merge_bytes(&self) -> usize {
        usize::MAX
    }
    /// Makes all writes durable. After an error nothing is known about them: the node stops.
    fn flush(&self) -> Result<(), Fault>;
    /// Removes everything. A crash meanwhile may leave any part; it is then called again.
    fn clear(&self) -> Result<(), Fault>;
    /// Bytes on disk, as far as the engine knows.
    fn disk_bytes(&self) -> Result<u64, Fault>;

    /// Up to `limit` pairs with `start <= key < end`, ascending.
    fn scan(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<Pair>, Fault> {
        collect(self, start, end, Direction::Ascending, limit)
    }
    /// Up to `limit` pairs with `start <= key < end`, descending from the end.
    fn scan_back(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<Pair>, Fault> {
        collect(self, start, end, Direction::Descending, limit)
    }
}

fn collect<E: Engine + ?Sized>(
    engine: &E,
    start: &[u8],
    end: &[u8],
    direction: Direction,
    limit: usize,
) -> Result<Vec<Pair>, Fault> {
    let mut pairs = Vec::new();
    if limit == 0 {
        return Ok(pairs);
    }
    engine.visit(start, end, direction, &mut |key, value| {
        pairs.push((key.to_vec(), value.to_vec()));
        if pairs.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(pairs)
}

/// Calls the visitor with each pair of an engine's range, from the end that the direction names.
pub(crate) fn visit_pairs<K: AsRef<[u8]>, V: AsRef<[u8]>>(
    mut pairs: impl DoubleEndedIterator<Item = Result<(K, V), Fault>>,
    direction: Direction,
    visitor: &mut Visitor<'_>,
) -> Result<(), Fault> {
    let mut next = || match direction {
        Direction::Ascending => pairs.next(),
        Direction::Descending => pairs.next_back(),
    };
    while let Some(pair) = next() {
        let (key, value) = pair?;
        if let ControlFlow::Break(()) = visitor(key.as_ref(), value.as_ref()) {
            break;
        }
    }
    Ok(())
}

/// Splits changes, in order, into batches that an engine takes well.
pub(crate) fn batches(changes: Vec<Change>) -> impl Iterator<Item = Vec<Change>> {
    group(changes, MAX_ENGINE_BATCH_KEYS, TARGET_ENGINE_BATCH_BYTES)
}

/// Splits changes, in order, into groups that are closed at `max_keys`, or once they hold
/// `target_bytes` of keys and values.
pub(crate) fn group(
    changes: Vec<Change>,
    max_keys: usize,
    target_bytes: usize,
) -> impl Iterator<Item = Vec<Change>> {
    let mut changes = changes.into_iter();
    std::iter::from_fn(move || {
        let mut group = Vec::new();
        let mut bytes = 0;
        while group.len() < max_keys && bytes < target_bytes {
            let Some(change) = changes.next() else { break };
            bytes += change.size();
            group.push(change);
        }
        (!group.is_empty()).then_some(group)
    })
}

fn cannot_open(path: &Path, error: &dyn fmt::Display) -> Fault {
    Fault::Engine(format!(
        "can't open {}: {error}. If another process has it open, stop that one. If the files are \
         damaged, the other nodes have what was acknowledged, and go on; this version can't rebuild \
         or replace a node yet, so keep its folder",
        path.display()
    ))
}

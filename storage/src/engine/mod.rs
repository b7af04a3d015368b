//! The cold tier's engine: ordered keys and values, and nothing more.
//! (Skeleton: helper B finishes it.)

use crate::Fault;

/// Which engine keeps the cold tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EngineKind {
    /// sled 0.34.
    #[default]
    Sled,
    /// fjall 3.
    Fjall,
}

/// One change of the engine's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Sets a key.
    Put(Vec<u8>, Vec<u8>),
    /// Removes a key.
    Delete(Vec<u8>),
}

/// Ordered keys and values. Writes are durable after [`Engine::flush`]; a crash before it may keep
/// any of them. One writer at a time; readers at any time.
pub trait Engine: Send + Sync + std::fmt::Debug + 'static {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Fault>;
    /// Up to `limit` pairs with `start <= key < end`, ascending.
    fn scan(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Vec<u8>)>, Fault>;
    /// Up to `limit` pairs with `start <= key < end`, descending from the end.
    fn scan_back(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Vec<u8>)>, Fault>;
    /// Carries out changes, in order. Not atomic.
    fn write(&self, changes: Vec<Change>) -> Result<(), Fault>;
    /// Makes all writes durable.
    fn flush(&self) -> Result<(), Fault>;
    /// Removes everything.
    fn clear(&self) -> Result<(), Fault>;
    /// Bytes on disk, as far as the engine knows.
    fn disk_bytes(&self) -> Result<u64, Fault>;
}

//! Faults: what stops a node.
//!
//! A [`Rejection`](crate::command::Rejection) is a deterministic answer to a command and the same
//! on every node. A [`Fault`] is this node's own trouble: a failed write, a checksum that does not
//! match, bytes of an unknown version. It is never retried: the node stops with a clear message.

use std::io;

/// Why this node can't go on.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The operating system refused to read or write.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, with the file's name.
        what: String,
        /// The operating system's error.
        source: io::Error,
    },
    /// Bytes on disk are not what was written.
    #[error("corrupt data: {0}")]
    Corrupt(String),
    /// Bytes on disk are of a version that this build does not read.
    #[error("{what} has version {found}, this build reads {supported}")]
    Version {
        /// Which file or record.
        what: String,
        /// The version found.
        found: u8,
        /// The newest version that this build reads.
        supported: u8,
    },
    /// The engine below the cold tier reported an error.
    #[error("storage engine: {0}")]
    Engine(String),
    /// A caller broke a rule of the interface; nothing was changed.
    #[error("refused: {0}")]
    Misuse(String),
    /// An earlier fault already stopped the store.
    #[error("the store stopped at an earlier fault: {0}")]
    Stopped(String),
}

impl Fault {
    /// An [`Fault::Io`] that says what was being done.
    pub fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }

    /// A [`Fault::Corrupt`] with its description.
    pub fn corrupt(what: impl Into<String>) -> Self {
        Self::Corrupt(what.into())
    }

    /// A [`Fault::Misuse`] with its description.
    pub fn misuse(what: impl Into<String>) -> Self {
        Self::Misuse(what.into())
    }
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        Self::other(fault)
    }
}

//! Peer messages as bytes: versioned by the store's codec, capped, and opaque to the transport that carries them.

use std::io;

use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};
use roost_storage::codec;
use roost_storage::model::LogPosition;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::types::{StoredMembership, TypeConfig, Vote};

/// Largest peer message, in bytes: a read for replication, or one entry of the largest size, with
/// room for the envelope.
pub const MAX_MESSAGE_BYTES: usize = 8 * 1024 * 1024;

const _: () = assert!(roost_storage::limits::MAX_ENTRY_BYTES * 3 / 2 <= MAX_MESSAGE_BYTES);

/// Bytes of a snapshot that one message carries.
pub const SNAPSHOT_CHUNK_BYTES: usize = 1024 * 1024;

/// What a node asks of a peer's replica.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Entries, or a heartbeat without any.
    Append(AppendEntriesRequest<TypeConfig>),
    /// A candidate asks for a vote.
    Vote(VoteRequest<TypeConfig>),
    /// Would you vote for me?
    PreVote(VoteRequest<TypeConfig>),
    /// The leader hands over.
    TransferLeader(TransferLeaderRequest<TypeConfig>),
    /// A part of a snapshot file.
    SnapshotChunk {
        /// Names the transfer; drawn by the sender.
        transfer: u64,
        /// Where the part belongs. A transfer starts with 0 and goes on without a hole.
        offset: u64,
        /// The part.
        bytes: Bytes,
    },
    /// The file is complete: install it.
    SnapshotInstall {
        /// The transfer.
        transfer: u64,
        /// The file's length in bytes.
        len: u64,
        /// The leader's vote.
        vote: Vote,
        /// Up to where the snapshot goes.
        last: Option<LogPosition>,
        /// The membership at that point.
        membership: StoredMembership,
    },
}

/// What the replica answers.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// To [`Request::Append`].
    Append(AppendEntriesResponse<TypeConfig>),
    /// To [`Request::Vote`] and [`Request::PreVote`].
    Vote(VoteResponse<TypeConfig>),
    /// To [`Request::TransferLeader`].
    TransferLeader(openraft::raft::TransferLeaderResponse<TypeConfig>),
    /// To [`Request::SnapshotChunk`].
    SnapshotChunk,
    /// To [`Request::SnapshotInstall`].
    SnapshotInstall(SnapshotResponse<TypeConfig>),
    /// The replica could not do it; nothing more is known.
    Failed(String),
    /// To parts of a snapshot: the disk has no room for it, and the transfer is given up.
    NoRoom,
}

/// Decodes what [`codec::encode`] made of a message; `what` names it in errors.
pub(crate) fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> io::Result<T> {
    Ok(codec::decode(what, bytes, MAX_MESSAGE_BYTES)?)
}

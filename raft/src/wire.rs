//! Peer messages as bytes: versioned by the store's codec, capped, and opaque to the transport that carries them.

use std::io;
use std::slice;

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::entry::RaftEntry as _;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};
use roost_storage::model::LogPosition;
use roost_storage::{Fault, codec};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::types::{Entry, LogId, Membership, Proposal, StoredMembership, TypeConfig, Vote};

/// Largest peer message, in bytes: a read for replication, or one entry of the largest size, with
/// room for the envelope.
pub const MAX_MESSAGE_BYTES: usize = 8 * 1024 * 1024;

const _: () = assert!(roost_storage::limits::MAX_ENTRY_BYTES * 3 / 2 <= MAX_MESSAGE_BYTES);

/// Entries that one message may carry: far more than a leader sends, and few enough for memory.
pub(crate) const MAX_APPEND_ENTRIES: u64 = 4_096;

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

/// Which kind of request an append is, and the kinds of an entry's payload, as `serde` counts them.
const APPEND: u32 = 0;
const BLANK: u32 = 0;
const BATCH: u32 = 1;
const MEMBERSHIP: u32 = 2;

/// Encodes a request in pieces, which share the entries' batches.
pub fn encode_request(request: &Request) -> Vec<Bytes> {
    let Request::Append(append) = request else { return vec![codec::encode(request).into()] };
    let mut to = codec::Writer::default();
    to.put(&(APPEND, &append.vote, &append.prev_log_id, append.entries.len() as u64));
    for entry in &append.entries {
        match &entry.payload {
            EntryPayload::Normal(Proposal(batch)) => {
                to.put(&(&entry.log_id, BATCH));
                to.put_bytes(slice::from_ref(batch));
            }
            _ => to.put(entry),
        }
    }
    to.put(&append.leader_commit);
    to.finish()
}

/// Decodes a request, whose entries' batches are parts of `bytes`.
///
/// # Errors
/// What is wrong with it.
pub fn decode_request(bytes: &Bytes) -> io::Result<Request> {
    const WHAT: &str = "peer request";
    let mut from = codec::Reader::new(WHAT, bytes, MAX_MESSAGE_BYTES)?;
    if from.take::<u32>()? != APPEND {
        return decode(WHAT, bytes);
    }
    let (vote, prev_log_id, count) = from.take::<(Vote, Option<LogId>, u64)>()?;
    if count > MAX_APPEND_ENTRIES {
        return Err(Fault::corrupt(format!("an append of {count} entries")).into());
    }
    let mut entries = Vec::new();
    for _ in 0..count {
        let (log_id, kind) = from.take::<(LogId, u32)>()?;
        let payload = match kind {
            BATCH => EntryPayload::Normal(Proposal(from.take_bytes()?)),
            BLANK => EntryPayload::Blank,
            MEMBERSHIP => EntryPayload::Membership(from.take::<Membership>()?),
            _ => return Err(Fault::corrupt("an entry of an unknown kind").into()),
        };
        entries.push(Entry::new(log_id, payload));
    }
    let leader_commit = from.take()?;
    from.finish()?;
    Ok(Request::Append(AppendEntriesRequest { vote, prev_log_id, entries, leader_commit }))
}

/// Decodes what [`codec::encode`] made of a message; `what` names it in errors.
pub(crate) fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> io::Result<T> {
    Ok(codec::decode(what, bytes, MAX_MESSAGE_BYTES)?)
}

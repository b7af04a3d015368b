//! What a replica answers its peers.

use std::fmt;
use std::io;

use bytes::Bytes;
use openraft::async_runtime::WatchReceiver;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse};
use roost_storage::codec;
use roost_storage::model::LogPosition;
use roost_storage::planted::{self, Bug};

use super::Replica;
use crate::host;
use crate::snapshot::{ReceiveError, SnapshotData};
use crate::types::{TypeConfig, Vote, log_id};
use crate::wire::{self, Reply, Request};

impl Replica {
    /// Answers a peer's request.
    pub async fn handle(&self, request: &Bytes) -> Vec<u8> {
        let reply = match wire::decode_request(request) {
            Ok(request) => self.answer(request).await,
            Err(error) => Reply::Failed(error.to_string()),
        };
        codec::encode(&reply)
    }

    async fn answer(&self, request: Request) -> Reply {
        match request {
            Request::Append(rpc) => {
                self.raft.append_entries(rpc).await.map_or_else(failed, Reply::Append)
            }
            Request::Vote(rpc) => self.raft.vote(rpc).await.map_or_else(failed, Reply::Vote),
            Request::PreVote(rpc) => self.raft.pre_vote(rpc).await.map_or_else(failed, Reply::Vote),
            Request::TransferLeader(rpc) => self
                .raft
                .handle_transfer_leader(rpc)
                .await
                .map_or_else(failed, Reply::TransferLeader),
            Request::SnapshotChunk { transfer, offset, bytes } => {
                let receiver = self.receiver.clone();
                match received(move || receiver.chunk(transfer, offset, &bytes)).await {
                    Ok(()) => Reply::SnapshotChunk,
                    Err(error) => self.not_received(error).await,
                }
            }
            Request::SnapshotInstall { transfer, len, vote, last, membership } => {
                // Asked again, it waits for the first time's end.
                let _installing = self.receiver.installing.lock().await;
                if let Some(reply) = self.has_already(vote, last).await {
                    let receiver = self.receiver.clone();
                    return match received(move || receiver.discard(transfer)).await {
                        Ok(()) => reply,
                        Err(error) => self.not_received(error).await,
                    };
                }
                let receiver = self.receiver.clone();
                let path = match received(move || receiver.finish(transfer, len)).await {
                    Ok(path) => path,
                    Err(error) => return self.not_received(error).await,
                };
                let snapshot = openraft::type_config::alias::SnapshotOf::<TypeConfig, _> {
                    meta: openraft::type_config::alias::SnapshotMetaOf::<TypeConfig> {
                        last_log_id: last.map(log_id),
                        last_membership: membership,
                    },
                    snapshot: SnapshotData::File(path),
                };
                let installed = self.raft.install_full_snapshot(vote, snapshot).await;
                installed.map_or_else(failed, Reply::SnapshotInstall)
            }
        }
    }

    /// The answer to a snapshot that comes late: this log has its last entry by now, and perhaps more.
    /// openraft would take it in anyway, and go back in what it knows to be written.
    ///
    /// An append without entries at the snapshot's end says just what the snapshot says, that the log up
    /// to there is the leader's and committed; a log that does not reach there, or is another one, refuses.
    async fn has_already(&self, vote: Vote, last: Option<LogPosition>) -> Option<Reply> {
        let last = last.map(log_id)?;
        // What openraft reports may be of just before a snapshot was installed.
        let newest = self.raft.metrics().borrow_watched().last_log_index.max(self.applied());
        if newest < Some(last.index) {
            return None;
        }
        let last = Some(last);
        let probe = AppendEntriesRequest {
            vote,
            prev_log_id: last,
            entries: Vec::new(),
            leader_commit: last,
        };
        let theirs = match self.raft.append_entries(probe).await {
            Ok(AppendEntriesResponse::Success) => vote,
            Ok(AppendEntriesResponse::HigherVote(vote)) => vote,
            Ok(AppendEntriesResponse::Conflict | AppendEntriesResponse::PartialSuccess(_)) => {
                return None;
            }
            Err(error) => return Some(failed(error)),
        };
        Some(Reply::SnapshotInstall(SnapshotResponse::new(theirs)))
    }

    /// What a leader is told whose snapshot was not taken. A fault stops this replica first.
    async fn not_received(&self, error: ReceiveError) -> Reply {
        match &error {
            ReceiveError::OutOfStep(_) => {}
            ReceiveError::NoRoom => {
                tracing::warn!("the disk is full: this node can't catch up by snapshot");
                return Reply::NoRoom;
            }
            ReceiveError::Fault(_) if planted::is(Bug::SnapshotFaultIgnored) => {}
            ReceiveError::Fault(fault) => self.stopper.stop(fault).await,
        }
        failed(error)
    }
}

/// Takes a part of a snapshot where it may wait for the disk.
async fn received<T: Send + 'static>(
    take: impl FnOnce() -> Result<T, ReceiveError> + Send + 'static,
) -> Result<T, ReceiveError> {
    let taken = host::blocking(move || Ok::<_, io::Error>(take())).await;
    taken.unwrap_or_else(|_| Err(ReceiveError::OutOfStep("this node is going down")))
}

fn failed(error: impl fmt::Display) -> Reply {
    Reply::Failed(error.to_string())
}

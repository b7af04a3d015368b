//! openraft's network over a [`PeerTransport`].
//!
//! Each call is one request and one reply with a deadline. A transport delivers to the node whose
//! number it was given or fails; it need not keep an order, since every message names its term and
//! its place in the log.
//!
//! A follower hears that an entry is committed with the next entry, or, where none comes soon, by a
//! message of its own. Under load that is half of the messages saved.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use openraft::base::{BoxFuture, BoxStream};
use openraft::error::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::v2::RaftNetworkV2;
use openraft::network::{Backoff, RPCOption, RPCTypes, stream_append_sequential};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderRequest, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RaftNetworkFactory};
use tokio::time::{Instant, timeout};

use crate::patience::Patience;
use crate::snapshot::SnapshotData;
use crate::types::{MemberNode, NodeId, TypeConfig, Vote};
use crate::wire::{self, Reply, Request};

/// How long a peer may take to make entries durable before they are sent again.
const APPEND_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a commit waits for an entry that takes it along. The runtime's timer may add a
/// millisecond.
const COMMIT_PATIENCE: Duration = Duration::from_millis(1);

/// Why a call gave no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// No reply by the deadline; the peer may have acted.
    #[error("no reply in time")]
    Timeout,
    /// The peer can't be reached; it did not act.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// The connection broke during the call; the peer may have acted.
    #[error("connection lost: {0}")]
    Lost(String),
}

/// Carries opaque requests to other nodes.
#[async_trait]
pub trait PeerTransport: Send + Sync + 'static {
    /// Sends one request, which comes in pieces, to `target` and waits for its reply until `deadline`.
    /// `node` says where the membership has it.
    async fn call(
        &self,
        target: NodeId,
        node: &MemberNode,
        request: Vec<Bytes>,
        deadline: Instant,
    ) -> Result<Bytes, TransportError>;
}

/// Makes a [`Peer`] for each target.
#[derive(Clone)]
pub struct Network {
    pub(crate) own_id: NodeId,
    pub(crate) transport: Arc<dyn PeerTransport>,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: NodeId, node: &MemberNode) -> Peer {
        Peer { target, node: node.clone(), network: self.clone() }
    }
}

/// One peer.
pub struct Peer {
    target: NodeId,
    node: MemberNode,
    network: Network,
}

impl Peer {
    /// Its number.
    pub(crate) fn target(&self) -> NodeId {
        self.target
    }

    pub(crate) async fn call(
        &self,
        request: &Request,
        deadline: Instant,
    ) -> Result<Reply, TransportError> {
        let pieces = wire::encode_request(request);
        let reply = self.network.transport.call(self.target, &self.node, pieces, deadline).await?;
        wire::decode("peer reply", &reply).map_err(|error| TransportError::Lost(error.to_string()))
    }

    async fn rpc(
        &self,
        action: RPCTypes,
        request: &Request,
        ttl: Duration,
    ) -> Result<Reply, RPCError<TypeConfig>> {
        match self.call(request, Instant::now() + ttl).await {
            Ok(Reply::Failed(reason)) => Err(unreachable_error(reason)),
            Ok(reply) => Ok(reply),
            Err(error) => Err(self.rpc_error(action, ttl, error)),
        }
    }

    fn rpc_error(
        &self,
        action: RPCTypes,
        timeout: Duration,
        error: TransportError,
    ) -> RPCError<TypeConfig> {
        match error {
            TransportError::Timeout => RPCError::Timeout(Timeout {
                action,
                id: self.network.own_id,
                target: self.target,
                timeout,
            }),
            TransportError::Unreachable(reason) => unreachable_error(reason),
            TransportError::Lost(_) => RPCError::Network(NetworkError::new(&error)),
        }
    }
}

fn unreachable_error(reason: String) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::new(&TransportError::Unreachable(reason)))
}

fn unexpected(reply: &Reply) -> RPCError<TypeConfig> {
    let name = match reply {
        Reply::Append(_) => "append",
        Reply::Vote(_) => "vote",
        Reply::TransferLeader(_) => "transfer",
        Reply::SnapshotChunk => "snapshot chunk",
        Reply::SnapshotInstall(_) => "snapshot install",
        Reply::Failed(_) => "failure",
        Reply::NoRoom => "lack of room",
    };
    RPCError::Network(NetworkError::new(&TransportError::Lost(format!("unexpected {name} reply"))))
}

/// The replies to a stream of appends.
type Appended<'s> = BoxFuture<
    's,
    Result<
        BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>,
        RPCError<TypeConfig>,
    >,
>;

/// Leaves out requests without entries, which say only what is committed, where one that says the
/// same and more follows soon.
///
/// openraft takes the reply to a later request for one to all before it, and dates it by when that
/// later one was made, so a leader's lease does not grow by what was left out.
fn merge_commits<S>(
    input: S,
) -> Pin<Box<impl Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + 'static>>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
{
    let state = (input.fuse(), Patience::default());
    Box::pin(futures_util::stream::unfold(state, |(mut input, mut patience)| async move {
        let mut request = input.next().await?;
        if request.entries.is_empty() && patience.waits() {
            match timeout(COMMIT_PATIENCE, input.next()).await {
                Ok(Some(later)) => {
                    patience.waited(true);
                    request = later;
                }
                // Nothing follows for now, or ever: then the request itself is what was asked for.
                Err(_) => patience.waited(false),
                Ok(None) => {}
            }
        }
        Some((request, (input, patience)))
    }))
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        // A heartbeat must fail fast; entries may wait for a slow disk rather than be sent again.
        let ttl = if rpc.entries.is_empty() { option.soft_ttl() } else { APPEND_TIMEOUT };
        match self.rpc(RPCTypes::AppendEntries, &Request::Append(rpc), ttl).await? {
            Reply::Append(reply) => Ok(reply),
            other => Err(unexpected(&other)),
        }
    }

    fn stream_append<'s, S>(&'s mut self, input: S, option: RPCOption) -> Appended<'s>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        stream_append_sequential(self, merge_commits(input), option)
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.rpc(RPCTypes::Vote, &Request::Vote(rpc), option.soft_ttl()).await? {
            Reply::Vote(reply) => Ok(reply),
            other => Err(unexpected(&other)),
        }
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.rpc(RPCTypes::Vote, &Request::PreVote(rpc), option.soft_ttl()).await? {
            Reply::Vote(reply) => Ok(reply),
            other => Err(unexpected(&other)),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: openraft::type_config::alias::SnapshotOf<TypeConfig, SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let SnapshotData::Checkpoint(source) = snapshot.snapshot else {
            let reason = "a received file is installed, not sent on".to_owned();
            let error = TransportError::Unreachable(reason);
            return Err(StreamingError::Unreachable(Unreachable::new(&error)));
        };
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            // openraft tries again and says nothing.
            sent = source.send(self, vote) => sent.inspect_err(|error| {
                tracing::warn!(target = self.target, %error, "a snapshot was not sent");
            }),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<openraft::raft::TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self
            .rpc(RPCTypes::TransferLeader, &Request::TransferLeader(request), option.soft_ttl())
            .await?
        {
            Reply::TransferLeader(reply) => Ok(reply),
            other => Err(unexpected(&other)),
        }
    }

    /// A peer that comes back should be heard at once: the pause stays short.
    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(Duration::from_millis(100))))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream::{self, BoxStream};
    use openraft::EntryPayload;
    use openraft::entry::RaftEntry as _;
    use roost_storage::model::LogPosition;

    use super::*;
    use crate::types::{Entry, log_id};

    type Request = AppendEntriesRequest<TypeConfig>;

    fn at(index: u64) -> crate::types::LogId {
        log_id(LogPosition { term: 1, index })
    }

    /// What says that entry `committed` is committed, with the entry after it or without.
    fn request(committed: u64, with_entry: bool) -> Request {
        let entry = with_entry.then(|| Entry::new(at(committed + 1), EntryPayload::Blank));
        Request {
            vote: Vote::new_committed(1, 1),
            prev_log_id: Some(at(committed)),
            entries: entry.into_iter().collect(),
            leader_commit: Some(at(committed)),
        }
    }

    /// Merges what is there at once, after which nothing comes for now.
    fn merged(requests: Vec<Request>) -> BoxStream<'static, Request> {
        merge_commits(stream::iter(requests).chain(stream::pending()).boxed()).boxed()
    }

    async fn next(merged: &mut BoxStream<'static, Request>) -> Option<(u64, usize)> {
        let next = timeout(10 * COMMIT_PATIENCE, merged.next()).await.ok()??;
        Some((next.leader_commit?.index(), next.entries.len()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_commit_rides_with_the_entry_that_follows() {
        let mut merged = merged(vec![request(1, false), request(2, true), request(3, true)]);
        assert_eq!(next(&mut merged).await, Some((2, 1)));
        assert_eq!(next(&mut merged).await, Some((3, 1)));
        assert_eq!(next(&mut merged).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_commit_that_nothing_follows_is_told_soon() {
        let mut merged = merged(vec![request(1, true), request(2, false)]);
        assert_eq!(next(&mut merged).await, Some((1, 1)));
        let began = Instant::now();
        assert_eq!(next(&mut merged).await, Some((2, 0)));
        assert!(began.elapsed() <= 2 * COMMIT_PATIENCE, "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn where_entries_are_rare_commits_do_not_wait() {
        let alone = stream::iter(1..).then(|index| async move {
            // Its entry is long gone.
            tokio::time::sleep(100 * COMMIT_PATIENCE).await;
            request(index, false)
        });
        let mut merged = merge_commits(alone.boxed());
        let mut waited = 0;
        for _ in 0..100 {
            let began = Instant::now();
            merged.next().await;
            waited += u32::from(began.elapsed() > 100 * COMMIT_PATIENCE);
        }
        assert!((1..10).contains(&waited), "{waited} of 100 waited");
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_stream_ends_with_is_not_lost() {
        let mut merged = merge_commits(stream::iter([request(1, false)])).boxed();
        assert_eq!(next(&mut merged).await, Some((1, 0)));
        assert_eq!(next(&mut merged).await, None);
    }
}

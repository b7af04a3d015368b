//! What the cluster needs of the network below it. QUIC gives it to nodes, the simulation gives its
//! own.
//!
//! A link makes connections to peers, and hands what peers ask to a [`PeerServer`]. Who is at the
//! other end is the link's to prove; which data folder a peer runs on is told in the greeting.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use roost_raft::{NodeId, TransportError};
use roost_storage::codec;

use crate::member::Member;
use crate::wire::{self, Answer, Call, Hello};

/// Why this node ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkClose {
    /// The peer is not the one that was meant.
    Refused,
    /// The peer gives no answers, or has restarted since.
    Silent,
}

/// The network between nodes, as one of them has it.
#[async_trait]
pub trait Link: Send + Sync + 'static {
    /// Connects to a peer, which proves that it has this number.
    ///
    /// # Errors
    /// Why not, in words.
    async fn connect(
        &self,
        target: NodeId,
        address: &str,
    ) -> Result<Arc<dyn LinkConnection>, String>;

    /// Lets peers in until the link is closed.
    async fn serve(&self, server: PeerServer);

    /// Ends all connections and lets nobody in any more.
    async fn close(&self);
}

/// A connection to a peer, as its calling side has it.
#[async_trait]
pub trait LinkConnection: Send + Sync + 'static {
    /// One request, which comes in pieces, with its answer. Requests of one connection may pass each
    /// other.
    async fn exchange(&self, request: Vec<Bytes>) -> Result<Bytes, TransportError>;

    /// Whether it has ended.
    fn is_closed(&self) -> bool;

    /// Ends it.
    fn close(&self, why: LinkClose);
}

/// Answers what peers ask. Clones share the node.
#[derive(Clone)]
pub struct PeerServer {
    member: Arc<Member>,
}

impl PeerServer {
    pub(crate) fn new(member: Member) -> Self {
        Self { member: Arc::new(member) }
    }

    /// Answers a connection's first request, of a peer that proved to be `from`: the answer, and
    /// whether the peer may go on.
    ///
    /// # Errors
    /// What is wrong with the request; it gets no answer.
    pub async fn greet(&self, from: NodeId, request: &Bytes) -> Result<(Vec<u8>, bool), String> {
        let Call::Hello(hello) = decode(request)? else { return Err("no greeting".to_owned()) };
        if hello.node_id != from {
            return Err(format!("node {from} greeted as node {}", hello.node_id));
        }
        let (answer, welcome) = self.greeted(&hello);
        Ok((codec::encode(&answer), welcome))
    }

    fn greeted(&self, hello: &Hello) -> (Answer, bool) {
        match self.member.greeted(hello) {
            Ok(own) => (Answer::Hello(own), true),
            Err(reason) => (Answer::Refused(reason), false),
        }
    }

    /// Answers a request of a peer that was greeted.
    ///
    /// # Errors
    /// What is wrong with the request; it gets no answer.
    pub async fn answer(&self, from: NodeId, request: &Bytes) -> Result<Vec<u8>, String> {
        let answer = self.member.call(from, decode(request)?).await;
        Ok(codec::encode(&answer))
    }
}

fn decode(request: &Bytes) -> Result<Call, String> {
    wire::decode_call(request).map_err(|error| error.to_string())
}

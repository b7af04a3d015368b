//! The calling side: one connection a peer, made when needed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use roost_raft::{MemberNode, NodeId, TransportError};
use roost_storage::codec;
use tokio::time::{Instant, timeout_at};

use super::link::{Link, LinkClose, LinkConnection};
use super::{Own, check_store};
use crate::wire::{self, Answer, Call, Hello};

/// How long a connection attempt may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Failed calls over this time, without any that succeeded, drop the connection.
const SILENCE: Duration = Duration::from_millis(800);

/// Calls peers. Clones share the connections.
#[derive(Clone)]
pub(crate) struct Transport {
    inner: Arc<Inner>,
}

struct Inner {
    link: Arc<dyn Link>,
    own: Own,
    /// Addresses from this node's configuration; they win over the membership's.
    configured: BTreeMap<NodeId, String>,
    peers: Mutex<HashMap<NodeId, Arc<Peer>>>,
}

/// One peer's connection; the lock is held while it is being made, so that it is made once.
#[derive(Default)]
struct Peer {
    live: tokio::sync::Mutex<Option<Arc<Live>>>,
}

struct Live {
    connection: Arc<dyn LinkConnection>,
    hello: Hello,
    last_answer: Mutex<Instant>,
}

impl Transport {
    pub(crate) fn new(link: Arc<dyn Link>, own: Own, configured: BTreeMap<NodeId, String>) -> Self {
        Self { inner: Arc::new(Inner { link, own, configured, peers: Mutex::default() }) }
    }

    /// Where a peer is: as configured, else as the membership has it.
    pub(crate) fn address(&self, target: NodeId, node: Option<&MemberNode>) -> Option<String> {
        self.inner
            .configured
            .get(&target)
            .cloned()
            .or_else(|| node.map(|node| node.peer_addr.clone()))
    }

    /// One call with its answer.
    pub(crate) async fn call(
        &self,
        target: NodeId,
        node: Option<&MemberNode>,
        call: &Call,
        deadline: Instant,
    ) -> Result<Answer, TransportError> {
        let unreachable = |reason: String| TransportError::Unreachable(reason);
        let bytes = codec::encode(call);
        let live = timeout_at(deadline, self.connection(target, node))
            .await
            .map_err(|_| unreachable("no connection in time".to_owned()))?
            .map_err(unreachable)?;
        let result = match timeout_at(deadline, live.connection.exchange(&bytes)).await {
            Ok(result) => result,
            Err(_) => Err(TransportError::Timeout),
        };
        match &result {
            Ok(_) => *live.last_answer.lock() = Instant::now(),
            Err(TransportError::Timeout) if live.last_answer.lock().elapsed() < SILENCE => {}
            Err(_) => live.connection.close(LinkClose::Silent),
        }
        wire::decode("peer answer", &result?)
            .map_err(|error| TransportError::Lost(error.to_string()))
    }

    /// What a peer says of itself.
    pub(crate) async fn hello(
        &self,
        target: NodeId,
        deadline: Instant,
    ) -> Result<Hello, TransportError> {
        match self.call(target, None, &Call::Hello((self.inner.own.hello)()), deadline).await? {
            Answer::Hello(hello) => Ok(hello),
            Answer::Refused(reason) => Err(TransportError::Unreachable(reason)),
            _ => Err(TransportError::Lost("unexpected answer".to_owned())),
        }
    }

    async fn connection(
        &self,
        target: NodeId,
        node: Option<&MemberNode>,
    ) -> Result<Arc<Live>, String> {
        let peer = self.inner.peers.lock().entry(target).or_default().clone();
        let mut slot = peer.live.lock().await;
        if let Some(live) = slot.as_ref().filter(|live| !live.connection.is_closed()) {
            return Ok(live.clone());
        }
        *slot = None;
        let address = self.address(target, node).ok_or("its address is not known")?;
        let live =
            timeout_at(Instant::now() + CONNECT_TIMEOUT, self.connect(target, node, &address))
                .await
                .map_err(|_| format!("{address} does not answer"))??;
        *slot = Some(live.clone());
        Ok(live)
    }

    async fn connect(
        &self,
        target: NodeId,
        node: Option<&MemberNode>,
        address: &str,
    ) -> Result<Arc<Live>, String> {
        let connection = self.inner.link.connect(target, address).await?;
        let hello = match greet(&*connection, &(self.inner.own.hello)()).await {
            Ok(hello) => hello,
            Err(reason) => {
                connection.close(LinkClose::Refused);
                return Err(reason);
            }
        };
        let expected =
            node.map(|node| BTreeMap::from([(target, node.clone())])).unwrap_or_default();
        if let Err(reason) = check_store(&expected, &hello) {
            connection.close(LinkClose::Refused);
            tracing::error!(peer = target, "{reason}");
            return Err(reason);
        }
        Ok(Arc::new(Live { connection, hello, last_answer: Mutex::new(Instant::now()) }))
    }

    /// Drops the connection to a peer that has restarted since it was made.
    pub(crate) async fn peer_restarted(&self, hello: &Hello) {
        let peer = self.inner.peers.lock().get(&hello.node_id).cloned();
        let Some(peer) = peer else { return };
        let mut slot = peer.live.lock().await;
        if let Some(live) = slot.take_if(|live| live.hello.incarnation != hello.incarnation) {
            live.connection.close(LinkClose::Silent);
        }
    }

    pub(crate) async fn close(&self) {
        self.inner.link.close().await;
    }
}

async fn greet(connection: &dyn LinkConnection, own: &Hello) -> Result<Hello, String> {
    let bytes = codec::encode(&Call::Hello(own.clone()));
    let answer = connection.exchange(&bytes).await.map_err(|error| error.to_string())?;
    match wire::decode("peer answer", &answer).map_err(|error| error.to_string())? {
        Answer::Hello(hello) => Ok(hello),
        Answer::Refused(reason) => Err(reason),
        _ => Err("unexpected answer to the greeting".to_owned()),
    }
}

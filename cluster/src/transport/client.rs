//! The calling side: one connection a peer, made when needed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use roost_raft::{MemberNode, NodeId, TransportError};
use roost_storage::codec;
use roost_storage::command::Command;
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

/// One peer's connection.
///
/// Whoever makes it holds `making`, so that it is made once. A peer's greeting is answered without
/// that: two nodes that connect to each other at the same time each wait for the other's answer.
#[derive(Default)]
struct Peer {
    making: tokio::sync::Mutex<()>,
    live: Mutex<Option<Arc<Live>>>,
}

impl Peer {
    /// The connection, if it stands.
    fn live(&self) -> Option<Arc<Live>> {
        self.live.lock().clone().filter(|live| !live.connection.is_closed())
    }
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
        self.send(target, node, encoded(call), deadline).await
    }

    /// [`Transport::call`] with a call that was encoded.
    pub(crate) async fn send(
        &self,
        target: NodeId,
        node: Option<&MemberNode>,
        call: Vec<Bytes>,
        deadline: Instant,
    ) -> Result<Answer, TransportError> {
        let unreachable = |reason: String| TransportError::Unreachable(reason);
        let live = timeout_at(deadline, self.connection(target, node))
            .await
            .map_err(|_| unreachable("no connection in time".to_owned()))?
            .map_err(unreachable)?;
        let result = match timeout_at(deadline, live.connection.exchange(call)).await {
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
        if let Some(live) = peer.live() {
            return Ok(live);
        }
        let _making = peer.making.lock().await;
        if let Some(live) = peer.live() {
            return Ok(live);
        }
        let address = self.address(target, node).ok_or("its address is not known")?;
        let live =
            timeout_at(Instant::now() + CONNECT_TIMEOUT, self.connect(target, node, &address))
                .await
                .map_err(|_| format!("{address} does not answer"))??;
        *peer.live.lock() = Some(live.clone());
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

    /// Drops the connection to a peer that has restarted since it was made. Never waits: the peer
    /// may be waiting for this very answer while this node waits for its own greeting's.
    pub(crate) fn peer_restarted(&self, hello: &Hello) {
        let peer = self.inner.peers.lock().get(&hello.node_id).cloned();
        let Some(peer) = peer else { return };
        let old = peer.live.lock().take_if(|live| live.hello.incarnation != hello.incarnation);
        if let Some(live) = old {
            live.connection.close(LinkClose::Silent);
        }
    }

    pub(crate) async fn close(&self) {
        self.inner.link.close().await;
    }
}

fn encoded(call: &Call) -> Vec<Bytes> {
    let bytes = match call {
        Call::Forward { commands, .. } => {
            codec::encode_about(call, commands.iter().map(Command::encoded_about).sum())
        }
        _ => codec::encode(call),
    };
    vec![bytes.into()]
}

async fn greet(connection: &dyn LinkConnection, own: &Hello) -> Result<Hello, String> {
    let greeting = encoded(&Call::Hello(own.clone()));
    let answer = connection.exchange(greeting).await.map_err(|error| error.to_string())?;
    match wire::decode("peer answer", &answer).map_err(|error| error.to_string())? {
        Answer::Hello(hello) => Ok(hello),
        Answer::Refused(reason) => Err(reason),
        _ => Err("unexpected answer to the greeting".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use tokio::sync::Semaphore;

    use super::super::link::PeerServer;
    use super::*;

    fn hello(node_id: NodeId) -> Hello {
        let client_addr = "a:1".to_owned();
        Hello { node_id, store_id: 1, incarnation: 1, client_addr, initialized: true }
    }

    /// A peer that answers a greeting only when it is let.
    struct Reluctant {
        answers: Arc<Semaphore>,
        asked: Arc<Semaphore>,
    }

    #[async_trait]
    impl Link for Reluctant {
        async fn connect(&self, _: NodeId, _: &str) -> Result<Arc<dyn LinkConnection>, String> {
            let (answers, asked) = (self.answers.clone(), self.asked.clone());
            Ok(Arc::new(Self { answers, asked }))
        }
        async fn serve(&self, _: PeerServer) {}
        async fn close(&self) {}
    }

    #[async_trait]
    impl LinkConnection for Reluctant {
        async fn exchange(&self, _: Vec<Bytes>) -> Result<Bytes, TransportError> {
            self.asked.add_permits(1);
            self.answers.acquire().await.unwrap().forget();
            Ok(codec::encode(&Answer::Hello(hello(2))).into())
        }
        fn is_closed(&self) -> bool {
            false
        }
        fn close(&self, _: LinkClose) {}
    }

    /// The peer answers this node's greeting only once its own was answered: as two nodes do that
    /// lost each other and connect at the same time.
    #[tokio::test]
    async fn a_greeting_is_answered_while_this_node_waits_for_its_own() {
        let (answers, asked) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let link = Reluctant { answers: answers.clone(), asked: asked.clone() };
        let own = Own { hello: Arc::new(|| hello(1)) };
        let peers = BTreeMap::from([(2, "peer:1".to_owned())]);
        let transport = Transport::new(Arc::new(link), own, peers);
        let calling = transport.clone();
        let deadline = Instant::now() + Duration::from_secs(60);
        let call = tokio::spawn(async move { calling.hello(2, deadline).await });
        asked.acquire().await.unwrap().forget();
        transport.peer_restarted(&hello(2));
        answers.add_permits(2);
        assert_eq!(call.await.unwrap().unwrap(), hello(2));
    }
}

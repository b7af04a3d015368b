//! Bringing a node up, and forming a cluster once in its life.
//!
//! The voters of a new cluster come from the configuration. The one with the lowest number waits
//! until it reached all of them and none has any Raft state, then initializes with the random ids
//! of their data folders in the membership. From then on a folder that is empty where it should not
//! be is refused by the others, instead of joining with a vote that it forgot.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use roost_raft::state_machine::ApplyObserver;
use roost_raft::{
    MemberNode, NodeId, PeerTransport, Replica, ReplicaOptions, Role, TransportError,
};
use roost_storage::command::Effect;
use roost_storage::fs::Disk;
use roost_storage::log::Log;
use roost_storage::model::ShardId;
use roost_storage::store::Store;
use tokio::time::Instant;

use crate::barrier::Barrier;
use crate::forward::{Forwarder, Route, Senders};
use crate::member::Member;
use crate::propose::Proposer;
use crate::transport::{self, Link, Own, PeerServer, PeerTls, TlsError, Transport};
use crate::wire::{self, Answer, Hello};
use crate::{Cluster, Inner, Observer};

/// How often the forming node looks for the others.
const FORM_EVERY: Duration = Duration::from_millis(200);
/// How long one look may take.
const FORM_TIMEOUT: Duration = Duration::from_secs(2);

/// How a node is brought up.
pub struct ClusterOptions {
    /// This node's number.
    pub node_id: NodeId,
    /// The shard.
    pub shard: ShardId,
    /// Where peers connect.
    pub peer_listen: SocketAddr,
    /// The peer address that others are told, `host:port`.
    pub peer_addr: String,
    /// The client address that others are told, `host:port`.
    pub client_addr: String,
    /// The voters of a new cluster, number → peer address; empty for this node alone. Later, the
    /// addresses win over those that the membership remembers.
    pub peers: BTreeMap<NodeId, String>,
    /// The random id of the data folder.
    pub store_id: u64,
    /// Drawn at each start; must differ from the last one's.
    pub incarnation: u64,
    /// Log entries kept behind the newest checkpoint.
    pub log_keep_entries: u64,
    /// What this node proves itself with.
    pub tls: PeerTls,
}

/// The same without the network, which is given as a [`Link`], and with what only the simulation
/// changes.
#[derive(Clone)]
pub struct NodeOptions {
    /// This node's number.
    pub node_id: NodeId,
    /// The shard.
    pub shard: ShardId,
    /// The peer address that others are told.
    pub peer_addr: String,
    /// The client address that others are told.
    pub client_addr: String,
    /// As in [`ClusterOptions`].
    pub peers: BTreeMap<NodeId, String>,
    /// The random id of the data folder.
    pub store_id: u64,
    /// Drawn at each start; must differ from the last one's.
    pub incarnation: u64,
    /// The replica's own.
    pub replica: ReplicaOptions,
}

impl From<&ClusterOptions> for NodeOptions {
    fn from(options: &ClusterOptions) -> Self {
        Self {
            node_id: options.node_id,
            shard: options.shard,
            peer_addr: options.peer_addr.clone(),
            client_addr: options.client_addr.clone(),
            peers: options.peers.clone(),
            store_id: options.store_id,
            incarnation: options.incarnation,
            replica: ReplicaOptions {
                log_keep_entries: options.log_keep_entries,
                ..ReplicaOptions::new(options.node_id)
            },
        }
    }
}

/// Why a node did not come up.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The peer port or its certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The replica.
    #[error("the replica can't start: {0}")]
    Replica(String),
}

/// Carries Raft messages of one shard.
struct RaftTransport {
    shard: ShardId,
    transport: Transport,
}

#[async_trait]
impl PeerTransport for RaftTransport {
    async fn call(
        &self,
        target: NodeId,
        node: &MemberNode,
        message: Vec<Bytes>,
        deadline: Instant,
    ) -> Result<Bytes, TransportError> {
        let call = wire::raft_call(self.shard, &message);
        match self.transport.send(target, Some(node), call, deadline).await? {
            Answer::Raft(reply) => Ok(reply),
            Answer::Refused(reason) => Err(TransportError::Unreachable(reason)),
            _ => Err(TransportError::Lost("unexpected answer".to_owned())),
        }
    }
}

/// Passes on what the replica reports.
struct Applied(Arc<dyn Observer>);

impl ApplyObserver for Applied {
    fn applied(&self, index: u64, effects: &[Effect]) {
        self.0.applied(index, effects);
    }

    fn state_replaced(&self) {
        self.0.state_replaced();
    }
}

impl Cluster {
    /// Brings the node up on its open log and store: binds the peer port, starts the replica,
    /// answers peers, and forms the cluster if it is this node's turn. Returns before there is a
    /// leader.
    ///
    /// # Errors
    /// [`StartError`] if the port, the certificates or the stored state don't allow it.
    pub async fn start(
        options: ClusterOptions,
        log: Arc<Log>,
        store: Arc<Store>,
        disk: Arc<dyn Disk>,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, StartError> {
        let link = transport::bind(options.peer_listen, &options.tls)?;
        Self::start_on(Arc::new(link), (&options).into(), log, store, disk, observer).await
    }

    /// Brings the node up on a link of the caller's.
    ///
    /// # Errors
    /// [`StartError::Replica`] if the stored state doesn't allow it.
    pub async fn start_on(
        link: Arc<dyn Link>,
        options: NodeOptions,
        log: Arc<Log>,
        store: Arc<Store>,
        disk: Arc<dyn Disk>,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, StartError> {
        let initialized =
            Arc::new(AtomicBool::new(log.state().last.is_some() || log.state().vote.is_some()));
        let own = own(&options, initialized.clone());
        let transport = Transport::new(link.clone(), own.clone(), options.peers.clone());
        let replica = Replica::start(
            options.replica.clone(),
            log,
            store,
            disk,
            Arc::new(RaftTransport { shard: options.shard, transport: transport.clone() }),
            Arc::new(Applied(observer.clone())),
        )
        .await
        .map_err(StartError::Replica)?;
        let route = Arc::new(Route {
            node_id: options.node_id,
            shard: options.shard,
            incarnation: options.incarnation,
            replica: replica.clone(),
            transport: transport.clone(),
            proposer: Proposer::start(replica.clone()),
            read_points: AtomicU64::new(0),
        });
        let member = Member {
            route: route.clone(),
            own: own.clone(),
            observer: observer.clone(),
            senders: Senders::default(),
        };
        tokio::spawn(async move { link.serve(PeerServer::new(member)).await });
        let fault = Arc::new(OnceLock::new());
        tokio::spawn(watch_stop(replica.clone(), observer.clone(), fault.clone()));
        tokio::spawn(form(options, replica, transport, own, initialized));
        Ok(Self {
            inner: Arc::new(Inner {
                forwarder: Forwarder::start(route.clone()),
                barrier: Barrier::start(route.clone()),
                route,
                fault,
            }),
        })
    }
}

fn own(options: &NodeOptions, initialized: Arc<AtomicBool>) -> Own {
    let hello = Hello {
        node_id: options.node_id,
        store_id: options.store_id,
        incarnation: options.incarnation,
        client_addr: options.client_addr.clone(),
        initialized: false,
    };
    Own {
        hello: Arc::new(move || Hello {
            initialized: initialized.load(Ordering::Acquire),
            ..hello.clone()
        }),
    }
}

async fn watch_stop(replica: Replica, observer: Arc<dyn Observer>, fault: Arc<OnceLock<String>>) {
    let reason = replica.stopped().await;
    observer.stopped(&reason);
    // Set once; a second reason would be a consequence of the first.
    let _ = fault.set(reason);
}

/// Forms the cluster if this node is the one to do it, else watches for Raft state to appear.
async fn form(
    options: NodeOptions,
    replica: Replica,
    transport: Transport,
    own: Own,
    initialized: Arc<AtomicBool>,
) {
    let first = options.peers.keys().next().copied().unwrap_or(options.node_id);
    while !replica.is_initialized().await {
        if replica.status().role == Role::Stopped {
            return;
        }
        if first == options.node_id {
            match members(&options, &transport, &own).await {
                Ok(members) => match replica.initialize(members).await {
                    Ok(()) => {
                        tracing::info!(nodes = options.peers.len().max(1), "formed the cluster");
                    }
                    Err(reason) => tracing::error!("the cluster can't be formed: {reason}"),
                },
                Err(reason) => tracing::info!("waiting to form the cluster: {reason}"),
            }
        }
        tokio::time::sleep(FORM_EVERY).await;
    }
    initialized.store(true, Ordering::Release);
}

/// All members, if all answer and none has any state yet.
async fn members(
    options: &NodeOptions,
    transport: &Transport,
    own: &Own,
) -> Result<BTreeMap<NodeId, MemberNode>, String> {
    let mine = (own.hello)();
    let node = MemberNode {
        peer_addr: options.peer_addr.clone(),
        client_addr: options.client_addr.clone(),
        store_id: mine.store_id,
    };
    let mut members = BTreeMap::from([(options.node_id, node)]);
    for (id, address) in options.peers.iter().filter(|(id, _)| **id != options.node_id) {
        let hello = transport
            .hello(*id, Instant::now() + FORM_TIMEOUT)
            .await
            .map_err(|error| format!("node {id} at {address}: {error}"))?;
        if hello.initialized {
            return Err(format!(
                "node {id} belongs to a cluster already; if this node's data was lost, it needs a new number"
            ));
        }
        let node = MemberNode {
            peer_addr: address.clone(),
            client_addr: hello.client_addr,
            store_id: hello.store_id,
        };
        members.insert(*id, node);
    }
    Ok(members)
}

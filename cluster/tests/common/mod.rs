//! Three nodes in one process, over loopback, on simulated disks.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use roost_cluster::{ClaimTime, Cluster, ClusterOptions, NodeId, Observer, PeerTls};
use roost_storage::command::{Attempt, Command, Effect, Target};
use roost_storage::engine::memory::MemoryEngine;
use roost_storage::fs::sim::SimDisk;
use roost_storage::log::{Log, LogOptions};
use roost_storage::model::{ClientId, DeviceId, ShardId, UserId};
use roost_storage::store::{Store, StoreOptions};
use tokio::time::Instant;

/// What one node was told.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) effects: Mutex<Vec<Effect>>,
    pub(crate) claims: Mutex<Vec<(UserId, DeviceId)>>,
    pub(crate) stopped: Mutex<Option<String>>,
}

impl Observer for Seen {
    fn applied(&self, _index: u64, effects: &[Effect]) {
        self.effects.lock().extend_from_slice(effects);
    }
    fn state_replaced(&self) {}
    fn device_claimed(&self, user: &UserId, device: &DeviceId, _time: ClaimTime) {
        self.claims.lock().push((user.clone(), device.clone()));
    }
    fn stopped(&self, reason: &str) {
        *self.stopped.lock() = Some(reason.to_owned());
    }
}

/// What a node keeps when it is restarted.
pub(crate) struct Place {
    pub(crate) disk: SimDisk,
    pub(crate) engine: Arc<MemoryEngine>,
    pub(crate) store_id: u64,
}

impl Place {
    pub(crate) fn new(store_id: u64) -> Self {
        Self { disk: SimDisk::new(), engine: Arc::new(MemoryEngine::new()), store_id }
    }

    /// Three empty ones.
    pub(crate) fn three() -> [Self; 3] {
        [1, 2, 3].map(Self::new)
    }
}

/// The cluster's authority and addresses.
pub(crate) struct Town {
    ca: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
    pub(crate) peers: BTreeMap<NodeId, String>,
}

impl Town {
    pub(crate) fn new(nodes: u64) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key).unwrap();
        let issuer = Issuer::new(params, key);
        let peers = (1..=nodes).map(|id| (id, free_udp_addr().to_string())).collect();
        Self { ca, issuer, peers }
    }

    pub(crate) fn tls(&self, id: NodeId) -> PeerTls {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![format!("node-{id}.roost")]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        PeerTls::new(self.ca.der().clone(), vec![certificate.der().clone()], key).unwrap()
    }

    pub(crate) async fn start(&self, id: NodeId, place: &Place) -> (Cluster, Arc<Seen>) {
        let seen = Arc::new(Seen::default());
        let disk = Arc::new(place.disk.clone());
        let log = Log::open(disk.clone(), Path::new("log"), LogOptions::default()).unwrap();
        let engine = place.engine.clone();
        let store =
            Store::open(disk.clone(), Path::new("state"), engine, StoreOptions::default()).unwrap();
        let options = ClusterOptions {
            node_id: id,
            shard: ShardId(0),
            peer_listen: self.peers[&id].parse().unwrap(),
            peer_addr: self.peers[&id].clone(),
            client_addr: format!("client-{id}"),
            peers: self.peers.clone(),
            store_id: place.store_id,
            incarnation: rand_u64(),
            log_keep_entries: 1_000,
            tls: self.tls(id),
        };
        let cluster = Cluster::start(options, Arc::new(log), Arc::new(store), disk, seen.clone())
            .await
            .unwrap();
        (cluster, seen)
    }

    /// Starts nodes 1, 2 and 3.
    pub(crate) async fn start_three(&self, places: &[Place; 3]) -> [(Cluster, Arc<Seen>); 3] {
        [
            self.start(1, &places[0]).await,
            self.start(2, &places[1]).await,
            self.start(3, &places[2]).await,
        ]
    }

    /// Waits until the port of a node that was shut down is free again: its tasks end on their own.
    pub(crate) async fn freed(&self, id: NodeId) {
        until("the port is free", || UdpSocket::bind(&self.peers[&id]).is_ok()).await;
    }
}

fn rand_u64() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

fn free_udp_addr() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

pub(crate) fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

pub(crate) fn send(from: &str, to: &str, client_id: &str) -> Command {
    Command::Send {
        sender: user(from),
        target: Target::User(user(to)),
        client_id: ClientId::new(client_id).unwrap(),
        attempt: Attempt(rand_u64()),
        body: bytes::Bytes::from(format!("{client_id} from {from}")),
        content_type: None,
        ttl_ms: None,
    }
}

/// Waits until a condition holds.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = soon();
    while !condition() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

//! A follower that was away for so long that it needs a snapshot, while entries keep coming: it takes
//! one and catches up, whatever gets lost meanwhile.

#![expect(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use common::STATE;
use parking_lot::Mutex;
use roost_raft::types::NodeId;
use roost_raft::wire::{Request, decode_request};
use roost_raft::{MemberNode, PeerTransport, Replica, ReplicaOptions, TransportError};
use roost_storage::fs::Disk;
use roost_storage::fs::sim::SimDisk;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Entries that stay in the log behind a checkpoint.
const KEEP_ENTRIES: u64 = 10;
const SOON: Duration = Duration::from_secs(60);
/// The follower.
const LAGGING: NodeId = 3;

/// The network between the replicas, and what it does to node 3.
struct Net {
    replicas: Mutex<BTreeMap<NodeId, Replica>>,
    /// Closed, node 3 can't be reached; else it is open for good.
    reachable: Semaphore,
    /// So many of its answers to a request to install a snapshot get lost.
    lose_installed: AtomicU32,
    /// Such a request waits here.
    install: Semaphore,
    /// Snapshots that were begun to be sent.
    transfers: AtomicU32,
    installs: AtomicU32,
}

#[async_trait]
impl PeerTransport for Net {
    async fn call(
        &self,
        target: NodeId,
        _node: &MemberNode,
        request: Vec<Bytes>,
        deadline: Instant,
    ) -> Result<Bytes, TransportError> {
        let away = || TransportError::Unreachable("away".to_owned());
        let replica = self.replicas.lock().get(&target).cloned().ok_or_else(away)?;
        if target == LAGGING && self.reachable.available_permits() == 0 {
            return Err(away());
        }
        let request = Bytes::from(request.concat());
        let asked = decode_request(&request).unwrap();
        match &asked {
            Request::SnapshotChunk { offset: 0, bytes, .. } if !bytes.is_empty() => {
                self.transfers.fetch_add(1, Ordering::Relaxed);
            }
            Request::SnapshotInstall { .. } => {
                self.installs.fetch_add(1, Ordering::Relaxed);
                drop(self.install.acquire().await.unwrap());
            }
            _ => {}
        }
        let handled = tokio::time::timeout_at(deadline, replica.handle(&request)).await;
        let answer = handled.map_err(|_| TransportError::Timeout)?;
        let lost = matches!(asked, Request::SnapshotInstall { .. })
            && self
                .lose_installed
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                .is_ok();
        match lost {
            true => Err(TransportError::Lost("the cable".to_owned())),
            false => Ok(answer.into()),
        }
    }
}

struct Cluster {
    net: Arc<Net>,
    leader: Replica,
    leaders_disk: SimDisk,
    lagging: Replica,
}

impl Cluster {
    /// Three nodes, of which the third is away and needs a snapshot.
    async fn with_one_far_behind() -> Self {
        let net = Arc::new(Net {
            replicas: Mutex::default(),
            reachable: Semaphore::new(0),
            lose_installed: AtomicU32::new(0),
            install: Semaphore::new(0),
            transfers: AtomicU32::new(0),
            installs: AtomicU32::new(0),
        });
        let (mut members, mut disks) = (BTreeMap::new(), BTreeMap::new());
        for id in 1..=3 {
            let disk = SimDisk::new();
            let replica = replica(id, net.clone(), &disk).await;
            disks.insert(id, disk);
            net.replicas.lock().insert(id, replica);
            let node = MemberNode {
                peer_addr: format!("node-{id}"),
                client_addr: format!("node-{id}"),
                store_id: id,
            };
            members.insert(id, node);
        }
        let of = |id: NodeId| net.replicas.lock()[&id].clone();
        of(1).initialize(members).await.unwrap();
        let leader = elected([of(1), of(2)]).await;
        let leaders_disk = disks[&leader].clone();
        let (leader, lagging) = (of(leader), of(LAGGING));
        let cluster = Self { net, leader, leaders_disk, lagging };
        cluster.write(10 * KEEP_ENTRIES).await;
        cluster.wait("the log is purged", || cluster.leader.status().purged > Some(1)).await;
        cluster
    }

    /// Appends entries.
    async fn write(&self, entries: u64) {
        for _ in 0..entries {
            self.leader.propose(Vec::new(), Instant::now() + SOON).await.unwrap();
        }
    }

    async fn wait(&self, what: &str, reached: impl Fn() -> bool) {
        let deadline = Instant::now() + SOON;
        while !reached() {
            assert!(Instant::now() < deadline, "{what}: {:?}", self.leader.status());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn caught_up(&self) {
        self.wait("it catches up", || self.lagging.applied() == self.leader.applied()).await;
    }

    fn transfers(&self) -> u32 {
        self.net.transfers.load(Ordering::Relaxed)
    }
}

/// The one of them that can propose.
async fn elected(replicas: [Replica; 2]) -> NodeId {
    loop {
        for (replica, id) in replicas.iter().zip(1..) {
            if replica.propose(Vec::new(), Instant::now() + SOON).await.is_ok() {
                return id;
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn replica(id: NodeId, net: Arc<Net>, disk: &SimDisk) -> Replica {
    let options = ReplicaOptions {
        log_keep_entries: KEEP_ENTRIES,
        checkpoint_entries: KEEP_ENTRIES,
        ..ReplicaOptions::new(id)
    };
    common::replica(disk, options, net).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_to_an_installation_is_asked_for_and_the_snapshot_not_sent_again() {
    let cluster = Cluster::with_one_far_behind().await;
    cluster.net.lose_installed.store(3, Ordering::Relaxed);
    cluster.net.install.add_permits(1);
    cluster.net.reachable.add_permits(1);
    let installs = || cluster.net.installs.load(Ordering::Relaxed);
    cluster.wait("the answer arrives", || installs() == 4).await;
    cluster.write(1).await;
    cluster.caught_up().await;
    assert_eq!((cluster.transfers(), installs()), (1, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_that_come_while_a_snapshot_is_on_its_way_stay_for_who_gets_it() {
    let cluster = Cluster::with_one_far_behind().await;
    let installs = || cluster.net.installs.load(Ordering::Relaxed);
    cluster.net.reachable.add_permits(1);
    cluster.wait("a snapshot is there", || installs() == 1).await;
    let before = cluster.leader.applied().unwrap();
    cluster.write(10 * KEEP_ENTRIES).await;
    let past = before + 5 * KEEP_ENTRIES;
    cluster.wait("a checkpoint", || cluster.leader.status().checkpoint > Some(past)).await;
    // Time to purge, twice.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(cluster.leader.status().purged <= Some(before), "{:?}", cluster.leader.status());
    cluster.net.install.add_permits(1);
    cluster.caught_up().await;
    assert_eq!((cluster.transfers(), installs()), (1, 1));
    cluster.wait("the log is purged", || cluster.leader.status().purged > Some(before)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_is_not_written_for_a_follower_that_is_away() {
    let cluster = Cluster::with_one_far_behind().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let files = cluster.leaders_disk.list(Path::new(STATE)).unwrap();
    assert!(!files.iter().any(|name| name.starts_with("snapshot-")), "{files:?}");
    cluster.net.install.add_permits(1);
    cluster.net.reachable.add_permits(1);
    cluster.caught_up().await;
    assert_eq!(cluster.transfers(), 1);
}

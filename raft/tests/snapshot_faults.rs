//! A disk that has trouble while a snapshot arrives or is sent: one that fails stops the node, a full
//! one does not.

#![expect(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use common::{Nobody, STATE};
use openraft::raft::VoteRequest;
use roost_raft::types::{NodeId, StoredMembership, TypeConfig, Vote};
use roost_raft::wire::{Reply, Request};
use roost_raft::{MemberNode, PeerTransport, Replica, ReplicaOptions, Role, TransportError};
use roost_storage::codec;
use roost_storage::fs::Disk;
use roost_storage::fs::sim::SimDisk;
use tokio::time::{Instant, timeout};

const SOON: Duration = Duration::from_secs(20);

#[async_trait]
impl PeerTransport for Nobody {
    async fn call(
        &self,
        _target: NodeId,
        _node: &MemberNode,
        _request: Vec<Bytes>,
        _deadline: Instant,
    ) -> Result<Bytes, TransportError> {
        Err(TransportError::Unreachable("nobody".to_owned()))
    }
}

/// A replica without any state, as a leader's snapshot finds it.
async fn replica(disk: &SimDisk) -> Replica {
    common::replica(disk, ReplicaOptions::new(2), Arc::new(Nobody)).await
}

async fn ask(replica: &Replica, request: Request) -> Reply {
    let reply = replica.handle(&codec::encode(&request).into()).await;
    codec::decode("reply", &reply, 1_000_000).unwrap()
}

async fn part(replica: &Replica, transfer: u64, offset: u64) -> Reply {
    let bytes = Bytes::from_static(b"part");
    ask(replica, Request::SnapshotChunk { transfer, offset, bytes }).await
}

fn incoming(disk: &SimDisk) -> Vec<String> {
    let mut files = disk.list(Path::new(STATE)).unwrap();
    files.retain(|name| name.starts_with("incoming-"));
    files
}

fn vote() -> Request {
    Request::Vote(VoteRequest::<TypeConfig>::new(Vote::new(4, 1), None))
}

async fn assert_stopped(replica: &Replica, reply: Reply, reason: &str) {
    assert!(matches!(&reply, Reply::Failed(why) if why.contains(reason)), "{reply:?}");
    let why = timeout(SOON, replica.stopped()).await.expect("it stops");
    assert!(why.contains(reason), "{why}");
    assert_eq!(replica.status().role, Role::Stopped);
    let reply = ask(replica, vote()).await;
    assert!(matches!(reply, Reply::Failed(_)), "it votes: {reply:?}");
}

#[tokio::test]
async fn a_disk_that_fails_while_a_part_arrives_stops_the_node() {
    let disk = SimDisk::new();
    let replica = replica(&disk).await;
    assert!(matches!(part(&replica, 1, 0).await, Reply::SnapshotChunk));
    disk.fail_at(disk.operations() + 1);
    let reply = part(&replica, 1, 4).await;
    assert_stopped(&replica, reply, "write a snapshot").await;
}

#[tokio::test]
async fn a_sync_that_fails_once_all_has_arrived_stops_the_node() {
    let disk = SimDisk::new();
    let replica = replica(&disk).await;
    assert!(matches!(part(&replica, 1, 0).await, Reply::SnapshotChunk));
    disk.fail_at(disk.operations() + 1);
    let install = Request::SnapshotInstall {
        transfer: 1,
        len: 4,
        vote: Vote::new_committed(3, 1),
        last: None,
        membership: StoredMembership::default(),
    };
    let reply = ask(&replica, install).await;
    assert_stopped(&replica, reply, "sync a snapshot").await;
}

#[tokio::test]
async fn a_fault_that_the_store_meets_on_the_way_to_a_peer_stops_the_node() {
    let disk = SimDisk::new();
    let replica = replica(&disk).await;
    disk.fail_at(disk.operations() + 1);
    assert!(replica.store().export_snapshot().is_err());
    let why = timeout(SOON, replica.stopped()).await.expect("it stops");
    assert!(why.contains("Input/output error"), "{why}");
    assert_eq!(replica.status().role, Role::Stopped);
}

#[tokio::test]
async fn a_full_disk_loses_the_part_and_says_so_and_the_node_goes_on() {
    let disk = SimDisk::new();
    let replica = replica(&disk).await;
    assert!(matches!(part(&replica, 1, 0).await, Reply::SnapshotChunk));
    assert_eq!(incoming(&disk).len(), 1);

    disk.fill_at(disk.operations() + 1);
    assert!(matches!(part(&replica, 1, 4).await, Reply::NoRoom));
    assert!(incoming(&disk).is_empty(), "the part still takes room");
    assert!(matches!(part(&replica, 2, 0).await, Reply::NoRoom));

    disk.make_room();
    assert!(matches!(ask(&replica, vote()).await, Reply::Vote(_)));
    assert!(matches!(part(&replica, 3, 0).await, Reply::SnapshotChunk));
    assert!(matches!(part(&replica, 3, 4).await, Reply::SnapshotChunk));
}

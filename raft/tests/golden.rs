//! The bytes of what openraft's types become in the log, in checkpoints and between nodes. They
//! are pinned here because a new version of openraft could change them unseen.

#![expect(clippy::unwrap_used, reason = "a failed helper is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::entry::RaftEntry;
use openraft::raft::{AppendEntriesRequest, VoteRequest, VoteResponse};
use roost_raft::MemberNode;
use roost_raft::log_store::{decode_entry, encode_entry};
use roost_raft::types::{Entry, Membership, Proposal, StoredMembership, TypeConfig, Vote, log_id};
use roost_raft::wire::{Reply, Request};
use roost_storage::codec;
use roost_storage::model::LogPosition;
use serde::Serialize;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn encoded<T: Serialize>(value: &T) -> String {
    hex(&codec::encode(value))
}

/// Shows all that differ at once.
fn pinned<const N: usize>(pairs: [(String, &str); N]) {
    let (found, golden): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    assert_eq!(found, golden);
}

const AT: LogPosition = LogPosition { term: 3, index: 300 };

fn membership() -> Membership {
    let node = |id: u64| MemberNode {
        peer_addr: format!("n{id}:1"),
        client_addr: format!("n{id}:2"),
        store_id: id,
    };
    let nodes = BTreeMap::from([(1, node(1)), (2, node(2))]);
    Membership::new(vec![BTreeSet::from([1, 2])], nodes).unwrap()
}

fn entry(payload: EntryPayload<Proposal, u64, MemberNode>) -> Entry {
    Entry::new(log_id(AT), payload)
}

#[test]
fn entries_keep_their_bytes_in_the_log() {
    let payloads = [
        (EntryPayload::Blank, "00"),
        (EntryPayload::Normal(Proposal(Bytes::from_static(b"batch"))), "016261746368"),
        (
            EntryPayload::Membership(membership()),
            "0201010201020201046e313a31046e313a320102046e323a31046e323a3202",
        ),
    ];
    for (payload, golden) in payloads {
        let entry = entry(payload);
        let kept = encode_entry(&entry);
        assert_eq!((hex(&kept.payload).as_str(), kept.position), (golden, AT));
        assert_eq!(decode_entry(&kept).unwrap(), entry);
    }
}

#[test]
fn votes_and_memberships_keep_their_bytes() {
    let stored = StoredMembership::new(Some(log_id(AT)), membership());
    pinned([
        (encoded(&Vote::new(3, 2)), "0103010200"),
        (encoded(&Vote::new_committed(300, 2)), "01fb2c01010201"),
        (
            encoded(&stored),
            "010103fb2c01010201020201046e313a31046e313a320102046e323a31046e323a3202",
        ),
    ]);
}

#[test]
fn peer_messages_keep_their_bytes() {
    let vote = Vote::new_committed(3, 2);
    let append = AppendEntriesRequest::<TypeConfig> {
        vote,
        prev_log_id: Some(log_id(LogPosition { term: 2, index: 299 })),
        entries: vec![entry(EntryPayload::Normal(Proposal(Bytes::from_static(b"batch"))))],
        leader_commit: Some(log_id(LogPosition { term: 2, index: 299 })),
    };
    let ask = VoteRequest::<TypeConfig>::new(Vote::new(4, 1), Some(log_id(AT)));
    let requests = [
        (Request::Append(append), "0100030102010102fb2b010103fb2c01010562617463680102fb2b01"),
        (Request::Vote(ask.clone()), "0101040101000103fb2c0100"),
        (Request::PreVote(ask), "0102040101000103fb2c0100"),
        (
            Request::SnapshotChunk { transfer: 9, offset: 0, bytes: Bytes::from_static(b"part") },
            "010409000470617274",
        ),
        (
            Request::SnapshotInstall {
                transfer: 9,
                len: 4,
                vote,
                last: Some(AT),
                membership: StoredMembership::default(),
            },
            "01050904030102010103fb2c01000000",
        ),
    ];
    pinned(requests.map(|(request, golden)| (encoded(&request), golden)));
    let replies = [
        (
            Reply::Vote(VoteResponse::new(Vote::new(4, 1), Some(log_id(AT)), true)),
            "010104010100010103fb2c01",
        ),
        (Reply::SnapshotChunk, "0103"),
        (Reply::Failed("no".to_owned()), "0105026e6f"),
        (Reply::NoRoom, "0106"),
    ];
    pinned(replies.map(|(reply, golden)| (encoded(&reply), golden)));
}

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
use roost_raft::wire::{Reply, Request, decode_request, encode_request};
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
        let content = hex(&[&[kept.kind][..], &kept.payload].concat());
        assert_eq!((content.as_str(), kept.position), (golden, AT));
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
    pinned(requests.map(|(request, golden)| {
        let pieces = encode_request(&request).concat();
        assert_eq!(pieces, codec::encode(&request));
        (hex(&pieces), golden)
    }));
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

/// What is written and read field by field is what the types say, with entries of every kind and length.
#[test]
fn appends_in_pieces_are_appends_and_share_their_batches() {
    let batch = |len: usize| Proposal(Bytes::from(vec![7; len]));
    let long = batch(100_000);
    let entries = vec![
        entry(EntryPayload::Normal(batch(0))),
        entry(EntryPayload::Blank),
        entry(EntryPayload::Normal(long.clone())),
        entry(EntryPayload::Membership(membership())),
        entry(EntryPayload::Normal(batch(300))),
        entry(EntryPayload::Normal(long.clone())),
    ];
    for leader_commit in [None, Some(log_id(AT))] {
        let append = AppendEntriesRequest::<TypeConfig> {
            vote: Vote::new_committed(3, 2),
            prev_log_id: leader_commit,
            entries: entries.clone(),
            leader_commit,
        };
        let request = Request::Append(append);
        let pieces = encode_request(&request);
        assert_eq!(pieces.iter().filter(|piece| piece.as_ptr() == long.0.as_ptr()).count(), 2);
        let whole = Bytes::from(pieces.concat());
        assert_eq!(whole, codec::encode(&request));

        let Request::Append(decoded) = decode_request(&whole).unwrap() else { panic!("an append") };
        assert_eq!(decoded.entries, entries);
        let EntryPayload::Normal(Proposal(shared)) = &decoded.entries[2].payload else {
            panic!("a batch")
        };
        assert!(whole.as_ptr_range().contains(&shared.as_ptr()), "not a copy");
        assert_eq!(codec::encode(&Request::Append(decoded)), whole);
        for len in (0..300).chain([whole.len() - 1]) {
            assert!(decode_request(&whole.slice(..len)).is_err(), "cut at {len}");
        }
    }
}

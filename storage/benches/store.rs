//! The store's hot pieces: a batch applied, a checkpoint taken (queue and message segments encoded),
//! a page read from the hot tier and from segments, and a batch's bytes.
//!
//! One thread, an engine in memory: what is measured is the store itself. A batch has 64 sends of
//! 200 bytes; items are messages.

use std::path::Path;
use std::sync::Arc;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use roost_storage::codec;
use roost_storage::command::{Attempt, Batch, Command, Target};
use roost_storage::engine::memory::MemoryEngine;
use roost_storage::fs::real::RealDisk;
use roost_storage::model::{ConversationKind, LogPosition, Retention, UserId};
use roost_storage::store::{Payload, Store, StoreOptions};
use tempfile::TempDir;

const USERS: usize = 10_000;
const BATCH: usize = 64;
const BODY_BYTES: usize = 200;
/// The items of one page.
const PAGE: usize = 50;
/// Batches behind a checkpoint.
const CHECKPOINTED: usize = 100;

fn main() {
    divan::main();
}

/// Makes the entries of a log, one after the other.
struct Feed {
    members: usize,
    groups: usize,
    index: u64,
    names: u64,
}

impl Feed {
    fn new(members: usize) -> Self {
        Self { members, groups: USERS * 5 / members, index: 0, names: 0 }
    }

    /// The next entry: its position and its bytes.
    fn entry(&mut self, commands: Vec<Command>) -> (LogPosition, Vec<u8>) {
        let position = LogPosition { term: 1, index: self.index };
        self.index += 1;
        let batch = Batch { at_ms: self.index, commands };
        (position, codec::encode_batch(&batch).expect("a small batch"))
    }

    fn client_id(&mut self) -> roost_storage::model::ClientId {
        self.names += 1;
        format!("c{:012}", self.names).parse().expect("a short id")
    }

    fn creations(&mut self) -> Vec<(LogPosition, Vec<u8>)> {
        let commands: Vec<_> = (0..self.groups)
            .map(|group| Command::CreateConversation {
                owner: member(group, 0),
                kind: ConversationKind::Group,
                members: (1..self.members).map(|place| member(group, place)).collect(),
                name: None,
                retention: Retention::Forever,
                client_id: self.client_id(),
                attempt: Attempt(1),
            })
            .collect();
        commands.chunks(BATCH).map(|commands| self.entry(commands.to_vec())).collect()
    }

    fn sends(&mut self) -> Vec<Command> {
        (0..BATCH)
            .map(|_| {
                let client_id = self.client_id();
                let group = (self.names as usize).wrapping_mul(2_654_435_761) % self.groups;
                Command::Send {
                    sender: member(group, 0),
                    target: Target::Conversation(
                        format!("g-0-{:x}", group + 1).parse().expect("a short id"),
                    ),
                    client_id,
                    attempt: Attempt(1),
                    body: vec![b'x'; BODY_BYTES].into(),
                    content_type: None,
                    ttl_ms: None,
                }
            })
            .collect()
    }

    fn batch(&mut self) -> (LogPosition, Vec<u8>) {
        let commands = self.sends();
        self.entry(commands)
    }
}

fn member(group: usize, place: usize) -> UserId {
    format!("u{:06}", (group * 7_919 + place * 13) % USERS).parse().expect("a short id")
}

/// A store with its conversations made.
fn store(feed: &mut Feed) -> (TempDir, Store) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let disk = Arc::new(RealDisk::open(folder.path().to_owned()).expect("a folder to write to"));
    let options = StoreOptions { inline_checkpoints: true, ..StoreOptions::default() };
    let engine = Arc::new(MemoryEngine::new());
    let store = Store::open(disk, Path::new("store"), engine, options).expect("a new store");
    for entry in feed.creations() {
        apply_to(&store, &entry);
    }
    (folder, store)
}

fn apply_to(store: &Store, (position, bytes): &(LogPosition, Vec<u8>)) {
    let applied = store.apply(*position, Payload::Batch(bytes)).expect("no fault");
    assert!(applied.outcomes.iter().all(Result::is_ok), "all are accepted");
}

/// Applying a batch, by the conversations' size.
#[divan::bench(args = [2, 10, 100], sample_count = 200, sample_size = 1)]
fn apply(bencher: Bencher<'_, '_>, members: usize) {
    let mut feed = Feed::new(members);
    let (_folder, store) = store(&mut feed);
    bencher
        .counter(ItemsCount::new(BATCH))
        .with_inputs(|| feed.batch())
        .bench_local_refs(|entry| apply_to(&store, entry));
}

/// A checkpoint of 6,400 messages: segments are encoded, journalled and put into the cold tier.
#[divan::bench(args = [2, 10, 100], sample_count = 10, sample_size = 1)]
fn checkpoint(bencher: Bencher<'_, '_>, members: usize) {
    let mut feed = Feed::new(members);
    let (_folder, store) = store(&mut feed);
    bencher
        .counter(ItemsCount::new(BATCH * CHECKPOINTED))
        .with_inputs(|| (0..CHECKPOINTED).for_each(|_| apply_to(&store, &feed.batch())))
        .bench_local_values(|()| store.checkpoint().expect("no fault"));
}

/// The newest 50 items of a queue, from the hot tier or, after a checkpoint, from segments.
#[divan::bench(args = ["hot", "cold"])]
fn page(bencher: Bencher<'_, '_>, tier: &str) {
    let mut feed = Feed::new(10);
    let (_folder, store) = store(&mut feed);
    for _ in 0..1_000 {
        apply_to(&store, &feed.batch());
    }
    if tier == "cold" {
        // The second one sends what the first left in memory.
        for _ in 0..2 {
            store.checkpoint().expect("no fault");
            apply_to(&store, &feed.batch());
        }
    }
    let mut group = 0;
    bencher
        .counter(ItemsCount::new(PAGE))
        .with_inputs(|| {
            group = (group + 17) % feed.groups;
            let user = member(group, 0);
            let tail = store.queue_bounds(&user).expect("no fault").tail;
            (user, tail.saturating_sub(PAGE as u64))
        })
        .bench_local_refs(|(user, after)| {
            black_box(store.queue_page(user, *after, PAGE, 0).expect("no fault"))
        });
}

/// A batch to bytes.
#[divan::bench]
fn encode_batch(bencher: Bencher<'_, '_>) {
    let batch = Batch { at_ms: 1, commands: Feed::new(10).sends() };
    bencher
        .counter(ItemsCount::new(BATCH))
        .bench_local(|| codec::encode_batch(black_box(&batch)).expect("a small batch"));
}

/// Bytes to a batch.
#[divan::bench]
fn decode_batch(bencher: Bencher<'_, '_>) {
    let (_, bytes) = Feed::new(10).batch();
    bencher
        .counter(ItemsCount::new(BATCH))
        .bench_local(|| codec::decode_batch(black_box(&bytes)).expect("sound bytes"));
}

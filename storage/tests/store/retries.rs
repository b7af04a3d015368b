//! Retries: what a client id names, for how long, and that a repeated command is done once.

use std::sync::Arc;

use crate::commands::{direct, refused, sent};
use crate::support::*;
use roost_storage::command::{Rejection, Target};
use roost_storage::engine::memory::MemoryEngine;
use roost_storage::limits::DEDUP_WINDOW_MS;

#[test]
fn the_same_client_id_gives_the_same_reply() {
    let mut node = Node::new();
    let id = direct("alice", "bob");
    node.run_at(1_000, send_to("alice", "bob", "1", "hi")).unwrap();
    let by_user = |attempt| send_as("alice", Target::User(user("bob")), "1", attempt, "hi");
    let by_id = send_as("alice", Target::Conversation(conversation(&id)), "1", 3, "hi");
    assert_eq!(sent(node.run_at(9_000, by_user(1))), (id.clone(), 1, 1_000, false));
    assert_eq!(sent(node.run_at(9_000, by_user(2))), (id.clone(), 1, 1_000, true));
    assert_eq!(sent(node.run_at(9_000, by_id)), (id, 1, 1_000, true));
    assert_eq!(node.queue("bob").len(), 1);
    // Somebody else's client id is another one.
    node.run(send_to("bob", "alice", "1", "hi")).unwrap();
    assert_eq!(node.queue("bob").len(), 2);
}

#[test]
fn a_client_id_names_one_request_only() {
    let mut node = Node::new();
    let id = node.group("alice", &["bob"]);
    node.run(send_to("alice", "bob", "1", "hi")).unwrap();
    let others = [
        send_to("alice", "bob", "1", "ho"),
        send_to("alice", "carol", "1", "hi"),
        send("alice", &id, "1", "hi"),
        send("alice", "g-9-9", "1", "hi"),
        group("alice", &["bob"], "1"),
        send_to("alice", "bob", "make-0", "hi"),
    ];
    for command in others {
        assert_eq!(refused(&mut node, command), Rejection::ClientIdReused);
    }
}

#[test]
fn after_the_window_a_client_id_is_free() {
    let mut node = Node::new();
    node.run_at(1_000, send_to("alice", "bob", "1", "hi")).unwrap();
    let last = 1_000 + DEDUP_WINDOW_MS - 1;
    assert_eq!(
        node.run_at(last, send_to("alice", "bob", "1", "ho")),
        Err(Rejection::ClientIdReused)
    );
    node.run_at(last + 1, send_to("alice", "bob", "1", "ho")).unwrap();
    assert_eq!(node.queue("bob").len(), 2);
    assert_eq!(node.store.counts().dedup, 1);
}

#[test]
fn dedup_records_go_in_the_order_of_the_log() {
    let mut node = Node::new();
    for n in 0..20 {
        node.run_at(1_000 + n, send_to("alice", "bob", &n.to_string(), "hi")).unwrap();
    }
    assert_eq!(node.store.counts().dedup, 20);
    node.store.checkpoint().unwrap();
    for n in 20..26 {
        node.run_at(2_000 + DEDUP_WINDOW_MS, send_to("alice", "bob", &n.to_string(), "hi"))
            .unwrap();
    }
    assert_eq!(node.store.counts().dedup, 6, "four go for each that comes");
    let (_, digest, counts) = node.store.recount().unwrap();
    assert_eq!((digest, counts), (node.store.digest().1, node.store.counts()));
}

#[test]
fn a_retry_is_answered_wherever_its_record_lies() {
    let mut node = Node::new();
    let send = |n: u64| send_to("alice", "bob", &n.to_string(), "hi");
    for n in 1..=300 {
        node.run_at(1_000, send(n)).unwrap();
    }
    for round in 0..4 {
        for n in [1, 128, 129, 300] {
            let again = sent(node.run_at(2_000, send(n)));
            assert_eq!((again.1, again.2), (n, 1_000), "round {round}");
        }
        // Out of the active generation, then out of the warm one, then out of memory.
        node.store.checkpoint().unwrap();
        if round == 2 {
            node.reopen();
        }
    }
}

/// The filter in memory: what it says is new is not looked up.
#[test]
fn new_requests_are_looked_up_only_until_the_store_learned_what_it_holds() {
    let engine = Arc::new(MemoryEngine::new());
    let mut node = Node::with(Arc::clone(&engine) as _, options());
    let send = |n: u64| send_to("alice", "bob", &n.to_string(), "hi");
    for n in 1..=200 {
        node.run_at(1_000, send(n)).unwrap();
    }
    node.store.checkpoint().unwrap();
    node.reopen();
    let looks_up = |node: &mut Node, n: u64| {
        node.run_at(2_000, send_to("alice", "bob", "warm-up", "hi")).unwrap();
        let before = engine.gets();
        node.run_at(2_000, send(n)).unwrap();
        engine.gets() > before
    };
    assert!(looks_up(&mut node, 201), "nothing is learned yet");
    for n in [1, 100, 200] {
        assert_eq!(sent(node.run_at(2_000, send(n))).1, n);
    }
    node.store.checkpoint().unwrap();
    assert!(!looks_up(&mut node, 202), "it is new, and the store knows that");
    for n in [1, 100, 200, 201, 202] {
        assert!(sent(node.run_at(2_000, send(n))).2 <= 2_000);
    }
    assert_eq!(sent(node.run_at(3_000, send(200))), (direct("alice", "bob"), 200, 1_000, false));
}

#[test]
fn a_snapshot_brings_requests_that_are_known_before_and_after_they_are_learned() {
    let mut node = Node::new();
    let send = |n: u64| send_to("alice", "bob", &n.to_string(), "hi");
    for n in 1..=200 {
        node.run_at(1_000, send(n)).unwrap();
    }
    let mut other = node.clone_by_snapshot(Arc::new(MemoryEngine::whole()));
    for _ in 0..2 {
        for n in [1, 128, 200] {
            assert_eq!(sent(other.run_at(2_000, send(n))).1, n);
        }
        other.run_at(2_000, send(1_000 + other.log.len() as u64)).unwrap();
        other.store.checkpoint().unwrap();
    }
}

#[test]
fn a_client_id_that_is_used_again_outlives_its_old_record() {
    let mut node = Node::new();
    let (day, again) = (DEDUP_WINDOW_MS, send_to("alice", "bob", "1", "anew"));
    for n in 0..12 {
        node.run_at(1_000, send_to("alice", "bob", &n.to_string(), "hi")).unwrap();
    }
    node.store.checkpoint().unwrap();
    let first = sent(node.run_at(1_000 + day, again.clone()));
    node.store.checkpoint().unwrap();
    for n in 20..30 {
        node.run_at(1_000 + day, send_to("alice", "bob", &n.to_string(), "hi")).unwrap();
    }
    assert_eq!(node.store.counts().dedup, 11, "all the old ones are gone");
    let (_, digest, counts) = node.store.recount().unwrap();
    assert_eq!((digest, counts), (node.store.digest().1, node.store.counts()));
    node.store.checkpoint().unwrap();
    node.reopen();
    assert_eq!(sent(node.run_at(1_000 + day, again)).1, first.1);
}

#[test]
fn a_retry_is_answered_also_when_the_sender_could_not_send_now() {
    let mut node = Node::new();
    let id = node.group("alice", &["bob"]);
    let (_, seq, ..) = sent(node.run(send("bob", &id, "1", "bye")));
    node.run(leave("bob", &id)).unwrap();
    let retry = send_as("bob", Target::Conversation(conversation(&id)), "1", 2, "bye");
    assert_eq!(sent(node.run(retry)).1, seq);
}

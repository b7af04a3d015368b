//! The tiers under load: bounds, back-pressure, and readers while everything moves.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use roost_storage::Fault;
use roost_storage::command::{Batch, Command};
use roost_storage::engine::memory::MemoryEngine;
use roost_storage::engine::{Change, Engine};
use roost_storage::limits::{MAX_PAGE, QUEUE_SEGMENT_SPANS};
use roost_storage::model::{ItemContent, LogPosition};
use roost_storage::store::{HistoryRange, Store, StoreOptions};

use crate::pausing::{Pause, PausingEngine};
use crate::support::*;

/// Entries in which two groups take turns, so that queues have many short spans.
fn turns(entries: u64) -> Vec<Entry> {
    let makes = vec![group("alice", &["bob", "carol"], "1"), group("bob", &["carol"], "2")];
    let mut log = vec![entry(0, makes)];
    for index in 1..=entries {
        let sends = (0..4).map(|n| {
            let to = if n % 2 == 0 { "g-0-1" } else { "g-0-2" };
            send("bob", to, &format!("c{index}-{n}"), &format!("{index} {n}"))
        });
        log.push(entry(index, sends.collect()));
    }
    log
}

fn entry(index: u64, commands: Vec<Command>) -> Entry {
    let position = LogPosition { term: 1, index };
    Entry { position, batch: Some(Batch { at_ms: 1_000 + index, commands }) }
}

fn store(dirty_bytes: usize, inline_checkpoints: bool) -> Arc<Store> {
    let options = StoreOptions { dirty_bytes, inline_checkpoints, ..StoreOptions::default() };
    Node::with(Arc::new(MemoryEngine::new()), options).store
}

#[test]
fn the_times_of_checkpoints_leave_no_trace_in_the_digest() {
    let log = turns(400);
    let stores =
        [store(usize::MAX, true), store(1, true), store(10_000, true), store(64 << 20, true)];
    for entry in &log {
        for (i, store) in stores.iter().enumerate() {
            entry.apply(store).unwrap();
            if i == 3 && entry.position.index % 7 == 0 {
                store.checkpoint().unwrap();
            }
        }
        for store in &stores[1..] {
            assert_eq!(store.digest(), stores[0].digest());
        }
    }
    for store in &stores {
        let (applied, digest, counts) = store.recount().unwrap();
        assert_eq!((applied, digest), stores[0].digest());
        assert_eq!(counts, stores[0].counts());
    }
    let queues: Vec<_> = stores.iter().map(|store| queue(store, "carol", 0)).collect();
    assert!(queues[0].len() > 4 * QUEUE_SEGMENT_SPANS);
    assert!(queues.iter().all(|queue| *queue == queues[0]));
}

#[test]
fn any_difference_shows_in_the_digest() {
    let logs = |body: &str, who: &str| {
        vec![
            entry(0, vec![group("alice", &["bob"], "1"), send("alice", "g-0-1", "2", body)]),
            entry(1, vec![register(who, "phone")]),
        ]
    };
    let digest = |log: Vec<Entry>| {
        let store = store(1, true);
        replay(&store, &log);
        store.digest()
    };
    let one = digest(logs("hi", "bob"));
    assert_eq!(one, digest(logs("hi", "bob")));
    assert_ne!(one, digest(logs("ho", "bob")));
    assert_ne!(one, digest(logs("hi", "alice")));
}

#[test]
fn dirty_state_stays_under_its_bound() {
    let bound = 200_000;
    let store = store(bound, true);
    for entry in turns(1_500) {
        entry.apply(&store).unwrap();
        let stats = store.tier_stats();
        // One entry may pass the bound by its own size, which is far less than this.
        assert!(stats.dirty_bytes < bound + 20_000, "{stats:?}");
        assert!(stats.warm_bytes < bound + 20_000, "{stats:?}");
    }
    assert!(store.tier_stats().checkpoint.is_some());
}

/// The entries after which a checkpoint was due, each time it was, and made then.
fn due(checkpoint_early: u8, log: &[Entry], first_at: Option<u64>) -> Vec<u64> {
    let options =
        StoreOptions { dirty_bytes: 400_000, checkpoint_early, ..StoreOptions::default() };
    let store = Node::with(Arc::new(MemoryEngine::new()), options).store;
    let mut due = Vec::new();
    for entry in log {
        entry.apply(&store).unwrap();
        let index = entry.position.index;
        if store.is_checkpoint_due() {
            due.push(index);
            store.checkpoint().unwrap();
        } else if first_at == Some(index) {
            store.checkpoint().unwrap();
        }
    }
    due
}

fn distances(due: &[u64]) -> Vec<u64> {
    due.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

#[test]
fn replicas_come_into_step_once_and_take_turns_from_then_on() {
    let log = turns(2_500);
    let late = due(0, &log, None);
    let early = due(4, &log, None);
    assert!(late.len() > 3, "{late:?}");
    assert!(early[0] * 3 < late[0] * 2, "{early:?} {late:?}");
    let (least, most) = (late[0] * 9 / 10, late[0] * 11 / 10);
    for distance in distances(&early).into_iter().chain(distances(&late)) {
        assert!((least..=most).contains(&distance), "{early:?} {late:?}");
    }
    // A checkpoint for another reason, which all may make at once, and they come into step anew.
    let reason = late[0] / 4;
    let (late, early) = (due(0, &log, Some(reason)), due(4, &log, Some(reason)));
    assert!((early[0] - reason) * 3 < (late[0] - reason) * 2, "{early:?} {late:?}");
}

#[test]
fn pages_are_bounded_and_start_anywhere() {
    let node = store(64 << 20, true);
    replay(&node, &turns(400));
    let tail = node.queue_bounds(&user("carol")).unwrap().tail;
    for after in [0, 1, 299, tail - 1, tail, tail + 1, u64::MAX] {
        let page = node.queue_page(&user("carol"), after, usize::MAX, 0).unwrap();
        let due = tail.saturating_sub(after).min(MAX_PAGE as u64);
        assert_eq!(page.items.len() as u64, due);
        assert_eq!(page.more, after < tail && after + due < tail);
        assert!(
            page.items.iter().zip(after.saturating_add(1)..).all(|(item, seq)| item.seq == seq)
        );
    }
    let none = node.queue_page(&user("carol"), 0, 0, 0).unwrap();
    assert!(none.items.is_empty() && none.more);
}

#[test]
fn apply_waits_for_the_checkpoint_thread_and_a_stop_ends_the_wait() {
    let store = store(50_000, false);
    let checkpoints = {
        let store = Arc::clone(&store);
        thread::spawn(move || {
            let mut checkpoints = 0;
            while store.wait_for_pressure() {
                store.checkpoint().unwrap();
                checkpoints += 1;
            }
            checkpoints
        })
    };
    let log = turns(800);
    replay(&store, &log);
    assert!(store.tier_stats().dirty_bytes < 100_000);
    store.stop();
    assert!(checkpoints.join().unwrap() > 3);
    // Nobody makes room any more: what would wait for ever is refused at once.
    let next = entry(log.len() as u64, vec![]);
    assert!(matches!(next.apply(&store), Err(Fault::Stopped(_))));
    store.checkpoint().unwrap();
    assert_eq!(queue(&store, "carol", 0).len(), 2 + 4 * 800);
}

#[test]
fn a_waiting_apply_ends_with_a_stop() {
    let store = store(1, false);
    let log = turns(2);
    log[0].apply(&store).unwrap();
    let applying = {
        let (store, entry) = (Arc::clone(&store), log[1].clone());
        thread::spawn(move || entry.apply(&store))
    };
    // Whether the other thread waits already or comes later, it must end.
    store.stop();
    assert!(matches!(applying.join().unwrap(), Err(Fault::Stopped(_))));
}

#[test]
fn readers_see_dense_queues_while_entries_and_checkpoints_go_on() {
    let store = store(30_000, true);
    let done = Arc::new(AtomicBool::new(false));
    let spawn = |work: fn(&Store, &AtomicBool)| {
        let (store, done) = (Arc::clone(&store), Arc::clone(&done));
        thread::spawn(move || work(&store, &done))
    };
    let readers = [
        spawn(|store, done| {
            let mut after = 0;
            while !(done.load(Ordering::Acquire) && after == 2 + 4 * 1_500) {
                let page = store.queue_page(&user("carol"), after, 50, 0).unwrap();
                for item in page.items {
                    assert_eq!(item.seq, after + 1);
                    assert_ne!(item.content, ItemContent::Expired);
                    after = item.seq;
                }
            }
        }),
        spawn(|store, done| {
            while !done.load(Ordering::Acquire) {
                let id = conversation("g-0-1");
                let page = store.history(&id, HistoryRange::Newest, 40, 0).unwrap();
                assert!(page.messages.windows(2).all(|pair| pair[0].seq + 1 == pair[1].seq));
                let (list, _) = store.conversations(&user("bob"), None, 10, 0).unwrap();
                assert!(list.iter().all(|each| each.last.is_some() || each.record.tail == 0));
                store.devices(&user("bob")).unwrap();
            }
        }),
        spawn(|store, done| {
            while !done.load(Ordering::Acquire) {
                store.checkpoint().unwrap();
                store.export_snapshot().unwrap();
            }
        }),
    ];
    replay(&store, &turns(1_500));
    done.store(true, Ordering::Release);
    for reader in readers {
        reader.join().unwrap();
    }
    let (applied, digest, counts) = store.recount().unwrap();
    assert_eq!(((applied, digest), counts), (store.digest(), store.counts()));
}

/// What an engine might do that loses what it had reported durable.
#[test]
fn a_store_that_lost_something_is_refused_when_it_is_verified() {
    let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::new());
    let mut node = Node::with(Arc::clone(&engine), StoreOptions { verify: true, ..options() });
    let group = node.group("alice", &["bob", "carol"]);
    node.run(register("bob", "tv")).unwrap();
    node.run(send("alice", &group, "c1", "one")).unwrap();
    node.store.checkpoint().unwrap();
    let older: BTreeMap<_, _> =
        engine.scan(&[], &[0xff; 64], usize::MAX).unwrap().into_iter().collect();
    node.run(acknowledge("bob", "tv", 2)).unwrap();
    node.run(send("alice", &group, "c2", "two")).unwrap();
    node.store.checkpoint().unwrap();
    node.reopen();

    let newer = engine.scan(&[], &[0xff; 64], usize::MAX).unwrap();
    let reopen = || {
        let disk = Arc::new(node.disk.clone());
        Store::open(disk, Path::new(DIR), Arc::clone(&engine), node.options.clone())
    };
    let mut went_back = 0;
    for (key, value) in newer {
        let mut lost = vec![Change::Delete(key.clone())];
        if let Some(old) = older.get(&key).filter(|old| **old != value) {
            went_back += 1;
            lost.push(Change::Put(key.clone(), old.clone()));
        }
        for change in lost {
            engine.write(vec![change]).unwrap();
            let fault = reopen().expect_err("the store lost something");
            assert!(fault.to_string().contains("does not hold"), "{fault}");
            engine.write(vec![Change::Put(key.clone(), value.clone())]).unwrap();
        }
    }
    assert!(went_back > 4, "{went_back}");
    reopen().unwrap();
}

#[test]
fn who_must_not_wait_is_told_of_an_install() {
    let mut source = Node::new();
    source.group("alice", &["bob"]);
    source.run(send("alice", "g-0-1", "c1", "hi")).unwrap();
    let snapshot = source.store.export_snapshot().unwrap();

    let pause = Pause::default();
    let engine = PausingEngine::under(&pause);
    let node = Node::with(Arc::new(engine), options());
    let path = node.store.incoming_snapshot_path();
    copy(&source.disk, &snapshot.path, &node.disk, &path);
    let bob = user("bob");
    let all = source.store.queue_bounds(&bob).unwrap().tail;
    let look = || node.store.try_view(|view| view.queue_bounds(&bob));
    assert_eq!(look().unwrap().unwrap().tail, 0);

    let (half_written, go_on) = pause.arm();
    thread::scope(|scope| {
        let installing = scope.spawn(|| node.store.import_snapshot(&path));
        half_written.recv().unwrap();
        assert!(look().is_none());
        let waiting = scope.spawn(|| node.store.queue_bounds(&bob));
        go_on.send(()).unwrap();
        installing.join().unwrap().unwrap();
        assert_eq!(waiting.join().unwrap().unwrap().tail, all);
    });
    assert_eq!(look().unwrap().unwrap().tail, all);
}

/// Makes checkpoints, with something new in each, until nothing of before is in the hot tier.
fn let_go(node: &mut Node) {
    for n in 0..4 {
        let name = format!("other-{}-{n}", node.log.len());
        node.run(send_to("xavier", "yvonne", &name, "x")).unwrap();
        node.store.checkpoint().unwrap();
    }
}

#[test]
fn what_left_the_hot_tier_lately_is_not_looked_up_in_tables() {
    let engine = Arc::new(PausingEngine::default());
    let mut node = Node::with(Arc::<PausingEngine>::clone(&engine), options());
    let group = node.group("alice", &["bob", "carol"]);
    node.run(send("alice", &group, "c1", "one")).unwrap();
    let_go(&mut node);
    // Each of these looks for the sender's membership, the conversation, its members and their queues.
    let before = engine.gets();
    node.run(send("alice", &group, "c2", "two")).unwrap();
    assert_eq!(node.store.queue_bounds(&user("carol")).unwrap().tail, 3);
    assert_eq!(engine.gets(), before);

    // What changed since counts, not what was taken in first.
    node.run(remove(by("alice"), &group, &["bob"])).unwrap();
    node.run(send("alice", &group, "c3", "three")).unwrap();
    let_go(&mut node);
    node.run(send("bob", &group, "c4", "four")).unwrap_err();
    node.run(send("alice", &group, "c5", "five")).unwrap();
    assert_eq!(node.queue("carol").len(), 6);
    assert_eq!(node.queue("bob").len(), 4);
    let (_, digest, counts) = node.store.recount().unwrap();
    assert_eq!((digest, counts), (node.store.digest().1, node.store.counts()));
}

#[test]
fn an_install_leaves_nothing_of_what_was_known_before() {
    let mut source = Node::new();
    let group = source.group("alice", &["bob", "carol"]);
    let_go(&mut source);
    let mut behind = Node::new();
    replay(&behind.store, &source.log);
    behind.log.clone_from(&source.log);
    let_go(&mut behind);

    // The same entries again, and more, as the other node had them.
    source.log.clone_from(&behind.log);
    replay(&source.store, &source.log);
    source.run(remove(by("alice"), &group, &["bob"])).unwrap();
    source.run(send("alice", &group, "c1", "one")).unwrap();
    source.store.checkpoint().unwrap();
    let snapshot = source.store.export_snapshot().unwrap();
    let path = behind.store.incoming_snapshot_path();
    copy(&source.disk, &snapshot.path, &behind.disk, &path);
    behind.store.import_snapshot(&path).unwrap();
    behind.log.clone_from(&source.log);

    for node in [&mut source, &mut behind] {
        node.run(send("bob", &group, "c2", "two")).unwrap_err();
        node.run(send("alice", &group, "c3", "three")).unwrap();
    }
    assert_eq!(behind.store.digest(), source.store.digest());
    assert_eq!(behind.queue("carol"), source.queue("carol"));
}

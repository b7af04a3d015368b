//! One suite for all engines: what the cold tier relies on, and nothing else.
//!
//! Each test runs on a lab that can close and open its engine again. For the engine in memory,
//! closing is a crash that forgets everything that was not flushed, the worst that may happen.

#![cfg(test)]

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::{Strategy, any, prop_oneof};
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use roost_storage::Fault;
use roost_storage::engine::memory::MemoryEngine;
use roost_storage::engine::{self, Change, Direction, Engine, EngineKind, Pair, Sink};
use tempfile::TempDir;

/// An engine and the means to reopen it.
enum Lab {
    Memory(Arc<MemoryEngine>),
    Disk { kind: EngineKind, folder: TempDir, engine: Option<Arc<dyn Engine>> },
}

impl Lab {
    fn memory() -> Self {
        Self::Memory(Arc::new(MemoryEngine::new()))
    }

    fn disk(kind: EngineKind) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let engine = engine::open(kind, folder.path()).unwrap();
        Self::Disk { kind, folder, engine: Some(engine) }
    }

    fn engine(&self) -> &dyn Engine {
        match self {
            Self::Memory(engine) => &**engine,
            Self::Disk { engine, .. } => &**engine.as_ref().unwrap(),
        }
    }

    fn reopen(&mut self) {
        match self {
            Self::Memory(engine) => *engine = Arc::new(engine.crash_losing_unflushed()),
            Self::Disk { kind, folder, engine } => {
                drop(engine.take());
                *engine = Some(engine::open(*kind, folder.path()).unwrap());
            }
        }
    }
}

fn put(key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Change {
    Change::Put(key.as_ref().to_vec(), value.as_ref().to_vec())
}

fn delete(key: impl AsRef<[u8]>) -> Change {
    Change::Delete(key.as_ref().to_vec())
}

fn pairs(expected: &[(&str, &str)]) -> Vec<Pair> {
    expected.iter().map(|(k, v)| (k.as_bytes().to_vec(), v.as_bytes().to_vec())).collect()
}

fn all(engine: &dyn Engine) -> Vec<Pair> {
    engine.scan(&[], &[0xff; 8], usize::MAX).unwrap()
}

fn keys_are_in_byte_order_whatever_the_order_of_writes(lab: &Lab) {
    let engine = lab.engine();
    let keys: [&[u8]; 6] = [b"\x00", b"\x00\x00", b"a", b"a\x00", b"a\xff", b"\xfe"];
    for key in [3, 1, 5, 0, 4, 2] {
        engine.write(vec![put(keys[key], [key as u8])]).unwrap();
    }
    let found: Vec<_> = all(engine).into_iter().map(|(key, _)| key).collect();
    assert_eq!(found, keys);
}

fn scans_give_the_half_open_range_in_both_directions(lab: &Lab) {
    let engine = lab.engine();
    engine.write(vec![put("a", "1"), put("b", "2"), put("c", "3"), put("d", "4")]).unwrap();
    assert_eq!(engine.scan(b"b", b"d", 9).unwrap(), pairs(&[("b", "2"), ("c", "3")]));
    assert_eq!(engine.scan_back(b"b", b"d", 9).unwrap(), pairs(&[("c", "3"), ("b", "2")]));
    assert_eq!(engine.scan(b"aa", b"bb", 9).unwrap(), pairs(&[("b", "2")]));
    assert_eq!(engine.scan_back(b"", b"\xff", 9).unwrap().len(), 4);
}

fn scans_stop_at_their_limit(lab: &Lab) {
    let engine = lab.engine();
    engine.write(vec![put("a", "1"), put("b", "2"), put("c", "3")]).unwrap();
    assert_eq!(engine.scan(b"a", b"z", 2).unwrap(), pairs(&[("a", "1"), ("b", "2")]));
    assert_eq!(engine.scan_back(b"a", b"z", 2).unwrap(), pairs(&[("c", "3"), ("b", "2")]));
    assert_eq!(engine.scan(b"a", b"z", 0).unwrap(), []);
    assert_eq!(engine.scan_back(b"a", b"z", 0).unwrap(), []);
}

fn empty_and_reversed_ranges_hold_nothing(lab: &Lab) {
    let engine = lab.engine();
    assert_eq!(all(engine), []);
    engine.write(vec![put("b", "2")]).unwrap();
    for (start, end) in [("b", "b"), ("c", "a"), ("c", "z"), ("", "b")] {
        assert_eq!(engine.scan(start.as_bytes(), end.as_bytes(), 9).unwrap(), []);
        assert_eq!(engine.scan_back(start.as_bytes(), end.as_bytes(), 9).unwrap(), []);
    }
}

fn sorted_changes_go_over_older_and_under_newer_ones(lab: &mut Lab) {
    let large = "x".repeat(5_000);
    let engine = lab.engine();
    engine.write(vec![put("a", "old"), put("b", "old"), put("d", "old")]).unwrap();
    let mut sorted = vec![put("a", "sorted"), delete("b"), put("c", &large)];
    sorted.extend((0..500).map(|n| put(format!("n{n:03}"), [n as u8; 300])));
    let feed = |sink: &mut Sink<'_>| sorted.iter().try_for_each(|change| sink(change.as_ref()));
    engine.write_sorted(&mut { feed }).unwrap();
    engine.write_sorted(&mut |_| Ok(())).unwrap();
    engine.write(vec![put("a", "new")]).unwrap();
    engine.flush().unwrap();
    lab.reopen();
    let engine = lab.engine();
    let expected = pairs(&[("a", "new"), ("c", &large), ("d", "old")]);
    assert_eq!(engine.scan(b"a", b"e", 9).unwrap(), expected);
    assert_eq!(engine.get(b"n499").unwrap(), Some(vec![(499 % 256) as u8; 300]));
    assert_eq!(engine.scan(b"n", b"o", usize::MAX).unwrap().len(), 500);
}

fn a_visitor_breaks_off_when_it_wants(lab: &Lab) {
    let engine = lab.engine();
    engine.write(vec![put("a", "1"), put("b", "2"), put("c", "3")]).unwrap();
    let mut seen = Vec::new();
    engine
        .visit(b"a", b"z", Direction::Descending, &mut |key, _| {
            seen.push(key.to_vec());
            if key == b"b" { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    assert_eq!(seen, [b"c", b"b"]);
}

fn the_last_change_of_a_key_wins(lab: &Lab) {
    let engine = lab.engine();
    engine.write(vec![put("k", "1"), put("k", "2"), put("gone", "x"), delete("gone")]).unwrap();
    engine.write(vec![delete("back"), put("back", "y"), delete("never")]).unwrap();
    assert_eq!(all(engine), pairs(&[("back", "y"), ("k", "2")]));
    engine.write(vec![put("k", "3"), delete("back")]).unwrap();
    assert_eq!(engine.get(b"k").unwrap().unwrap(), b"3");
    assert_eq!(engine.get(b"back").unwrap(), None);
}

fn empty_values_are_values(lab: &Lab) {
    let engine = lab.engine();
    engine.write(vec![put("k", "")]).unwrap();
    assert_eq!(engine.get(b"k").unwrap(), Some(Vec::new()));
    assert_eq!(all(engine), pairs(&[("k", "")]));
}

fn values_of_a_mebibyte_come_back_whole(lab: &mut Lab) {
    let value = |n: u8| (0..1024 * 1024).map(|at: u32| (at >> 8) as u8 ^ n).collect::<Vec<_>>();
    for n in 0..5 {
        lab.engine().write(vec![put([n], value(n))]).unwrap();
    }
    lab.engine().flush().unwrap();
    lab.reopen();
    for n in 0..5 {
        assert!(lab.engine().get(&[n]).unwrap().unwrap() == value(n), "value {n}");
    }
}

fn what_was_flushed_is_there_after_opening_again(lab: &mut Lab) {
    lab.engine().write(vec![put("a", "1"), put("b", "2"), put("c", "3")]).unwrap();
    lab.engine().flush().unwrap();
    lab.engine().write(vec![delete("b"), put("c", "4")]).unwrap();
    lab.engine().flush().unwrap();
    for _ in 0..3 {
        lab.reopen();
        assert_eq!(all(lab.engine()), pairs(&[("a", "1"), ("c", "4")]));
    }
}

fn what_comes_after_a_clearing_outlives_a_restart(lab: &mut Lab) {
    lab.engine().write(vec![put("a", "old"), put("b", "old")]).unwrap();
    lab.engine().flush().unwrap();
    lab.engine().clear().unwrap();
    let later = [put("a", "new"), put("c", "new")];
    let feed = |sink: &mut Sink<'_>| later.iter().try_for_each(|change| sink(change.as_ref()));
    lab.engine().write_sorted(&mut { feed }).unwrap();
    lab.engine().write(vec![put("d", "new")]).unwrap();
    lab.engine().flush().unwrap();
    lab.reopen();
    let expected = pairs(&[("a", "new"), ("c", "new"), ("d", "new")]);
    assert_eq!(lab.engine().scan(b"a", b"z", 9).unwrap(), expected);
}

fn clearing_leaves_nothing_and_can_be_repeated(lab: &mut Lab) {
    for round in 0..3 {
        let many = (0..500_u32).map(|n| put(n.to_be_bytes(), "x")).collect();
        lab.engine().write(many).unwrap();
        lab.engine().flush().unwrap();
        lab.engine().clear().unwrap();
        lab.engine().clear().unwrap();
        assert_eq!(all(lab.engine()), [], "round {round}");
        lab.engine().write(vec![put("new", "1")]).unwrap();
        lab.engine().flush().unwrap();
        lab.reopen();
        assert_eq!(all(lab.engine()), pairs(&[("new", "1")]), "round {round}");
    }
}

fn many_batches_add_up(lab: &mut Lab) {
    const KEYS: u32 = 6_000;
    for chunk in (0..KEYS).collect::<Vec<_>>().chunks(333) {
        let changes = chunk.iter().map(|n| put(n.to_be_bytes(), n.to_string())).collect();
        lab.engine().write(changes).unwrap();
    }
    let odd = (0..KEYS).filter(|n| n % 2 == 1).map(|n| delete(n.to_be_bytes())).collect();
    lab.engine().write(odd).unwrap();
    lab.engine().flush().unwrap();
    lab.reopen();
    let expected = (0..KEYS).step_by(2).map(|n| (n.to_be_bytes().to_vec(), n.to_string().into()));
    assert_eq!(all(lab.engine()), expected.collect::<Vec<Pair>>());
    assert!(lab.engine().disk_bytes().unwrap() > 0);
}

fn random_changes_and_scans_agree_with_an_ordered_map(lab: &mut Lab) {
    let mut runner = TestRunner::deterministic();
    let key = || vec(0..3_u8, 1..4);
    let change = prop_oneof![
        3 => (key(), vec(any::<u8>(), 0..9)).prop_map(|(key, value)| Change::Put(key, value)),
        1 => key().prop_map(Change::Delete),
    ];
    let bound = || vec(0..3_u8, 0..4);
    let round = (vec(change, 0..60), key(), bound(), bound(), 0..9_usize);
    let mut model = BTreeMap::new();
    for _ in 0..200 {
        let (changes, key, start, end, limit) = round.new_tree(&mut runner).unwrap().current();
        for change in changes.clone() {
            match change {
                Change::Put(key, value) => model.insert(key, value),
                Change::Delete(key) => model.remove(&key),
            };
        }
        lab.engine().write(changes).unwrap();
        let inside = || model.iter().filter(|(key, _)| start <= **key && **key < end);
        let pair = |(key, value): (&Vec<u8>, &Vec<u8>)| (key.clone(), value.clone());
        let forth: Vec<_> = inside().take(limit).map(pair).collect();
        let back: Vec<_> = inside().rev().take(limit).map(pair).collect();
        assert_eq!(lab.engine().scan(&start, &end, limit).unwrap(), forth);
        assert_eq!(lab.engine().scan_back(&start, &end, limit).unwrap(), back);
        assert_eq!(lab.engine().get(&key).unwrap().as_ref(), model.get(&key));
    }
    lab.engine().flush().unwrap();
    lab.reopen();
    assert_eq!(all(lab.engine()), model.into_iter().collect::<Vec<_>>());
}

macro_rules! conformance {
    ($($test:ident,)*) => {
        mod memory {
            $(#[test] fn $test() { super::$test(&mut super::Lab::memory()); })*
        }
        mod sled {
            $(#[test] fn $test() { super::$test(&mut super::Lab::disk(super::EngineKind::Sled)); })*
        }
        mod fjall {
            $(#[test] fn $test() { super::$test(&mut super::Lab::disk(super::EngineKind::Fjall)); })*
        }
    };
}

conformance! {
    keys_are_in_byte_order_whatever_the_order_of_writes,
    scans_give_the_half_open_range_in_both_directions,
    scans_stop_at_their_limit,
    empty_and_reversed_ranges_hold_nothing,
    sorted_changes_go_over_older_and_under_newer_ones,
    a_visitor_breaks_off_when_it_wants,
    the_last_change_of_a_key_wins,
    empty_values_are_values,
    values_of_a_mebibyte_come_back_whole,
    what_was_flushed_is_there_after_opening_again,
    clearing_leaves_nothing_and_can_be_repeated,
    what_comes_after_a_clearing_outlives_a_restart,
    many_batches_add_up,
    random_changes_and_scans_agree_with_an_ordered_map,
}

fn open_error(kind: EngineKind, path: &Path) -> String {
    match engine::open(kind, path) {
        Err(Fault::Engine(message)) => message,
        other => panic!("{other:?} instead of an engine's fault"),
    }
}

#[test]
fn a_folder_made_with_one_engine_is_refused_by_the_other() {
    for (made_with, configured) in
        [(EngineKind::Sled, EngineKind::Fjall), (EngineKind::Fjall, EngineKind::Sled)]
    {
        let folder = tempfile::tempdir().unwrap();
        drop(engine::open(made_with, folder.path()).unwrap());
        let message = open_error(configured, folder.path());
        assert!(message.contains(made_with.as_str()), "{message}");
        assert!(message.contains("configure"), "{message}");
        engine::open(made_with, folder.path()).unwrap();
    }
}

#[test]
fn a_folder_of_something_else_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("notes.txt"), "mine").unwrap();
    let message = open_error(EngineKind::Sled, folder.path());
    assert!(message.contains("marker"), "{message}");
}

#[test]
fn a_crash_while_marking_the_folder_leaves_it_usable() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ENGINE.tmp"), "fj").unwrap();
    engine::open(EngineKind::Sled, folder.path()).unwrap();
}

#[test]
fn an_engine_that_cannot_open_its_files_says_what_to_do() {
    for kind in [EngineKind::Sled, EngineKind::Fjall] {
        let folder = tempfile::tempdir().unwrap();
        let _open = engine::open(kind, folder.path()).unwrap();
        let message = open_error(kind, folder.path());
        assert!(message.contains("another process"), "{message}");
    }
}

#[test]
fn a_crash_in_memory_keeps_what_was_flushed_and_any_of_the_rest() {
    let engine = MemoryEngine::new();
    engine.write(vec![put("safe", "1"), put("over", "old")]).unwrap();
    engine.flush().unwrap();
    engine.write(vec![put("over", "new"), put("maybe", "2"), put("perhaps", "3")]).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let found = engine.crash(seed);
        assert_eq!(found.get(b"safe").unwrap().unwrap(), b"1");
        assert_eq!(all(&found), all(&engine.crash(seed)), "seed {seed} is not repeatable");
        seen.insert(all(&found));
    }
    assert_eq!(seen.len(), 8, "all subsets of three changes come up");
    assert_eq!(all(&engine.crash_losing_unflushed()), pairs(&[("over", "old"), ("safe", "1")]));
}

#[test]
fn an_engine_that_was_told_to_fail_stays_failed() {
    let engine = MemoryEngine::new();
    engine.fail_after(1);
    engine.write(vec![put("a", "1")]).unwrap();
    engine.write(vec![put("b", "2"), put("c", "3")]).unwrap_err();
    engine.flush().unwrap_err();
    assert_eq!(all(&engine), pairs(&[("a", "1"), ("b", "2")]), "the failing write is half done");
    engine.write(vec![put("d", "4")]).unwrap_err();
    assert_eq!(all(&engine).len(), 2);
}

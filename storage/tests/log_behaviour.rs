//! What a caller of the log may rely on: order, group commit, readability, bounds, and what is
//! refused.
#![cfg(test)]

mod log_support;

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{TryRecvError, channel};
use std::time::{Duration, Instant};

use log_support::gate::GatedDisk;
use log_support::{DIR, Model, Op, append, at, done, entries, entry, open, run, submit, wait};
use roost_storage::Fault;
use roost_storage::fs::Disk;
use roost_storage::fs::real::RealDisk;
use roost_storage::fs::sim::{CrashPolicy, SimDisk};
use roost_storage::limits::MAX_ENTRY_BYTES;
use roost_storage::log::Log;

const SEGMENT_BYTES: u64 = 64 * 1024;
const CACHE_BYTES: usize = 1024 * 1024;

/// A log whose writer is in the middle of a sync that won't end before the gate is opened; entry 0
/// is in that sync.
fn log_in_a_sync() -> (GatedDisk, Log) {
    let disk = GatedDisk::default();
    let log = open(disk.clone(), SEGMENT_BYTES, 0).unwrap();
    disk.gate.shut();
    log.append(entries(0..1, 10), Box::new(|_| ())).unwrap();
    disk.gate.wait_until_somebody_waits();
    (disk, log)
}

#[test]
fn entries_are_readable_before_they_are_durable() {
    let (disk, log) = log_in_a_sync();
    let (callback, outcome) = done();
    log.append(entries(1..5, 1000), callback).unwrap();
    assert_eq!(log.read(0, 10, usize::MAX).unwrap().len(), 5);
    assert_eq!(log.state().last, Some(at(1, 4)));
    assert_eq!(outcome.try_recv().unwrap_err(), TryRecvError::Empty);
    disk.gate.open();
    wait(&outcome).unwrap();
    assert_eq!(log.read(1, 5, usize::MAX).unwrap(), entries(1..5, 1000));
}

#[test]
fn calls_that_wait_share_one_sync_and_are_told_in_their_order() {
    let (disk, log) = log_in_a_sync();
    let (sender, order) = channel();
    let told = |number: u64| {
        let sender = sender.clone();
        Box::new(move |outcome: Result<(), Fault>| sender.send((number, outcome.is_ok())).unwrap())
    };
    for number in 1..100 {
        log.append(entries(number..number + 1, 300), told(number)).unwrap();
    }
    log.save_vote("vote".into(), told(100)).unwrap();
    log.truncate_after(Some(at(1, 50)), told(101)).unwrap();
    log.truncate_after(Some(at(1, 50)), told(102)).unwrap(); // Changes nothing, but keeps its place.
    disk.gate.open();
    for number in 1..=102 {
        assert_eq!(order.recv_timeout(Duration::from_secs(60)).unwrap(), (number, true));
    }
    assert_eq!(log.stats().syncs, 2);
}

#[test]
fn a_truncated_entry_does_not_come_back_while_its_bytes_are_on_their_way() {
    let (disk, log) = log_in_a_sync();
    log.append(vec![entry(1, 1, "old"), entry(1, 2, "old")], Box::new(|_| ())).unwrap();
    log.truncate_after(Some(at(1, 0)), Box::new(|_| ())).unwrap();
    let (callback, outcome) = done();
    log.append(vec![entry(1, 1, "new")], callback).unwrap();
    assert_eq!(log.read(1, 9, usize::MAX).unwrap(), [entry(1, 1, "new")]);
    disk.gate.open();
    wait(&outcome).unwrap();
    assert_eq!(log.read(1, 9, usize::MAX).unwrap(), [entry(1, 1, "new")]);
    drop(log);
    let log = open(disk, SEGMENT_BYTES, 0).unwrap();
    assert_eq!(log.read(1, 9, usize::MAX).unwrap(), [entry(1, 1, "new")]);
}

#[test]
fn a_failed_sync_is_told_to_all_who_wait_and_to_all_who_come() {
    let (disk, log) = log_in_a_sync();
    let (vote, vote_outcome) = done();
    log.save_vote("v".into(), vote).unwrap();
    let (callback, append_outcome) = done();
    log.append(entries(1..2, 10), callback).unwrap();
    // The gate holds the sync of entry 0; the write and the sync of the next frame follow it.
    disk.disk.fail_at(disk.disk.operations() + 3);
    assert_eq!(log.fault(), None);
    disk.gate.open();
    assert!(matches!(wait(&vote_outcome), Err(Fault::Io { .. })));
    assert!(log.fault().is_some_and(|reason| reason.contains("sync")));
    assert!(matches!(wait(&append_outcome), Err(Fault::Stopped(_))));
    for op in [Op::Vote("w".into()), Op::Purge(at(1, 0)), Op::Committed(None)] {
        assert!(matches!(submit(&log, &op), Err(Fault::Stopped(_))));
    }
    drop(log);
    let after = open(disk.disk.crash(CrashPolicy::LoseUnsynced), SEGMENT_BYTES, 0).unwrap();
    assert_eq!((after.state().last, after.state().vote), (Some(at(1, 0)), None));
}

#[test]
fn readers_and_a_writer_do_not_disturb_each_other() {
    let log = Arc::new(open(SimDisk::new(), SEGMENT_BYTES, 2000).unwrap());
    append(&log, 0..1, 300);
    let reader = {
        let log = log.clone();
        std::thread::spawn(move || {
            let mut seen: u64 = 0;
            while seen < 2000 {
                let found = log.read(seen.saturating_sub(40), seen + 40, 20_000).unwrap();
                for pair in found.windows(2) {
                    assert_eq!(pair[0].position.index + 1, pair[1].position.index);
                }
                for found in &found {
                    assert_eq!(found.payload[..], vec![found.position.index as u8; 299]);
                }
                // An empty page means that the writer has purged what is next.
                let first = || log.stats().first.map_or(seen, |first| first.max(seen));
                seen = found.last().map_or_else(first, |last| last.position.index + 1);
            }
        })
    };
    for start in (1..2001).step_by(10) {
        log.append(entries(start..start + 10, 300), Box::new(|outcome| outcome.unwrap())).unwrap();
        if start > 500 {
            log.purge(at(1, start - 500), Box::new(|outcome| outcome.unwrap())).unwrap();
        }
    }
    reader.join().unwrap();
}

#[test]
fn what_would_break_the_order_is_refused_and_changes_nothing() {
    let log = open(SimDisk::new(), SEGMENT_BYTES, CACHE_BYTES).unwrap();
    append(&log, 0..10, 10);
    run(&log, &Op::Purge(at(1, 3))).unwrap();
    let before = Model::of(&log);
    let refused = [
        Op::Append(entries(11..12, 10)),
        Op::Append(entries(9..11, 10)),
        Op::Append(vec![entry(1, 10, "a"), entry(1, 12, "b")]),
        Op::Append(vec![entry(0, 10, "an older term")]),
        Op::Append(vec![entry(1, 10, vec![0; MAX_ENTRY_BYTES + 1])]),
        Op::Truncate(None),
        Op::Truncate(Some(at(1, 2))),
        Op::Truncate(Some(at(1, 10))),
        Op::Truncate(Some(at(2, 5))),
        Op::Vote(vec![0; 1025].into()),
    ];
    for op in refused {
        assert!(matches!(submit(&log, &op), Err(Fault::Misuse(_))), "{op:?}");
        assert_eq!(Model::of(&log), before);
    }
    append(&log, 10..11, 10);
}

#[test]
fn a_new_log_begins_where_its_first_entry_says() {
    let disk = SimDisk::new();
    let log = open(disk.clone(), SEGMENT_BYTES, CACHE_BYTES).unwrap();
    append(&log, 7..9, 10);
    assert_eq!(log.read(0, 100, usize::MAX).unwrap(), entries(7..9, 10));
    drop(log);
    let log = open(disk, SEGMENT_BYTES, CACHE_BYTES).unwrap();
    run(&log, &Op::Truncate(None)).unwrap();
    assert_eq!(log.state().last, None);
    append(&log, 2..3, 10);
    assert_eq!(log.read(0, 100, usize::MAX).unwrap(), entries(2..3, 10));
}

#[test]
fn the_cache_is_bounded_and_what_left_it_is_read_from_its_file() {
    let log = open(SimDisk::new(), SEGMENT_BYTES, 5000).unwrap();
    for start in (0..500).step_by(50) {
        append(&log, start..start + 50, 100);
    }
    let stats = log.stats();
    assert!(stats.cached_bytes <= 5000, "{stats:?}");
    assert_eq!(log.read(0, 500, usize::MAX).unwrap(), entries(0..500, 100));
    assert_eq!((stats.first, stats.last, stats.segments), (Some(0), Some(499), 2));
    assert_eq!(stats.disk_bytes, 2 * SEGMENT_BYTES);
}

#[test]
fn a_read_is_bounded_by_bytes_but_gives_at_least_one_entry() {
    let log = open(SimDisk::new(), SEGMENT_BYTES, CACHE_BYTES).unwrap();
    // A kind, and 99 bytes of payload.
    append(&log, 0..10, 100);
    let count = |max_bytes| log.read(2, 10, max_bytes).unwrap().len();
    assert_eq!([0, 98, 99, 197, 198, 10_000].map(count), [1, 1, 1, 1, 2, 8]);
    assert!(log.read(10, 20, 100).unwrap().is_empty());
    assert!(log.read(5, 5, 100).unwrap().is_empty());
}

#[test]
fn damage_to_an_old_entry_is_found_when_it_is_read() {
    let disk = SimDisk::new();
    let log = open(disk.clone(), SEGMENT_BYTES, 0).unwrap();
    append(&log, 0..3, 100);
    let first = Path::new(DIR).join(&disk.list(Path::new(DIR)).unwrap()[0]);
    disk.flip_bit(&first, 4096 + 20 + 60, 5).unwrap();
    match log.read(0, 1, usize::MAX) {
        Err(Fault::Corrupt(what)) => {
            assert!(what.contains("0000000001.log at byte 4116"), "{what}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(log.read(1, 3, usize::MAX).unwrap(), entries(1..3, 100));
}

#[test]
fn an_entry_larger_than_a_segment_gets_one_of_its_own() {
    let disk = SimDisk::new();
    let log = open(disk.clone(), SEGMENT_BYTES, 0).unwrap();
    let all: Vec<_> = [10, MAX_ENTRY_BYTES, 10, MAX_ENTRY_BYTES, MAX_ENTRY_BYTES, 20]
        .iter()
        .zip(0..)
        .map(|(len, index)| entry(1, index, vec![index as u8; *len]))
        .collect();
    run(&log, &Op::Append(all.clone())).unwrap();
    assert_eq!(log.read(0, 6, usize::MAX).unwrap(), all);
    drop(log);
    let log = open(disk.crash(CrashPolicy::LoseUnsynced), SEGMENT_BYTES, 0).unwrap();
    assert_eq!(log.read(0, 6, usize::MAX).unwrap(), all);
}

#[test]
fn what_is_over_a_size_can_be_purged_and_leaves_that_size() {
    let disk = SimDisk::new();
    let log = open(disk, SEGMENT_BYTES, 0).unwrap();
    assert_eq!(log.surplus(0), None);
    for start in (0..1000).step_by(50) {
        append(&log, start..start + 50, 300);
    }
    let before = log.stats();
    assert_eq!(log.surplus(before.disk_bytes), None);
    let half = before.disk_bytes / 2;
    let surplus = log.surplus(half).unwrap();
    run(&log, &Op::Purge(at(1, surplus))).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while log.stats().segments > before.segments / 2 + 1 {
        assert!(Instant::now() < deadline, "purged segments are still there");
        std::thread::yield_now();
    }
    let after = log.stats();
    assert!(after.disk_bytes >= half && after.disk_bytes < before.disk_bytes);
    assert_eq!((after.first, after.last), (Some(surplus + 1), Some(999)));
}

#[test]
fn a_commit_position_rides_along_and_is_written_when_the_log_is_dropped() {
    let disk = SimDisk::new();
    let log = open(disk.clone(), SEGMENT_BYTES, CACHE_BYTES).unwrap();
    let syncs = log.stats().syncs;
    for index in 0..10_000 {
        log.save_committed(Some(at(1, index))).unwrap();
    }
    assert_eq!(log.stats().syncs, syncs);
    append(&log, 0..1, 10);
    assert_eq!(log.stats().syncs, syncs + 1);
    log.save_committed(Some(at(2, 7))).unwrap();
    assert_eq!(log.state().committed, Some(at(2, 7)));
    drop(log);
    let log = open(disk, SEGMENT_BYTES, CACHE_BYTES).unwrap();
    assert_eq!(log.state().committed, Some(at(2, 7)));
}

#[test]
fn a_log_dropped_by_its_own_callback_ends_in_order() {
    let disk = SimDisk::new();
    let log = Arc::new(open(disk.clone(), SEGMENT_BYTES, CACHE_BYTES).unwrap());
    let (sender, dropped) = channel();
    let (held, released) = channel::<()>();
    let handle = log.clone();
    let callback = move |_| {
        released.recv().unwrap();
        drop(handle);
        sender.send(()).unwrap();
    };
    log.append(entries(0..1, 10), Box::new(callback)).unwrap();
    let (callback, outcome) = done();
    log.append(entries(1..2, 10), callback).unwrap();
    drop(log);
    held.send(()).unwrap();
    dropped.recv_timeout(Duration::from_secs(60)).unwrap();
    wait(&outcome).unwrap();
    assert_eq!(open(disk, SEGMENT_BYTES, CACHE_BYTES).unwrap().state().last, Some(at(1, 1)));
}

#[test]
fn it_works_on_the_operating_systems_files() {
    let folder = tempfile::tempdir().unwrap();
    let disk = RealDisk::open(folder.path().to_owned()).unwrap();
    let log = open(disk.clone(), SEGMENT_BYTES, 1000).unwrap();
    append(&log, 0..400, 500);
    run(&log, &Op::Truncate(Some(at(1, 299)))).unwrap();
    run(&log, &Op::Purge(at(1, 250))).unwrap();
    let before = Model::of(&log);
    drop(log);
    let log = open(disk, SEGMENT_BYTES, 1000).unwrap();
    assert_eq!(Model::of(&log), before);
    append(&log, 300..310, 500);
}

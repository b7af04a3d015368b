//! The log survives what a machine can do to it: it is stopped at every single operation on the disk,
//! under every kind of crash, and must come back with all that was reported as durable and nothing
//! that was never asked for.
#![cfg(test)]

mod log_support;

use std::path::Path;

use log_support::{DIR, Model, Op, at, entry, open, run, submit, wait};
use roost_storage::Fault;
use roost_storage::fs::sim::{CrashPolicy, SimDisk};
use roost_storage::fs::{Disk, OpenMode};

const SEGMENT_BYTES: u64 = 4096 + 600;
const CACHE_BYTES: usize = 200;
const HEADER_BYTES: usize = 4096;

/// Appends, votes, truncations and purges, over several segments. Each inner list is submitted at
/// once, and then waited for; so it must not end in a commit position, which nobody waits for.
fn script() -> Vec<Vec<Op>> {
    let payload = |seed: u8, len: usize| vec![seed; len];
    let append = |term, range: std::ops::Range<u64>, len| {
        Op::Append(range.map(|index| entry(term, index, payload(index as u8 + 1, len))).collect())
    };
    vec![
        vec![Op::Vote(b"one".as_slice().into())],
        vec![append(1, 0..3, 90)],
        vec![Op::Committed(Some(at(1, 1))), append(1, 3..6, 150)],
        vec![Op::Truncate(Some(at(1, 3))), append(2, 4..6, 40)],
        vec![Op::Committed(Some(at(2, 4))), append(2, 6..7, 900)],
        vec![Op::Purge(at(1, 3)), Op::Vote(b"two".as_slice().into())],
        vec![append(2, 7..12, 120)],
        vec![Op::Purge(at(2, 9))],
        vec![Op::Truncate(Some(at(2, 9))), append(3, 10..12, 60)],
        vec![Op::Purge(at(3, 20))],
        vec![append(4, 21..23, 200), Op::Truncate(Some(at(4, 21))), append(5, 22..24, 10)],
    ]
}

/// Segments of four pages, later ones in the files of purged ones, with fewer frames than were there.
fn recycling_script() -> Vec<Vec<Op>> {
    let append = |index: u64, len| Op::Append(vec![entry(1, index, vec![index as u8 + 1; len])]);
    let mut script = vec![vec![Op::Vote(b"one".as_slice().into())]];
    script.extend((0..7).map(|index| vec![append(index, 5000)]));
    script.extend([
        vec![Op::Purge(at(1, 5))],
        vec![append(7, 5000), append(8, 5000)],
        vec![append(9, 5000)],
        vec![append(10, 10)],
        vec![append(11, 9000)],
        vec![append(12, 4000)],
        vec![Op::Purge(at(1, 11)), append(13, 10)],
        vec![append(14, 50)],
    ]);
    script
}

/// A script, and the length of the segments that it is written for.
struct Case {
    script: Vec<Vec<Op>>,
    segment_bytes: u64,
}

fn cases() -> [Case; 2] {
    [
        Case { script: script(), segment_bytes: SEGMENT_BYTES },
        Case { script: recycling_script(), segment_bytes: 5 * 4096 },
    ]
}

/// The states that the log goes through, record by record, and how many of them each group reaches.
fn states(case: &Case) -> (Vec<Model>, Vec<usize>) {
    let mut states = vec![Model::default()];
    let mut reached = Vec::new();
    for group in case.script.clone() {
        for op in group {
            let steps = match op {
                Op::Append(entries) => {
                    entries.into_iter().map(|entry| Op::Append(vec![entry])).collect()
                }
                op => vec![op],
            };
            for step in steps {
                let mut next = states.last().unwrap().clone();
                next.apply(&step);
                states.push(next);
            }
        }
        reached.push(states.len() - 1);
    }
    (states, reached)
}

/// Runs the script until a fault; gives how many groups were durable.
fn play(case: &Case, disk: &SimDisk) -> usize {
    let Ok(log) = open(disk.clone(), case.segment_bytes, CACHE_BYTES) else { return 0 };
    let mut durable = 0;
    for group in &case.script {
        let calls: Vec<_> = group.iter().map(|op| submit(&log, op)).collect();
        let outcomes: Vec<_> = calls
            .into_iter()
            .map(|call| {
                call.and_then(|receiver| receiver.map_or(Ok(()), |receiver| wait(&receiver)))
            })
            .collect();
        if outcomes.iter().any(Result::is_err) {
            let late = run(&log, &Op::Vote(b"late".as_slice().into()));
            assert!(
                matches!(late, Err(Fault::Stopped(_))),
                "a log at a fault takes nothing more: {late:?}"
            );
            break;
        }
        durable += 1;
    }
    durable
}

fn policies() -> impl Iterator<Item = CrashPolicy> {
    let torn = (0..6).map(|seed| CrashPolicy::Torn { seed });
    [CrashPolicy::LoseUnsynced, CrashPolicy::KeepAll].into_iter().chain(torn)
}

/// Opens what a crash left, and checks it against the states from `durable` on.
fn check(case: &Case, disk: &SimDisk, states: &[Model], at_least: usize, what: &str) {
    let log = open(disk.clone(), case.segment_bytes, CACHE_BYTES)
        .unwrap_or_else(|fault| panic!("{what}: {fault}"));
    let found = Model::of(&log);
    assert!(
        states[at_least..].contains(&found),
        "{what}: not a state from {at_least} on: {found:?}"
    );
    // What recovery found is durable now, and the log goes on.
    let next = found.state.last.map_or(0, |last| last.index + 1);
    let op = Op::Append(vec![entry(9, next, "next")]);
    run(&log, &op).unwrap();
    drop(log);
    let mut expected = found;
    expected.apply(&op);
    let again = open(disk.crash(CrashPolicy::LoseUnsynced), case.segment_bytes, CACHE_BYTES);
    assert_eq!(Model::of(&again.unwrap()), expected, "{what}, opened again");
}

fn operations_of(case: &Case) -> u64 {
    let disk = SimDisk::new();
    assert_eq!(play(case, &disk), case.script.len());
    disk.operations()
}

#[test]
fn the_second_script_leaves_old_frames_behind_new_ones() {
    let disk = SimDisk::new();
    play(&cases()[1], &disk);
    let names = disk.list(Path::new(DIR)).unwrap();
    let stale = names.iter().filter(|name| name.ends_with(".log")).filter(|name| {
        let bytes = bytes_of(&disk, name);
        let end = *frames(&bytes).last().unwrap();
        bytes[end..].iter().any(|byte| *byte != 0)
    });
    assert!(stale.count() >= 1, "no segment with old frames behind its own: {names:?}");
}

#[test]
fn every_point_of_a_crash_keeps_what_was_durable() {
    // The last operation is not there: nothing stops it.
    at_each_operation(1, "stopped", SimDisk::stop_at);
}

#[test]
fn every_failed_operation_stops_the_log_and_loses_nothing() {
    at_each_operation(0, "failed", SimDisk::fail_at);
}

/// Makes trouble at each operation of each script, and at so many after it.
fn at_each_operation(further: u64, what: &str, make: fn(&SimDisk, u64)) {
    for case in &cases() {
        let (states, reached) = states(case);
        for operation in 1..=operations_of(case) + further {
            let disk = SimDisk::new();
            make(&disk, operation);
            let at_least = play(case, &disk).checked_sub(1).map_or(0, |group| reached[group]);
            for policy in policies() {
                let what = format!("{what} at {operation}, {policy:?}");
                check(case, &disk.crash(policy), &states, at_least, &what);
            }
        }
    }
}

#[test]
fn a_crash_during_recovery_changes_nothing() {
    for case in &cases() {
        crashes_during_recovery(case);
    }
}

fn crashes_during_recovery(case: &Case) {
    let (states, reached) = states(case);
    // What recovery finds, and then also the next entry.
    let after: Vec<_> = states
        .iter()
        .map(|state| {
            let mut after = state.clone();
            after.apply(&next_segment(case, state));
            after
        })
        .collect();
    for stop in 1..=operations_of(case) + 1 {
        let disk = SimDisk::new();
        disk.stop_at(stop);
        let at_least = play(case, &disk).checked_sub(1).map_or(0, |group| reached[group]);
        for first in [CrashPolicy::KeepAll, CrashPolicy::Torn { seed: stop }] {
            let crashed = disk.crash(first);
            for second_stop in 1.. {
                let disk = crashed.crash(CrashPolicy::KeepAll);
                disk.stop_at(second_stop);
                let recovered = open(disk.clone(), case.segment_bytes, CACHE_BYTES);
                let finished = recovered.is_ok_and(|log| {
                    let found = Model::of(&log);
                    run(&log, &next_segment(case, &found)).is_ok()
                });
                let allowed = [&states[at_least..], &after[at_least..]].concat();
                for second in [CrashPolicy::LoseUnsynced, CrashPolicy::Torn { seed: second_stop }] {
                    let what = format!(
                        "stopped at {stop}, {first:?}, recovery at {second_stop}, {second:?}"
                    );
                    check(case, &disk.crash(second), &allowed, 0, &what);
                }
                if finished {
                    break;
                }
            }
        }
    }
}

/// An entry that fits in no segment but an empty one.
fn next_segment(case: &Case, state: &Model) -> Op {
    let next = state.state.last.map_or(0, |last| last.index + 1);
    Op::Append(vec![entry(8, next, vec![8; case.segment_bytes as usize - HEADER_BYTES - 60])])
}

/// The script's disk, its segments' names, and their bytes.
fn written() -> (SimDisk, Vec<(String, Vec<u8>)>) {
    let disk = SimDisk::new();
    let log = open(disk.clone(), SEGMENT_BYTES, CACHE_BYTES).unwrap();
    for index in 0..11 {
        run(&log, &Op::Append(vec![entry(1, index, vec![index as u8; 100])])).unwrap();
    }
    drop(log);
    let names = disk.list(Path::new(DIR)).unwrap();
    assert!(names.len() >= 3);
    let files = names.iter().map(|name| (name.clone(), bytes_of(&disk, name))).collect();
    (disk, files)
}

fn bytes_of(disk: &SimDisk, name: &str) -> Vec<u8> {
    let file = disk.open(&Path::new(DIR).join(name), OpenMode::Existing).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(0, &mut bytes).unwrap();
    bytes
}

/// Where the frames of a segment begin and, last, end.
fn frames(bytes: &[u8]) -> Vec<usize> {
    let mut bounds = vec![HEADER_BYTES];
    loop {
        let at = *bounds.last().unwrap();
        let Some(header) = bytes.get(at..at + 20).filter(|header| header[0] != 0) else {
            return bounds;
        };
        bounds.push(at + 20 + u32::from_be_bytes(header[4..8].try_into().unwrap()) as usize);
    }
}

#[test]
fn a_flipped_bit_in_the_log_is_reported_with_file_and_byte() {
    let (disk, files) = written();
    let newest = files.len() - 1;
    for (number, (name, bytes)) in files.iter().enumerate() {
        let bounds = frames(bytes);
        // The newest frame of all can't be told from a torn write: the next test is about it.
        let checked_to =
            if number == newest { bounds[bounds.len() - 2] } else { *bounds.last().unwrap() };
        let header_end = 17 + u32::from_be_bytes(bytes[9..13].try_into().unwrap()) as usize;
        for offset in (0..header_end).chain(HEADER_BYTES..checked_to) {
            let damaged = disk.crash(CrashPolicy::KeepAll);
            damaged
                .flip_bit(&Path::new(DIR).join(name), offset as u64, (offset % 8) as u8)
                .unwrap();
            match open(damaged, SEGMENT_BYTES, CACHE_BYTES) {
                Err(Fault::Corrupt(what)) => assert!(what.contains(".log at byte "), "{what}"),
                other => panic!("a flipped bit at byte {offset} of {name} gave {other:?}"),
            }
        }
    }
}

#[test]
fn damage_to_the_newest_frame_never_gives_other_content() {
    let (disk, files) = written();
    let (name, bytes) = files.last().unwrap();
    let bounds = frames(bytes);
    let whole =
        Model::of(&open(disk.crash(CrashPolicy::KeepAll), SEGMENT_BYTES, CACHE_BYTES).unwrap());
    let mut without = whole.clone();
    without.apply(&Op::Truncate(Some(at(1, 9))));
    for offset in bounds[bounds.len() - 2]..*bounds.last().unwrap() {
        let damaged = disk.crash(CrashPolicy::KeepAll);
        damaged.flip_bit(&Path::new(DIR).join(name), offset as u64, 3).unwrap();
        let log = open(damaged.clone(), SEGMENT_BYTES, CACHE_BYTES).unwrap();
        assert_eq!(Model::of(&log), without);
        let behind = &bytes_of(&damaged, name)[bounds[bounds.len() - 2]..];
        assert!(behind.iter().all(|byte| *byte == 0), "what was cut off is gone for good");
    }
    let behind = disk.crash(CrashPolicy::KeepAll);
    behind.flip_bit(&Path::new(DIR).join(name), *bounds.last().unwrap() as u64 + 40, 3).unwrap();
    assert_eq!(Model::of(&open(behind, SEGMENT_BYTES, CACHE_BYTES).unwrap()), whole);
}

#[test]
fn a_lost_page_in_the_log_is_corruption_not_its_end() {
    let (disk, files) = written();
    for (name, bytes) in &files {
        let bounds = frames(bytes);
        let damaged = disk.crash(CrashPolicy::KeepAll);
        let file = damaged.open(&Path::new(DIR).join(name), OpenMode::Existing).unwrap();
        file.write_at(HEADER_BYTES as u64, &vec![0; bounds[1] - HEADER_BYTES]).unwrap();
        let opened = open(damaged, SEGMENT_BYTES, CACHE_BYTES);
        assert!(matches!(opened, Err(Fault::Corrupt(_))), "{name}: {opened:?}");
    }
}

#[test]
fn a_segment_that_vanished_is_corruption() {
    let (disk, files) = written();
    for (name, _) in &files[..files.len() - 1] {
        let damaged = disk.crash(CrashPolicy::KeepAll);
        damaged.remove(&Path::new(DIR).join(name)).unwrap();
        let opened = open(damaged, SEGMENT_BYTES, CACHE_BYTES);
        assert!(matches!(opened, Err(Fault::Corrupt(_))), "{name}: {opened:?}");
    }
}

#[test]
fn a_segment_that_was_never_finished_counts_only_right_behind_the_newest() {
    let (disk, files) = written();
    let whole =
        Model::of(&open(disk.crash(CrashPolicy::KeepAll), SEGMENT_BYTES, CACHE_BYTES).unwrap());
    for (further, len) in [(1, 0), (1, 10), (1, SEGMENT_BYTES), (2, 0), (2, SEGMENT_BYTES)] {
        let disk = disk.crash(CrashPolicy::KeepAll);
        let path = format!("{DIR}/{:010}.log", files.len() + further);
        disk.open(Path::new(&path), OpenMode::CreateNew).unwrap().set_len(len).unwrap();
        match open(disk.clone(), SEGMENT_BYTES, CACHE_BYTES) {
            Ok(log) if further == 1 => assert_eq!(Model::of(&log), whole),
            Err(Fault::Corrupt(_)) if further == 2 => continue,
            other => panic!("{further} behind the newest: {other:?}"),
        }
        assert!(!disk.exists(Path::new(&path)).unwrap());
    }
}

#[test]
fn a_newer_format_is_refused_as_such() {
    let (disk, files) = written();
    let (name, bytes) = &files[0];
    let mut header = bytes[..HEADER_BYTES].to_vec();
    header[8] = 3;
    let end = 17 + u32::from_be_bytes(header[9..13].try_into().unwrap()) as usize;
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&header[..13]), &header[17..end]);
    header[13..17].copy_from_slice(&checksum.to_be_bytes());
    disk.open(&Path::new(DIR).join(name), OpenMode::Existing)
        .unwrap()
        .write_at(0, &header)
        .unwrap();
    let opened = open(disk, SEGMENT_BYTES, CACHE_BYTES);
    assert!(matches!(opened, Err(Fault::Version { found: 3, supported: 2, .. })), "{opened:?}");
}

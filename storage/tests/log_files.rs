//! The log's files: what becomes of those of purged segments, and what later ones are made of.
#![cfg(test)]

mod log_support;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log_support::gate::GatedDisk;
use log_support::{DIR, Model, Op, append, at, entries, open, run};
use roost_storage::fs::real::RealDisk;
use roost_storage::fs::sim::{CrashPolicy, SimDisk};
use roost_storage::fs::{Disk, OpenMode};
use roost_storage::log::{Log, LogOptions};

const SEGMENT_BYTES: u64 = 64 * 1024;
const CACHE_BYTES: usize = 1024 * 1024;

#[test]
fn purged_segments_leave_the_disk_and_the_vote_stays() {
    let disk = SimDisk::new();
    let log = open(disk.clone(), SEGMENT_BYTES, 0).unwrap();
    run(&log, &Op::Vote("vote".into())).unwrap();
    for start in (0..1000).step_by(50) {
        append(&log, start..start + 50, 300);
    }
    let before = log.stats().segments;
    assert!(before > 4);
    run(&log, &Op::Purge(at(1, 989))).unwrap();
    wait_until_purged(&disk);
    drop(log);
    let log = open(disk.crash(CrashPolicy::LoseUnsynced), SEGMENT_BYTES, 0).unwrap();
    assert_eq!(log.state().vote.as_deref(), Some(b"vote".as_slice()));
    assert_eq!(log.state().purged, Some(at(1, 989)));
    assert_eq!(log.read(0, 2000, usize::MAX).unwrap(), entries(990..1000, 300));
}

/// Waits until one segment is left: files go after the purge was reported.
fn wait_until_purged(disk: &SimDisk) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while names(disk, ".log").len() > 1 {
        assert!(Instant::now() < deadline, "purged segments are still there");
        std::thread::yield_now();
    }
}

/// The names of the log's files that end so.
fn names(disk: &impl Disk, suffix: &str) -> Vec<String> {
    let mut names = disk.list(Path::new(DIR)).unwrap();
    names.retain(|name| name.ends_with(suffix));
    names
}

/// A log of segments that are full of entries of 300 bytes, up to with entry 999, and then purged up
/// to 989 but for what is kept for later ones: two files.
fn recycling_log(disk: &SimDisk) -> Log {
    let log = open(disk.clone(), SEGMENT_BYTES, 0).unwrap();
    for start in (0..1000).step_by(50) {
        append(&log, start..start + 50, 300);
    }
    run(&log, &Op::Purge(at(1, 989))).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while log.stats().recycled_bytes < 2 * SEGMENT_BYTES || names(disk, ".log").len() > 1 {
        assert!(Instant::now() < deadline, "{:?}", log.stats());
        std::thread::yield_now();
    }
    log
}

#[test]
fn files_of_purged_segments_become_later_ones() {
    let disk = SimDisk::new();
    let log = recycling_log(&disk);
    let kept = names(&disk, ".old");
    assert_eq!(kept.len(), 2);
    let segments = names(&disk, ".log").len();
    append(&log, 1000..1190, 300);
    assert_eq!(names(&disk, ".old"), kept[..1], "the next segment lies in one of them");
    assert_eq!(names(&disk, ".log").len(), segments + 1);
    assert_eq!(log.stats().recycled_bytes, SEGMENT_BYTES);
    let expected = Model::of(&log);
    assert_eq!(expected.entries.len(), 200);
    drop(log);
    let log = open(disk.crash(CrashPolicy::LoseUnsynced), SEGMENT_BYTES, 0).unwrap();
    assert_eq!(Model::of(&log), expected, "old frames behind the newest are not read");
    assert_eq!(log.stats().recycled_bytes, SEGMENT_BYTES, "the other one is still kept");
}

#[test]
fn a_segment_that_is_still_read_is_not_written_over() {
    let disk = GatedDisk::default();
    let log = open(disk.clone(), SEGMENT_BYTES, 0).unwrap();
    append(&log, 0..200, 1000);
    let first = entries(0..1, 1000);
    disk.reads.shut();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| log.read(0, 1, usize::MAX).unwrap());
        disk.reads.wait_until_somebody_waits();
        run(&log, &Op::Purge(at(1, 199))).unwrap();
        append(&log, 200..500, 1000);
        disk.reads.open();
        assert_eq!(reader.join().unwrap(), first);
    });
}

#[test]
fn kept_files_that_this_log_can_not_use_are_removed() {
    let disk = SimDisk::new();
    drop(recycling_log(&disk));
    let dir = Path::new(DIR);
    disk.open(&dir.join("0000000000.old"), OpenMode::CreateNew).unwrap().set_len(17).unwrap();
    let log = open(disk.clone(), SEGMENT_BYTES, 0).unwrap();
    assert_eq!(names(&disk, ".old").len(), 2);
    assert!(!disk.exists(&dir.join("0000000000.old")).unwrap());
    drop(log);
    let log = open(disk.clone(), 2 * SEGMENT_BYTES, 0).unwrap();
    assert!(names(&disk, ".old").is_empty(), "segments have another length now");
    assert_eq!(log.stats().recycled_bytes, 0);
}

fn open_with_zeros_ahead(disk: impl Disk, recycled_segments: usize) -> Log {
    let options = LogOptions {
        segment_bytes: SEGMENT_BYTES,
        cache_bytes: CACHE_BYTES,
        zeros_ahead: true,
        recycled_segments,
    };
    Log::open(Arc::new(disk), Path::new(DIR), options).unwrap()
}

#[test]
fn segments_of_all_kinds_of_files_hold_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let disk = RealDisk::open(folder.path().to_owned()).unwrap();
    let spare = Path::new(DIR).join("spare.tmp");
    let mut log = open_with_zeros_ahead(disk.clone(), 3);
    let mut zeroed = 0;
    for round in 0..40 {
        append(&log, round * 100..(round + 1) * 100, 300);
        zeroed += u32::from(disk.exists(&spare).unwrap());
        if round % 10 == 4 {
            run(&log, &Op::Purge(at(1, round * 100))).unwrap();
        }
        if round % 10 == 7 {
            let before = Model::of(&log);
            drop(log);
            log = open_with_zeros_ahead(disk.clone(), 3);
            assert_eq!(Model::of(&log), before, "round {round}");
        }
    }
    assert!(zeroed > 0, "no file was filled ahead");
    assert_eq!(log.read(3500, 4000, usize::MAX).unwrap(), entries(3500..4000, 300));
}

#[test]
fn files_that_were_filled_ahead_become_segments() {
    let folder = tempfile::tempdir().unwrap();
    let disk = RealDisk::open(folder.path().to_owned()).unwrap();
    let spare = Path::new(DIR).join("spare.tmp");
    let log = open_with_zeros_ahead(disk.clone(), 0);
    let mut last = 0;
    for segments in 2..6 {
        let deadline = Instant::now() + Duration::from_secs(60);
        while disk.open(&spare, OpenMode::Existing).and_then(|file| file.len()).ok()
            != Some(SEGMENT_BYTES)
        {
            assert!(Instant::now() < deadline, "no file is filled");
            std::thread::yield_now();
        }
        while log.stats().segments < segments {
            append(&log, last..last + 10, 500);
            last += 10;
        }
    }
    let before = Model::of(&log);
    drop(log);
    assert!(!disk.exists(&spare).unwrap(), "what was not used is removed");
    let log = open_with_zeros_ahead(disk, 0);
    assert_eq!(Model::of(&log), before);
    append(&log, last..last + 200, 500);
}

#[test]
fn a_file_that_was_filled_ahead_and_got_only_its_name_is_no_segment() {
    let disk = SimDisk::new();
    let log = open(disk.clone(), SEGMENT_BYTES, 0).unwrap();
    append(&log, 0..10, 500);
    drop(log);
    let renamed = Path::new(DIR).join("0000000002.log");
    for path in [&renamed, &Path::new(DIR).join("spare.tmp")] {
        let file = disk.open(path, OpenMode::CreateNew).unwrap();
        file.write_at(0, &vec![0; SEGMENT_BYTES as usize]).unwrap();
        file.sync().unwrap();
    }
    disk.sync_dir(Path::new(DIR)).unwrap();
    let log = open_with_zeros_ahead(disk.clone(), 0);
    assert_eq!(log.read(0, 100, usize::MAX).unwrap(), entries(0..10, 500));
    assert!(!disk.exists(&renamed).unwrap());
    append(&log, 10..500, 500);
    drop(log);
    let log = open(disk.crash(CrashPolicy::LoseUnsynced), SEGMENT_BYTES, 0).unwrap();
    assert_eq!(log.read(0, 1_000, usize::MAX).unwrap(), entries(0..500, 500));
}

//! What a caller of the log may rely on: order, group commit, readability, bounds, and what is
//! refused.
#![cfg(test)]

mod log_support;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{TryRecvError, channel};
use std::time::{Duration, Instant};

use log_support::{DIR, Model, Op, at, done, entry, open, run, submit, wait};
use parking_lot::{Condvar, Mutex};
use roost_storage::Fault;
use roost_storage::fs::real::RealDisk;
use roost_storage::fs::sim::{CrashPolicy, SimDisk};
use roost_storage::fs::{Disk, DiskFile, OpenMode};
use roost_storage::limits::MAX_ENTRY_BYTES;
use roost_storage::log::{Log, LogEntry, LogOptions};

const SEGMENT_BYTES: u64 = 64 * 1024;
const CACHE_BYTES: usize = 1024 * 1024;

/// A gate that operations on files wait at while it is shut.
#[derive(Debug, Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct GateState {
    shut: bool,
    waiting: usize,
}

impl Gate {
    fn shut(&self) {
        self.state.lock().shut = true;
    }

    fn open(&self) {
        self.state.lock().shut = false;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let mut state = self.state.lock();
        state.waiting += 1;
        self.changed.notify_all();
        while state.shut {
            self.changed.wait(&mut state);
        }
        state.waiting -= 1;
    }

    fn wait_until_somebody_waits(&self) {
        let mut state = self.state.lock();
        while state.waiting == 0 {
            let timed_out = self.changed.wait_for(&mut state, Duration::from_secs(60)).timed_out();
            assert!(!timed_out, "the log never came to the gate");
        }
    }
}

/// A simulated disk whose syncs, and reads, pass a gate.
#[derive(Debug, Clone, Default)]
struct GatedDisk {
    disk: SimDisk,
    gate: Arc<Gate>,
    /// The same for reads.
    reads: Arc<Gate>,
}

#[derive(Debug)]
struct GatedFile {
    file: Arc<dyn DiskFile>,
    gate: Arc<Gate>,
    reads: Arc<Gate>,
}

impl Disk for GatedDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.open(path, mode)?;
        Ok(Arc::new(GatedFile { file, gate: self.gate.clone(), reads: self.reads.clone() }))
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.disk.exists(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir_all(dir)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }
}

impl DiskFile for GatedFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.reads.pass();
        self.file.read_at(offset, buffer)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, bytes)
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }
    fn sync(&self) -> io::Result<()> {
        self.gate.pass();
        self.file.sync()
    }
}

fn entries(range: std::ops::Range<u64>, len: usize) -> Vec<LogEntry> {
    range.map(|index| entry(1, index, vec![index as u8; len])).collect()
}

fn append(log: &Log, range: std::ops::Range<u64>, len: usize) {
    run(log, &Op::Append(entries(range, len))).unwrap();
}

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
                    assert_eq!(found.payload[..], vec![found.position.index as u8; 300]);
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
    append(&log, 0..10, 100);
    let count = |max_bytes| log.read(2, 10, max_bytes).unwrap().len();
    assert_eq!([0, 99, 100, 199, 200, 10_000].map(count), [1, 1, 1, 1, 2, 8]);
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
    let deadline = Instant::now() + Duration::from_secs(60);
    while names(&disk, ".log").len() > 1 {
        assert!(Instant::now() < deadline, "purged segments are still there");
        std::thread::yield_now();
    }
    drop(log);
    let log = open(disk.crash(CrashPolicy::LoseUnsynced), SEGMENT_BYTES, 0).unwrap();
    assert_eq!(log.state().vote.as_deref(), Some(b"vote".as_slice()));
    assert_eq!(log.state().purged, Some(at(1, 989)));
    assert_eq!(log.read(0, 2000, usize::MAX).unwrap(), entries(990..1000, 300));
}

/// The names of the log's files that end so.
fn names(disk: &impl Disk, suffix: &str) -> Vec<String> {
    let mut names = disk.list(Path::new(DIR)).unwrap();
    names.retain(|name| name.ends_with(suffix));
    names
}

/// A log of segments that are full of entries of 300 bytes, up to with entry 999, and then purged up
/// to 989 but for what is kept for later ones: two files.
fn recycling_log(disk: impl Disk) -> Log {
    let log = open(disk, SEGMENT_BYTES, 0).unwrap();
    for start in (0..1000).step_by(50) {
        append(&log, start..start + 50, 300);
    }
    run(&log, &Op::Purge(at(1, 989))).unwrap();
    // Files go after the purge was reported.
    run(&log, &Op::Vote("after".into())).unwrap();
    assert_eq!(log.stats().recycled_bytes, 2 * SEGMENT_BYTES);
    log
}

#[test]
fn files_of_purged_segments_become_later_ones() {
    let disk = SimDisk::new();
    let log = recycling_log(disk.clone());
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
    drop(recycling_log(disk.clone()));
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

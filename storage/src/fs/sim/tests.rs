//! The simulated disk keeps its contract, and breaks only what a crash may break.

use super::change::to_usize;
use super::*;

fn content(disk: &SimDisk, path: &str) -> Option<Vec<u8>> {
    let file = disk.open(Path::new(path), OpenMode::Existing).ok()?;
    let mut bytes = vec![0; to_usize(file.len().unwrap())];
    file.read_at(0, &mut bytes).unwrap();
    Some(bytes)
}

fn synced_file(disk: &SimDisk, path: &str, bytes: &[u8]) -> Arc<dyn DiskFile> {
    let file = disk.open(Path::new(path), OpenMode::CreateNew).unwrap();
    file.write_at(0, bytes).unwrap();
    file.sync().unwrap();
    disk.sync_dir(Path::new("")).unwrap();
    file
}

#[test]
fn a_power_cut_forgets_what_was_not_synced() {
    let disk = SimDisk::new();
    let file = synced_file(&disk, "x", b"old");
    file.write_at(0, b"newer").unwrap();
    let after = disk.crash(CrashPolicy::LoseUnsynced);
    assert_eq!(content(&after, "x").unwrap(), b"old");
    assert_eq!(content(&disk, "x").unwrap(), b"newer");
    file.sync().unwrap();
    assert_eq!(content(&disk.crash(CrashPolicy::LoseUnsynced), "x").unwrap(), b"newer");
}

#[test]
fn a_name_is_durable_only_once_its_folder_is_synced() {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new("a/b")).unwrap();
    let file = disk.open(Path::new("a/b/x"), OpenMode::CreateNew).unwrap();
    file.write_at(0, b"1").unwrap();
    file.sync().unwrap();
    assert_eq!(content(&disk.crash(CrashPolicy::LoseUnsynced), "a/b/x"), None);
    disk.sync_dir(Path::new("a")).unwrap();
    assert_eq!(content(&disk.crash(CrashPolicy::LoseUnsynced), "a/b/x"), None);
    disk.sync_dir(Path::new("a/b")).unwrap();
    assert_eq!(content(&disk.crash(CrashPolicy::LoseUnsynced), "a/b/x").unwrap(), b"1");
    disk.rename(Path::new("a/b/x"), Path::new("a/b/y")).unwrap();
    let after = disk.crash(CrashPolicy::LoseUnsynced);
    assert_eq!(after.list(Path::new("a/b")).unwrap(), ["x"]);
    disk.sync_dir(Path::new("a/b")).unwrap();
    let after = disk.crash(CrashPolicy::LoseUnsynced);
    assert_eq!(after.list(Path::new("a/b")).unwrap(), ["y"]);
}

#[test]
fn a_killed_process_loses_nothing_but_syncs_nothing_either() {
    let disk = SimDisk::new();
    synced_file(&disk, "x", b"old").write_at(0, b"new").unwrap();
    let after = disk.crash(CrashPolicy::KeepAll);
    assert_eq!(content(&after, "x").unwrap(), b"new");
    assert_eq!(content(&after.crash(CrashPolicy::LoseUnsynced), "x").unwrap(), b"old");
}

#[test]
fn a_torn_crash_keeps_loses_or_cuts_a_write_by_its_seed() {
    let disk = SimDisk::new();
    synced_file(&disk, "x", b"......").write_at(0, b"abcdef").unwrap();
    let outcome = |seed| content(&disk.crash(CrashPolicy::Torn { seed }), "x").unwrap();
    let seen: BTreeSet<Vec<u8>> = (0..400).map(outcome).collect();
    for whole in [&b"......"[..], b"abcdef", b"abc...", b"...def"] {
        assert!(seen.contains(whole));
    }
    for seed in 0..20 {
        assert_eq!(outcome(seed), outcome(seed));
    }
}

#[test]
fn a_dead_process_changes_nothing_more() {
    let disk = SimDisk::new();
    let file = synced_file(&disk, "x", b"1");
    assert_eq!(disk.operations(), 4);
    disk.stop_at(6);
    file.write_at(0, b"2").unwrap();
    assert!(file.sync().is_err());
    assert!(file.write_at(0, b"3").is_err());
    assert!(disk.remove(Path::new("x")).is_err());
    assert_eq!(content(&disk.crash(CrashPolicy::KeepAll), "x").unwrap(), b"2");
    assert_eq!(content(&disk.crash(CrashPolicy::LoseUnsynced), "x").unwrap(), b"1");
}

#[test]
fn a_failed_operation_does_nothing_and_the_next_one_works() {
    let disk = SimDisk::new();
    let file = synced_file(&disk, "x", b"1");
    disk.fail_at(5);
    let error = file.write_at(0, b"2").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()));
    file.write_at(1, b"3").unwrap();
    assert_eq!(content(&disk, "x").unwrap(), b"13");
}

#[test]
fn trouble_waits_for_a_file_of_its_name() {
    let disk = SimDisk::new();
    disk.trouble_with("incoming-", 1, Trouble::Eio);
    let other = synced_file(&disk, "x", b"1");
    other.write_at(0, b"2").unwrap();
    assert!(!disk.has_failed());
    let file = disk.open(Path::new("incoming-7"), OpenMode::Truncate).unwrap();
    let error = file.write_at(0, b"a").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()));
    assert!(disk.has_failed());
    file.write_at(0, b"b").unwrap();

    disk.trouble_with("incoming-", 0, Trouble::Power);
    assert!(disk.open(Path::new("incoming-8"), OpenMode::Truncate).is_err());
    assert!(disk.has_stopped());
    assert!(!disk.crash(CrashPolicy::KeepAll).has_stopped());
}

#[test]
fn what_a_failed_sync_dropped_no_later_sync_writes() {
    let disk = SimDisk::new();
    let file = synced_file(&disk, "x", b"..");
    file.write_at(0, b"a").unwrap();
    disk.fail_at(6);
    assert!(file.sync().is_err());
    file.write_at(1, b"b").unwrap();
    file.sync().unwrap();
    assert_eq!(content(&disk, "x").unwrap(), b"ab");
    assert_eq!(content(&disk.crash(CrashPolicy::LoseUnsynced), "x").unwrap(), b".b");
}

#[test]
fn a_flipped_bit_stays_flipped() {
    let disk = SimDisk::new();
    synced_file(&disk, "x", b"a");
    disk.flip_bit(Path::new("x"), 0, 1).unwrap();
    assert_eq!(content(&disk.crash(CrashPolicy::LoseUnsynced), "x").unwrap(), b"c");
    assert!(disk.flip_bit(Path::new("x"), 1, 0).is_err());
}

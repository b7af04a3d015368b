//! The cold tier on a disk and an engine that can lose what was not synced; [`crash`] stops it
//! everywhere in turn.

mod crash;

use std::path::Path;
use std::sync::Arc;

use super::file::{FileKind, Head, Reader, Writer};
use super::*;
use crate::engine::memory::MemoryEngine;
use crate::engine::{Change, ChangeRef};
use crate::fs::OpenMode;
use crate::fs::sim::{CrashPolicy, SimDisk};

const SHARD: ShardId = ShardId(7);
const DIR: &str = "cold";

type Content = Vec<Pair>;

/// A disk and an engine, and the tier opened on them.
struct Node {
    disk: SimDisk,
    engine: Arc<MemoryEngine>,
}

impl Node {
    fn new() -> Self {
        Self::on(MemoryEngine::new())
    }

    fn on(engine: MemoryEngine) -> Self {
        Self { disk: SimDisk::new(), engine: Arc::new(engine) }
    }

    fn open(&self) -> Result<Cold, Fault> {
        let disk = Arc::new(self.disk.clone());
        Ok(Cold::open(disk, Path::new(DIR), Arc::clone(&self.engine) as _, SHARD)?.0)
    }

    fn crash(&self, policy: CrashPolicy, seed: u64) -> Self {
        let engine = match policy {
            CrashPolicy::LoseUnsynced => self.engine.crash_losing_unflushed(),
            CrashPolicy::KeepAll | CrashPolicy::Torn { .. } => self.engine.crash(seed),
        };
        Self { disk: self.disk.crash(policy), engine: Arc::new(engine) }
    }
}

impl Cold {
    /// A checkpoint of changes in any order.
    fn checkpoint_of(&self, meta: &[u8], mut changes: Vec<Change>) -> Result<(), Fault> {
        changes.sort_by(|a, b| a.key().cmp(b.key()));
        self.checkpoint(meta, |sink| changes.iter().try_for_each(|change| sink(change.as_ref())))
    }

    /// Checks a received file and installs it.
    fn import(&self, path: &Path) -> Result<Vec<u8>, Fault> {
        self.receive(path)?.install()
    }
}

fn put(key: &str, value: impl Into<Vec<u8>>) -> Change {
    Change::Put(key.into(), value.into())
}

fn delete(key: &str) -> Change {
    Change::Delete(key.into())
}

fn content(cold: &Cold) -> Content {
    cold.scan(&[], &[0xff], usize::MAX).unwrap()
}

fn state(cold: &Cold) -> (Option<Vec<u8>>, Content) {
    (cold.meta(), content(cold))
}

/// Some keys of checkpoint `n`: one that all change, one that each adds, one that each removes,
/// and enough others that frames and engine batches are more than one.
fn changes(n: u32) -> Vec<Change> {
    let mut changes = vec![put("always", n.to_string()), put(&format!("only-{n}"), "x")];
    changes.push(delete(&format!("only-{}", n.wrapping_sub(2))));
    for key in 0..40 {
        changes.push(put(&format!("many-{key:02}"), vec![n as u8; 40 * key]));
    }
    changes.push(put("large", vec![n as u8; 300_000]));
    changes
}

fn receive(disk: &SimDisk, cold: &Cold, bytes: &[u8]) -> Result<PathBuf, Fault> {
    let path = cold.incoming_path();
    let failed = |error| Fault::io("receive", error);
    let file = disk.open(&path, OpenMode::CreateNew).map_err(failed)?;
    for (at, chunk) in (0_u64..).step_by(200_000).zip(bytes.chunks(200_000)) {
        file.write_at(at, chunk).map_err(failed)?;
    }
    Ok(path)
}

fn bytes_of(disk: &SimDisk, path: &Path) -> Vec<u8> {
    let file = disk.open(path, OpenMode::Existing).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(0, &mut bytes).unwrap();
    bytes
}

/// A snapshot file of another node, and the state that it brings.
fn foreign_snapshot() -> (Vec<u8>, (Option<Vec<u8>>, Content)) {
    let node = Node::new();
    let cold = node.open().unwrap();
    cold.checkpoint_of(b"foreign", vec![put("always", "foreign"), put("theirs", vec![9; 500_000])])
        .unwrap();
    let exported = cold.export().unwrap();
    (bytes_of(&node.disk, &exported.path), state(&cold))
}

#[test]
fn a_checkpoint_is_there_after_opening_again() {
    let node = Node::new();
    let cold = node.open().unwrap();
    assert_eq!(cold.meta(), None);
    cold.checkpoint_of(b"first", changes(1)).unwrap();
    cold.checkpoint_of(b"second", changes(2)).unwrap();
    let before = state(&cold);
    assert_eq!(before.0.as_deref(), Some(&b"second"[..]));
    assert_eq!(cold.get(b"always").unwrap().unwrap(), b"2");
    let again = node.crash(CrashPolicy::LoseUnsynced, 0).open().unwrap();
    assert_eq!(state(&again), before);
}

#[test]
fn a_checkpoint_without_changes_still_moves_the_meta() {
    let node = Node::new();
    node.open().unwrap().checkpoint_of(b"first", Vec::new()).unwrap();
    assert_eq!(node.open().unwrap().meta().unwrap(), b"first");
}

#[test]
fn readers_see_only_the_shards_own_keys() {
    let node = Node::new();
    let other = |shard| {
        let disk = Arc::new(node.disk.clone());
        let dir = format!("other-{shard}");
        Cold::open(disk, Path::new(&dir), Arc::clone(&node.engine) as _, ShardId(shard)).unwrap().0
    };
    for shard in [6, 8] {
        other(shard)
            .checkpoint_of(b"theirs", vec![put("a", "theirs"), put("~", "theirs")])
            .unwrap();
    }
    let cold = node.open().unwrap();
    assert_eq!(state(&cold), (None, vec![]));
    cold.checkpoint_of(b"mine", vec![put("b", "1"), put("c", "2"), put("d", "3")]).unwrap();
    let pair = |key: &str, value: &str| (key.as_bytes().to_vec(), value.as_bytes().to_vec());
    assert_eq!(cold.scan(b"b", b"d", 9).unwrap(), [pair("b", "1"), pair("c", "2")]);
    assert_eq!(cold.scan_back(&[], &[0xff; 9], 2).unwrap(), [pair("d", "3"), pair("c", "2")]);

    let (snapshot, expected) = foreign_snapshot();
    let path = receive(&node.disk, &cold, &snapshot).unwrap();
    cold.import(&path).unwrap();
    assert_eq!(state(&cold), expected);
    for shard in [6, 8] {
        assert_eq!(state(&other(shard)).1.len(), 2, "shard {shard} keeps its keys");
    }
}

#[test]
fn changes_outside_the_bounds_are_refused_before_the_engine_has_anything() {
    let too_long = "k".repeat(crate::limits::MAX_KEY_BYTES + 1);
    let too_large = vec![0; MAX_VALUE_BYTES + 1];
    for change in [
        put("", "x"),
        delete("\0meta"),
        Change::Put(vec![0xff], vec![]),
        put(&too_long, "x"),
        put("k", too_large),
        put("fine", "again"),
    ] {
        let node = Node::new();
        let cold = node.open().unwrap();
        let operations = node.engine.operations();
        let fault = cold.checkpoint_of(b"meta", vec![put("fine", "x"), change]).unwrap_err();
        assert!(matches!(fault, Fault::Corrupt(_)), "{fault}");
        assert_eq!(node.engine.operations(), operations);
        assert_eq!(node.open().unwrap().meta(), None);
    }
}

#[test]
fn nothing_is_tried_after_a_fault() {
    let node = Node::new();
    let cold = node.open().unwrap();
    cold.checkpoint_of(b"first", changes(1)).unwrap();
    node.disk.fail_at(node.disk.operations() + 3);
    assert!(matches!(cold.checkpoint_of(b"second", changes(2)), Err(Fault::Io { .. })));
    assert!(matches!(cold.checkpoint_of(b"third", changes(3)), Err(Fault::Stopped(_))));
    assert!(matches!(cold.export(), Err(Fault::Stopped(_))));
    assert!(matches!(cold.get(b"always"), Err(Fault::Stopped(_))));
    assert_eq!(node.open().unwrap().meta().unwrap(), b"first");
}

#[test]
fn an_export_is_used_again_until_the_next_checkpoint() {
    let node = Node::new();
    let cold = node.open().unwrap();
    assert!(cold.export().is_err(), "nothing to export yet");

    let cold = node.open().unwrap();
    cold.checkpoint_of(b"first", changes(1)).unwrap();
    let first = cold.export().unwrap();
    assert_eq!(
        (first.meta.as_slice(), first.len),
        (&b"first"[..], bytes_of(&node.disk, &first.path).len() as u64)
    );
    let operations = node.disk.operations();
    assert_eq!(cold.export().unwrap(), first);
    assert_eq!(node.disk.operations(), operations, "nothing was written");

    let cold = node.open().unwrap();
    let operations = node.disk.operations();
    assert_eq!(cold.export().unwrap(), first, "an earlier run's file is used too");
    assert_eq!(node.disk.operations(), operations, "nothing was written");

    cold.checkpoint_of(b"second", changes(2)).unwrap();
    let second = cold.export().unwrap();
    assert_ne!(second.path, first.path);
    assert_eq!(second.meta, b"second");
    assert!(!node.disk.exists(&first.path).unwrap(), "the older file is gone");
}

#[test]
fn an_export_that_rotted_is_written_anew() {
    let node = Node::new();
    let cold = node.open().unwrap();
    cold.checkpoint_of(b"first", changes(1)).unwrap();
    let exported = cold.export().unwrap();
    let good = bytes_of(&node.disk, &exported.path);
    node.disk.flip_bit(&exported.path, exported.len / 2, 3).unwrap();
    let cold = node.open().unwrap();
    assert_eq!(cold.export().unwrap(), exported);
    assert!(bytes_of(&node.disk, &exported.path) == good);
}

#[test]
fn an_import_brings_the_exported_state_and_the_file_serves_the_next_node() {
    let (snapshot, expected) = foreign_snapshot();
    let node = Node::new();
    let cold = node.open().unwrap();
    cold.checkpoint_of(b"old", changes(1)).unwrap();
    let path = receive(&node.disk, &cold, &snapshot).unwrap();
    assert_eq!(cold.import(&path).unwrap(), b"foreign");
    assert_eq!(state(&cold), expected);
    assert_eq!(state(&node.crash(CrashPolicy::LoseUnsynced, 0).open().unwrap()), expected);
    let exported = cold.export().unwrap();
    assert!(bytes_of(&node.disk, &exported.path) == snapshot);
    assert_eq!(node.disk.list(Path::new(DIR)).unwrap().len(), 1, "only the export is left");
}

#[test]
fn a_snapshot_with_any_bit_flipped_or_any_tail_missing_is_refused() {
    let small = Node::new();
    let cold = small.open().unwrap();
    cold.checkpoint_of(b"meta", vec![put("a", "1"), put("b", "two"), put("c", "")]).unwrap();
    let snapshot = bytes_of(&small.disk, &cold.export().unwrap().path);

    let node = Node::new();
    let cold = node.open().unwrap();
    cold.checkpoint_of(b"old", changes(1)).unwrap();
    let before = state(&cold);
    let refuse = |bytes: &[u8], what: &str| {
        let path = receive(&node.disk, &cold, bytes).unwrap();
        let fault = cold.import(&path).expect_err(what);
        assert!(matches!(fault, Fault::Corrupt(_) | Fault::Version { .. }), "{what}: {fault}");
        assert_eq!(state(&cold), before, "{what}");
        assert!(!node.disk.exists(&path).unwrap(), "{what}: the file is removed");
    };
    for at in 0..snapshot.len() {
        for bit in 0..8 {
            let mut bytes = snapshot.clone();
            bytes[at] ^= 1 << bit;
            refuse(&bytes, &format!("bit {bit} of byte {at}"));
        }
        refuse(&snapshot[..at], &format!("only {at} bytes"));
    }
    refuse(&[&snapshot[..], b"x"].concat(), "a byte too many");
    cold.checkpoint_of(b"next", changes(2)).expect("refusals don't stop the tier");
}

#[test]
fn snapshots_that_no_export_writes_are_refused() {
    let node = Node::new();
    let cold = node.open().unwrap();
    let head = |shard| Head { shard, base: None, meta: b"meta".to_vec() };
    let refuse = |kind, head, changes: &[Change], what: &str| {
        let path = cold.incoming_path();
        let mut writer = Writer::create(&node.disk, &path, kind, head).unwrap();
        changes.iter().try_for_each(|change| writer.push(change.as_ref())).unwrap();
        writer.finish().unwrap();
        let fault = cold.import(&path).expect_err(what);
        assert!(matches!(fault, Fault::Corrupt(_)), "{what}: {fault}");
        assert_eq!(state(&cold), (None, vec![]), "{what}");
    };
    let snapshot = FileKind::Snapshot;
    refuse(snapshot, head(ShardId(8)), &[put("a", "1")], "another shard's");
    refuse(snapshot, head(SHARD), &[put("b", "1"), put("a", "2")], "keys that descend");
    refuse(snapshot, head(SHARD), &[put("a", "1"), put("a", "2")], "a key twice");
    refuse(snapshot, head(SHARD), &[put("a", "1"), delete("b")], "a removal");
    refuse(snapshot, head(SHARD), &[put("\0meta", "1")], "the tier's own key");
    refuse(FileKind::Journal, head(SHARD), &[put("a", "1")], "a journal");
}

#[test]
fn a_frame_past_the_largest_size_is_refused_before_it_is_read() {
    let (mut snapshot, _) = foreign_snapshot();
    snapshot[9..13].copy_from_slice(&u32::MAX.to_le_bytes());
    let node = Node::new();
    let cold = node.open().unwrap();
    let path = receive(&node.disk, &cold, &snapshot).unwrap();
    let fault = cold.import(&path).unwrap_err();
    assert!(fault.to_string().contains("largest size"), "{fault}");
}

/// A node that died right after its second checkpoint's journal got its name.
fn node_with_a_journal() -> Node {
    let node = Node::new();
    let cold = node.open().unwrap();
    cold.checkpoint_of(b"first", changes(1)).unwrap();
    node.engine.fail_after(0);
    cold.checkpoint_of(b"second", changes(2)).unwrap_err();
    node.crash(CrashPolicy::LoseUnsynced, 0)
}

#[test]
fn a_damaged_journal_stops_the_node_and_is_never_half_put() {
    let journal = Path::new(DIR).join(JOURNAL);
    let len = bytes_of(&node_with_a_journal().disk, &journal).len() as u64;
    for offset in [0, 8, 9, 20, len / 3, len / 2, len - 40, len - 1] {
        let node = node_with_a_journal();
        node.disk.flip_bit(&journal, offset, 0).unwrap();
        let operations = node.engine.operations();
        let fault = node.open().expect_err("a damaged journal");
        assert!(matches!(fault, Fault::Corrupt(_) | Fault::Version { .. }), "{offset}: {fault}");
        assert_eq!(node.engine.operations(), operations, "{offset}: the engine was touched");
    }
}

#[test]
fn a_journal_is_not_put_into_an_engine_that_lost_what_it_builds_on() {
    let node = node_with_a_journal();
    let emptied = Node { disk: node.disk.clone(), engine: Arc::new(MemoryEngine::new()) };
    let fault = emptied.open().expect_err("an empty engine under a journal");
    assert!(matches!(fault, Fault::Corrupt(_)), "{fault}");
    assert_eq!(node.open().unwrap().meta().unwrap(), b"second");
}

#[test]
fn an_engine_that_takes_checkpoints_whole_gets_no_journal() {
    let node = Node::on(MemoryEngine::whole());
    let cold = node.open().unwrap();
    cold.checkpoint_of(b"first", changes(1)).unwrap();
    assert_eq!(node.engine.operations(), 1);
    assert_eq!(cold.meta().unwrap(), b"first");
    let before = state(&cold);
    node.disk.fail_at(node.disk.operations() + 1);
    cold.checkpoint_of(b"second", vec![put("b", "1"), put("a", "2")]).unwrap();
    let unordered = |sink: &mut Sink<'_>| {
        sink(put("b", "1").as_ref())?;
        sink(put("a", "2").as_ref())
    };
    let fault = cold.checkpoint(b"third", unordered).expect_err("keys that do not ascend");
    assert!(matches!(fault, Fault::Corrupt(_)), "{fault}");
    let again = node.crash(CrashPolicy::LoseUnsynced, 0).open().unwrap();
    assert_eq!(again.meta().unwrap(), b"second");
    assert_eq!(content(&again).len(), before.1.len() + 2);
}

/// Folders of an earlier version have one.
#[test]
fn a_journal_is_put_also_into_an_engine_that_needs_none() {
    let node = node_with_a_journal();
    let engine = MemoryEngine::whole();
    engine
        .write(
            node.engine
                .scan(&[], &[0xff], usize::MAX)
                .unwrap()
                .into_iter()
                .map(|(key, value)| Change::Put(key, value))
                .collect(),
        )
        .unwrap();
    let newer = Node { disk: node.disk, engine: Arc::new(engine) };
    assert_eq!(newer.open().unwrap().meta().unwrap(), b"second");
}

#[test]
fn what_a_crash_left_behind_is_removed() {
    let node = Node::new();
    let cold = node.open().unwrap();
    cold.checkpoint_of(b"first", changes(1)).unwrap();
    for name in ["checkpoint.tmp", "export.tmp", "incoming-9", "snapshot-00.snap"] {
        node.disk.open(&cold.path(name), OpenMode::CreateNew).unwrap();
    }
    node.open().unwrap();
    assert_eq!(node.disk.list(Path::new(DIR)).unwrap(), Vec::<String>::new());
}

/// The same on a real disk with the engines that nodes run on.
#[test]
fn checkpoints_and_snapshots_work_on_a_real_disk_with_either_engine() {
    use crate::engine::{self, EngineKind};
    use crate::fs::real::RealDisk;

    let folder = tempfile::tempdir().unwrap();
    let open = |kind: EngineKind| {
        let root = folder.path().join(kind.as_str());
        let engine = engine::open(kind, &root.join("engine")).unwrap();
        let disk = RealDisk::open(root).unwrap();
        Cold::open(Arc::new(disk), Path::new(DIR), engine, SHARD).unwrap().0
    };
    let mut states = Vec::new();
    for kind in [EngineKind::Sled, EngineKind::Fjall] {
        for n in 1..4 {
            let cold = open(kind);
            cold.checkpoint_of(&[n as u8], changes(n)).unwrap();
        }
        let cold = open(kind);
        assert_eq!(cold.meta().unwrap(), [3]);
        let exported = cold.export().unwrap();
        let incoming = cold.incoming_path();
        let root = folder.path().join(kind.as_str());
        std::fs::copy(root.join(&exported.path), root.join(&incoming)).unwrap();
        let before = state(&cold);
        cold.checkpoint_of(b"four", changes(4)).unwrap();
        assert_eq!(cold.import(&incoming).unwrap(), [3]);
        assert_eq!(state(&cold), before);
        drop(cold);
        states.push(state(&open(kind)));
        assert_eq!(*states.last().unwrap(), before);
    }
    assert_eq!(states[0], states[1]);
}

/// The formats of journal and snapshot are on disks: these bytes may change only with the version.
#[test]
fn the_file_formats_are_pinned() {
    let changes = [put("a", "1"), delete("b"), put("c", "")];
    let puts = [put("a", "1"), put("c", "")];
    let files = [
        ("journal", FileKind::Journal, Some(0x0102), &changes[..]),
        ("snapshot", FileKind::Snapshot, None, &puts[..]),
    ];
    let mut found = String::new();
    for (name, kind, base, changes) in files {
        let disk = SimDisk::new();
        let head = Head { shard: SHARD, base, meta: b"meta".to_vec() };
        let mut writer = Writer::create(&disk, Path::new(name), kind, head.clone()).unwrap();
        changes.iter().try_for_each(|change| writer.push(change.as_ref())).unwrap();
        let len = writer.finish().unwrap();
        let bytes = bytes_of(&disk, Path::new(name));
        assert_eq!(bytes.len() as u64, len);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        found += &format!("{name} {hex}\n");

        let mut reader = Reader::open(&disk, Path::new(name), kind, SHARD).unwrap();
        assert_eq!(*reader.head(), head);
        let mut back = Vec::new();
        let mut keep = |change: ChangeRef<'_>| {
            back.push(change.to_change());
            Ok(())
        };
        assert!(reader.next(&mut keep).unwrap());
        assert!(!reader.next(&mut keep).unwrap());
        assert_eq!(back, changes);
    }
    let pinned = include_str!("../../tests/golden/cold_files.hex");
    assert_eq!(
        found, pinned,
        "the file format changed: raise its version, keep reading the old one"
    );
}

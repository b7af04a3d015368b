//! The store, stopped everywhere in turn.
//!
//! One script of entries, checkpoints, an export and a snapshot install is stopped before each
//! operation of the disk (write, sync, rename, …) and in each of the engine. After a crash the
//! store opens, has at least the last acknowledged checkpoint, and the log from there leads to
//! exactly the state of a run that nothing interrupted.

use std::path::Path;
use std::sync::Arc;

use roost_storage::Fault;
use roost_storage::command::{Batch, Command};
use roost_storage::engine::Engine;
use roost_storage::engine::memory::MemoryEngine;
use roost_storage::fs::sim::{CrashPolicy, SimDisk};
use roost_storage::fs::{Disk as _, OpenMode};
use roost_storage::limits::DEDUP_WINDOW_MS;
use roost_storage::model::{Item, LogPosition};
use roost_storage::store::{Counts, Digest, Store};

use crate::support::*;

/// The log that the scripts apply: entries that touch every table.
fn log() -> Vec<Entry> {
    let mut batches = vec![(1_000, vec![group("alice", &["bob", "carol"], "make")])];
    for n in 0..12_u64 {
        let mut commands: Vec<Command> = (0..3)
            .map(|i| send("bob", "g-0-1", &format!("{n}-{i}"), &"x".repeat(700 * i as usize)))
            .collect();
        commands.push(send_to("carol", "dave", &format!("{n}"), "hi"));
        commands.push(register("dave", &format!("d{}", n % 3)));
        commands.push(acknowledge("dave", "d0", n));
        match n {
            3 => commands.push(add(by("alice"), "g-0-1", &["dave", "erin"])),
            5 => commands.push(remove(by("alice"), "g-0-1", &["carol"])),
            7 => commands.push(leave("alice", "g-0-1")),
            9 => commands.push(group("bob", &["carol"], "make")),
            10 => commands.push(delete("g-0-2")),
            _ => {}
        }
        // The window passes in the middle, so that dedup records and their order go.
        batches.push((1_000 + n * (DEDUP_WINDOW_MS / 5), commands));
    }
    let position = |index| LogPosition { term: 1, index };
    (0..)
        .zip(batches)
        .map(|(index, (at_ms, commands))| Entry {
            position: position(index),
            batch: Some(Batch { at_ms, commands }),
        })
        .collect()
}

const SNAPSHOT_AT: usize = 9;

/// One step of the script. An `Ok` is an acknowledgement.
enum Step {
    /// Applies the next entries, up to (not with) this index.
    Apply(usize),
    Checkpoint,
    Export,
    /// Installs a snapshot of another node, as of the entries before [`SNAPSHOT_AT`].
    Install,
}

const SCRIPT: [Step; 11] = [
    Step::Apply(3),
    Step::Checkpoint,
    Step::Apply(5),
    Step::Checkpoint,
    Step::Export,
    Step::Apply(7),
    Step::Install,
    Step::Apply(11),
    Step::Checkpoint,
    Step::Export,
    Step::Apply(13),
];

struct Machine {
    disk: SimDisk,
    engine: Arc<MemoryEngine>,
}

impl Machine {
    fn new() -> Self {
        Self::on(MemoryEngine::new())
    }

    fn on(engine: MemoryEngine) -> Self {
        Self { disk: SimDisk::new(), engine: Arc::new(engine) }
    }

    fn open(&self) -> Result<Store, Fault> {
        let disk = Arc::new(self.disk.clone());
        let engine: Arc<dyn Engine> = Arc::clone(&self.engine) as _;
        Store::open(disk, Path::new(DIR), engine, options())
    }

    fn crash(&self, policy: CrashPolicy, seed: u64) -> Self {
        let engine = match policy {
            CrashPolicy::LoseUnsynced => self.engine.crash_losing_unflushed(),
            CrashPolicy::KeepAll | CrashPolicy::Torn { .. } => self.engine.crash(seed),
        };
        Self { disk: self.disk.crash(policy), engine: Arc::new(engine) }
    }
}

/// What the log leads to.
#[derive(Debug, PartialEq, Eq)]
struct End {
    digest: (Option<LogPosition>, Digest),
    counts: Counts,
    queues: Vec<Vec<Item>>,
}

fn end(store: &Store) -> End {
    let names = ["alice", "bob", "carol", "dave", "erin"];
    let queues = names.map(|who| queue(store, who, store.now_ms())).into();
    End { digest: store.digest(), counts: store.counts(), queues }
}

struct Reference {
    log: Vec<Entry>,
    snapshot: Vec<u8>,
    end: End,
}

impl Reference {
    fn new() -> Self {
        let log = log();
        let other = Machine::new();
        let store = other.open().unwrap();
        replay(&store, &log[..SNAPSHOT_AT]);
        let exported = store.export_snapshot().unwrap();
        let snapshot = bytes_of(&other.disk, &exported.path);
        replay(&store, &log);
        Self { log, snapshot, end: end(&store) }
    }

    /// Plays the script until it ends or fails; the newest checkpoint that was acknowledged.
    fn play(&self, machine: &Machine) -> Option<LogPosition> {
        let store = machine.open().ok()?;
        let mut acknowledged = None;
        for step in SCRIPT {
            let Ok(checkpoint) = self.step(machine, &store, &step) else { break };
            acknowledged = acknowledged.max(checkpoint);
        }
        acknowledged
    }

    fn step(
        &self,
        machine: &Machine,
        store: &Store,
        step: &Step,
    ) -> Result<Option<LogPosition>, Fault> {
        match step {
            Step::Apply(until) => {
                let next = store.applied_state().applied.map_or(0, |last| last.index + 1);
                for entry in &self.log[usize::try_from(next).unwrap()..*until] {
                    entry.apply(store)?;
                }
                Ok(None)
            }
            Step::Checkpoint => Ok(store.checkpoint()?.applied),
            Step::Export => Ok(store.export_snapshot()?.state.applied),
            Step::Install => {
                let path = store.incoming_snapshot_path();
                receive(&machine.disk, &path, &self.snapshot)?;
                Ok(store.import_snapshot(&path)?.applied)
            }
        }
    }

    /// Recovers under each policy, and goes on to the end of the log.
    fn check_recovery(&self, machine: &Machine, acknowledged: Option<LogPosition>, seed: u64) {
        let torn = seed.wrapping_mul(31) + 1;
        let policies = [
            CrashPolicy::LoseUnsynced,
            CrashPolicy::KeepAll,
            CrashPolicy::Torn { seed },
            CrashPolicy::Torn { seed: torn },
        ];
        for policy in policies {
            let found = machine.crash(policy, seed);
            let store = found.open().unwrap_or_else(|fault| panic!("{policy:?} {seed}: {fault}"));
            let recovered = store.applied_state();
            assert!(recovered.applied >= acknowledged, "{policy:?} {seed}: a checkpoint is lost");
            assert_eq!(recovered, store.checkpoint_state());
            replay(&store, &self.log);
            assert_eq!(end(&store), self.end, "{policy:?} {seed}");
            let (applied, digest, counts) = store.recount().unwrap();
            assert_eq!(((applied, digest), counts), (self.end.digest, self.end.counts));
        }
    }
}

fn bytes_of(disk: &SimDisk, path: &Path) -> Vec<u8> {
    let file = disk.open(path, OpenMode::Existing).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_at(0, &mut bytes).unwrap();
    bytes
}

fn receive(disk: &SimDisk, path: &Path, bytes: &[u8]) -> Result<(), Fault> {
    let failed = |error| Fault::io("receive", error);
    let file = disk.open(path, OpenMode::CreateNew).map_err(failed)?;
    file.write_at(0, bytes).map_err(failed)?;
    file.sync().map_err(failed)
}

#[test]
fn every_crash_point_of_disk_and_engine_leads_to_the_state_of_an_uninterrupted_run() {
    stop_everywhere(MemoryEngine::new);
}

#[test]
fn so_it_does_with_an_engine_that_takes_checkpoints_whole() {
    stop_everywhere(MemoryEngine::whole);
}

fn stop_everywhere(engine: fn() -> MemoryEngine) {
    let reference = Reference::new();
    let whole = Machine::on(engine());
    let acknowledged = reference.play(&whole);
    assert_eq!(acknowledged.map(|position| position.index), Some(10));
    let (disk_operations, engine_operations) = (whole.disk.operations(), whole.engine.operations());
    assert!(disk_operations > 15 && engine_operations > 5);
    for n in 1..=disk_operations {
        let machine = Machine::on(engine());
        machine.disk.stop_at(n);
        let acknowledged = reference.play(&machine);
        reference.check_recovery(&machine, acknowledged, n);
    }
    for n in 0..engine_operations {
        let machine = Machine::on(engine());
        machine.engine.fail_after(n);
        let acknowledged = reference.play(&machine);
        reference.check_recovery(&machine, acknowledged, 1_000 + n);
    }
}

#[test]
fn one_failed_operation_stops_the_store_until_it_is_opened_again() {
    let reference = Reference::new();
    let whole = Machine::new();
    reference.play(&whole);
    for n in 1..=whole.disk.operations() {
        let machine = Machine::new();
        machine.disk.fail_at(n);
        let Ok(store) = machine.open() else { continue };
        let failed = SCRIPT.iter().any(|step| reference.step(&machine, &store, step).is_err());
        assert!(failed, "operation {n} failed and nobody said so");
        // A failed operation of the receiver is its own; one of the store's stops it.
        let stopped = store.queue_bounds(&user("bob")).is_err();
        assert_eq!(stopped, store.checkpoint().is_err());
        let acknowledged = store.checkpoint_state().applied;
        drop(store);
        reference.check_recovery(&machine, acknowledged.filter(|_| stopped), n);
    }
}

#[test]
fn a_damaged_snapshot_is_refused_and_the_store_goes_on() {
    let reference = Reference::new();
    let machine = Machine::new();
    let store = machine.open().unwrap();
    replay(&store, &reference.log[..4]);
    let before = end(&store);
    for damage in [0, 40, reference.snapshot.len() / 2, reference.snapshot.len() - 1] {
        let mut bytes = reference.snapshot.clone();
        bytes[damage] ^= 1;
        let path = store.incoming_snapshot_path();
        receive(&machine.disk, &path, &bytes).unwrap();
        let refused = store.import_snapshot(&path).unwrap_err();
        assert!(matches!(refused, Fault::Corrupt(_) | Fault::Version { .. }), "{refused}");
        assert_eq!(end(&store), before);
    }
    replay(&store, &reference.log);
    assert_eq!(end(&store), reference.end);
}

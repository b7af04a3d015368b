//! The cold tier, stopped everywhere in turn.
//!
//! The crash test plays one script of checkpoints, an export and an import, and stops it before
//! each operation of the disk, at an error of each, and in the middle of each of the engine. After a recovery (which is
//! stopped on the way too) the tier must hold one of the script's states, whole: the last one that
//! was acknowledged, or the one that was under way.

use super::*;

/// One step of the crash script. An `Ok` is an acknowledgement.
type Step = fn(&SimDisk, &Cold, &[u8]) -> Result<(), Fault>;

const SCRIPT: [Step; 6] = [
    |_, cold, _| cold.checkpoint_of(b"1", changes(1)),
    |_, cold, _| cold.checkpoint_of(b"2", changes(2)),
    |_, cold, _| cold.export().map(drop),
    |disk, cold, snapshot| receive(disk, cold, snapshot).and_then(|at| cold.import(&at)).map(drop),
    |_, cold, _| cold.checkpoint_of(b"4", changes(4)),
    |_, cold, _| cold.export().map(drop),
];

/// Plays the script until it ends or fails; returns how many steps were acknowledged.
fn play(node: &Node, snapshot: &[u8]) -> usize {
    let Ok(cold) = node.open() else { return 0 };
    SCRIPT.iter().take_while(|step| step(&node.disk, &cold, snapshot).is_ok()).count()
}

fn policies(seed: u64) -> [CrashPolicy; 4] {
    [
        CrashPolicy::LoseUnsynced,
        CrashPolicy::KeepAll,
        CrashPolicy::Torn { seed },
        CrashPolicy::Torn { seed: seed.wrapping_mul(31) + 1 },
    ]
}

/// Recovers, with a second crash on the way, and holds the outcome against the script's states.
fn check_recovery(
    node: &Node,
    acknowledged: usize,
    states: &[(Option<Vec<u8>>, Content)],
    seed: u64,
) {
    for policy in policies(seed) {
        let found = node.crash(policy, seed);
        let interrupted = found.crash(CrashPolicy::KeepAll, seed);
        interrupted.disk.stop_at(1 + seed % 6);
        interrupted.engine.fail_after(seed % 5);
        let _ = interrupted.open();
        for second in policies(seed + 7) {
            let node = interrupted.crash(second, seed + 3);
            let cold = node.open().unwrap_or_else(|fault| panic!("{policy:?} {second:?}: {fault}"));
            let recovered = state(&cold);
            let possible = &states[acknowledged..states.len().min(acknowledged + 2)];
            assert!(
                possible.contains(&recovered),
                "{policy:?} {second:?}: after {acknowledged} steps, a mixture or another state"
            );
            cold.checkpoint_of(b"after", vec![put("always", "after")]).unwrap();
        }
    }
}

#[test]
fn every_crash_point_recovers_to_a_whole_state_that_is_not_older_than_acknowledged() {
    stop_everywhere(MemoryEngine::new);
}

#[test]
fn so_it_does_on_an_engine_that_takes_checkpoints_whole() {
    stop_everywhere(MemoryEngine::whole);
}

fn stop_everywhere(engine: fn() -> MemoryEngine) {
    let (snapshot, _) = foreign_snapshot();
    let reference = Node::on(engine());
    let cold = reference.open().unwrap();
    let mut states = vec![state(&cold)];
    for step in SCRIPT {
        step(&reference.disk, &cold, &snapshot).unwrap();
        states.push(state(&cold));
    }
    let (disk_operations, engine_operations) =
        (reference.disk.operations(), reference.engine.operations());
    assert!(disk_operations > 20 && engine_operations > 5);

    for n in 1..=disk_operations {
        for fault in [SimDisk::stop_at, SimDisk::fail_at] {
            let node = Node::on(engine());
            fault(&node.disk, n);
            let acknowledged = play(&node, &snapshot);
            check_recovery(&node, acknowledged, &states, n);
        }
    }
    for n in 0..engine_operations {
        let node = Node::on(engine());
        node.engine.fail_after(n);
        let acknowledged = play(&node, &snapshot);
        check_recovery(&node, acknowledged, &states, n);
    }
}

//! Random calls, with reopening and crashes in between, against a map that does the same.
#![cfg(test)]

mod log_support;

use log_support::{Model, Op, at, entry, open, run};
use proptest::prelude::*;
use roost_storage::fs::sim::{CrashPolicy, SimDisk};

const SEGMENT_BYTES: u64 = 4096 + 1500;

/// A call, in terms of what the log holds then.
#[derive(Debug, Clone)]
enum Step {
    Append { count: usize, len: usize, next_term: bool },
    Vote(u8),
    Committed,
    Truncate { entries: u64 },
    PurgePart { tenths: u64 },
    PurgeBeyond { by: u64 },
    Reopen,
    Crash { seed: u64 },
    Read { from: u64, count: u64, max_bytes: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1usize..6, 0usize..700, any::<bool>()).prop_map(|(count, len, next_term)| Step::Append { count, len, next_term }),
        1 => any::<u8>().prop_map(Step::Vote),
        1 => Just(Step::Committed),
        2 => (1u64..6).prop_map(|entries| Step::Truncate { entries }),
        2 => (0u64..=10).prop_map(|tenths| Step::PurgePart { tenths }),
        1 => (1u64..5).prop_map(|by| Step::PurgeBeyond { by }),
        2 => Just(Step::Reopen),
        2 => any::<u64>().prop_map(|seed| Step::Crash { seed }),
        4 => (0u64..40, 0u64..40, 0usize..3000).prop_map(|(from, count, max_bytes)| Step::Read { from, count, max_bytes }),
    ]
}

/// The call that a step makes on a log like the model's, if any.
fn call(step: &Step, model: &Model) -> Option<Op> {
    let last = model.state.last;
    Some(match *step {
        Step::Append { count, len, next_term } => {
            let term = last.map_or(1, |last| last.term) + u64::from(next_term);
            let next = last.map_or(0, |last| last.index + 1);
            let entry_of = |index| entry(term, index, vec![(index * 7 + term) as u8; len]);
            Op::Append((next..next + count as u64).map(entry_of).collect())
        }
        Step::Vote(vote) => Op::Vote(vec![vote; 9].into()),
        Step::Committed => Op::Committed(last),
        Step::Truncate { entries } => {
            let kept =
                model.entries.values().rev().nth(entries as usize).map(|entry| entry.position);
            Op::Truncate(kept.or(model.state.purged))
        }
        Step::PurgePart { tenths } => {
            let count = (model.entries.len() as u64 * tenths / 10).checked_sub(1)?;
            Op::Purge(model.entries.values().nth(count as usize)?.position)
        }
        Step::PurgeBeyond { by } => {
            let last = last.unwrap_or(at(1, 0));
            Op::Purge(at(last.term, last.index + by))
        }
        Step::Reopen | Step::Crash { .. } | Step::Read { .. } => return None,
    })
}

/// What a read must give: at least one, and no more once the bytes are passed.
fn expected_read(
    model: &Model,
    from: u64,
    end: u64,
    max_bytes: usize,
) -> Vec<roost_storage::log::LogEntry> {
    let mut bytes = 0;
    let within = model.entries.range(from..end).map(|(_, entry)| entry).take_while(|entry| {
        let fits = bytes == 0 || bytes + entry.payload.len() <= max_bytes;
        bytes += entry.payload.len();
        fits
    });
    within.cloned().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
    #[test]
    fn the_log_is_what_a_map_would_be(steps in prop::collection::vec(step(), 1..60), cache_bytes in 0usize..2000) {
        let mut disk = SimDisk::new();
        let mut model = Model::default();
        let mut log = open(disk.clone(), SEGMENT_BYTES, cache_bytes).unwrap();
        for step in &steps {
            if let Some(op) = call(step, &model) {
                run(&log, &op).unwrap();
                model.apply(&op);
            }
            match *step {
                Step::Read { from, count, max_bytes } => {
                    let from = model.state.purged.map_or(0, |purged| purged.index).saturating_sub(5) + from;
                    let found = log.read(from, from + count, max_bytes).unwrap();
                    prop_assert_eq!(found, expected_read(&model, from, from + count, max_bytes));
                }
                Step::Reopen => {
                    drop(log);
                    log = open(disk.clone(), SEGMENT_BYTES, cache_bytes).unwrap();
                }
                Step::Crash { seed } => {
                    // A commit position that no later call carried along may be lost: make one.
                    let vote = Op::Vote(seed.to_be_bytes().to_vec().into());
                    run(&log, &vote).unwrap();
                    model.apply(&vote);
                    drop(log);
                    disk = disk.crash(CrashPolicy::Torn { seed });
                    log = open(disk.clone(), SEGMENT_BYTES, cache_bytes).unwrap();
                }
                _ => {}
            }
            prop_assert_eq!(&log.state(), &model.state);
        }
        prop_assert_eq!(Model::of(&log), model);
    }
}

//! Promise 1: an acknowledged send is in every recipient's queue once faults end.
//!
//! *Lost write*: it is not there, on some node, at the last reading. *Lost after seen*: an item
//! that some reader saw is gone from a node. What no last reading covers is counted as *unseen*.

use crate::index::Index;
use crate::report::Report;

const PROMISE: u8 = 1;

pub(crate) fn check(index: &Index<'_>, report: &mut Report) {
    for (&key, attempts) in &index.attempts {
        let Some((call, end)) = index.acknowledged(attempts).next() else { continue };
        for user in index.recipients(call.op) {
            let whole: Vec<_> = index
                .drains
                .get(user)
                .into_iter()
                .flatten()
                .filter(|(_, drain)| drain.whole)
                .collect();
            if whole.is_empty() {
                report.unseen += 1;
                continue;
            }
            report.looked_for += 1;
            let place = index.places.get(&(user, key)).map(|(seq, _)| *seq);
            for (node, drain) in whole {
                // Below the head it may have been trimmed; nobody can tell any more.
                let there =
                    place.is_some_and(|place| place < drain.head || drain.seqs.contains(&place));
                if !there {
                    let what = || {
                        format!(
                            "{}'s send {} was acknowledged, and is not in {user}'s queue on node {node}",
                            key.0, key.1
                        )
                    };
                    report.add(PROMISE, "lost write", what, &[call.begin, end, drain.event]);
                }
            }
        }
    }
    seen_and_gone(index, report);
}

fn seen_and_gone(index: &Index<'_>, report: &mut Report) {
    for (user, queue) in &index.queues {
        let drains = index.drains.get(user).into_iter().flatten();
        for (node, drain) in drains.filter(|(_, drain)| drain.whole) {
            for (&seq, &(_, event)) in queue.range(drain.head..) {
                if !drain.seqs.contains(&seq) {
                    let what = || {
                        format!("item {seq} of {user}'s queue was seen, and is gone on node {node}")
                    };
                    report.add(PROMISE, "lost after seen", what, &[event, drain.event]);
                }
            }
        }
    }
}

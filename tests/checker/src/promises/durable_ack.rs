//! Promise 1: an acknowledged send is in every recipient's queue once faults end.
//!
//! *Lost write*: it is not there, on some node, at the last reading. *Lost after seen*: an item
//! that some reader saw is gone from a node. What no last reading covers is counted as *unseen*. A
//! message whose lifetime may have ended before anybody saw it can't be told from others.

use std::collections::BTreeSet;

use crate::history::{Answer, Op};
use crate::index::{Attempts, Index, Key};
use crate::report::Report;

const PROMISE: u8 = 1;

pub(crate) fn check(index: &Index<'_>, report: &mut Report) {
    for (&key, attempts) in &index.attempts {
        check_message(index, report, key, attempts);
    }
    seen_and_gone(index, report);
}

/// A message, at each place where it was said to be.
fn check_message(index: &Index<'_>, report: &mut Report, key: Key<'_>, attempts: &Attempts) {
    let mut looked = BTreeSet::new();
    for (call, end) in index.acknowledged(attempts) {
        let Some(Answer::Sent { conversation, seq, .. }) = call.answer else { continue };
        let position = (conversation.as_str(), *seq);
        if !looked.insert(position) {
            continue;
        }
        let expires = matches!(call.op, Op::Send { ttl_ms: Some(_), .. });
        for user in index.recipients(call.op, index.span(attempts, end)) {
            let drains = index.drains.get(user).into_iter().flatten();
            let whole: Vec<_> = drains.filter(|(_, drain)| drain.whole).collect();
            if whole.is_empty() {
                report.unseen += 1;
                continue;
            }
            let place = index.places.get(&(user, position)).map(|(seq, _)| *seq);
            if place.is_none() && expires {
                continue;
            }
            report.looked_for += 1;
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

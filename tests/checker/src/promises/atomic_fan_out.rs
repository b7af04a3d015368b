//! Promise 9: at the ack, all recipients have it or none.
//!
//! *Partial fan-out*: at the last reading one recipient's queue has a message and another's has
//! not, whatever became of its send; or a node that had applied the entry of an acknowledged send
//! showed a recipient's queue without it.

use std::collections::HashMap;

use crate::history::{Answer, Op};
use crate::index::{Attempts, Index, Key};
use crate::report::Report;

const PROMISE: u8 = 9;
const ANOMALY: &str = "partial fan-out";

pub(crate) fn check(index: &Index<'_>, report: &mut Report) {
    for (&key, attempts) in &index.attempts {
        at_the_end(index, report, key, attempts);
    }
    by_applied_index(index, report);
}

/// Every message that somebody saw, at each of its positions.
fn at_the_end(index: &Index<'_>, report: &mut Report, key: Key<'_>, attempts: &Attempts) {
    let Some(&first) = attempts.calls.first() else { return };
    let op = index.calls[first].op;
    // What expired can't be told from what is not there; and of a message that was stored again after
    // the dedup window, nobody knows which attempt did it, and so who was a member then.
    if matches!(op, Op::Send { ttl_ms: Some(_), .. }) || !index.is_stored_once(key) {
        return;
    }
    // Unless it was acknowledged, it may have taken effect at any time.
    let until = index.acknowledged(attempts).map(|(_, end)| end).min();
    let span = index.span(attempts, until.unwrap_or(usize::MAX));
    for &position in index.positions.get(&key).into_iter().flat_map(|all| all.keys()) {
        let mut has: Option<(&str, usize)> = None;
        let mut lacks: Option<(&str, usize)> = None;
        for user in index.recipients(op, span) {
            let mut drains = index.drains.get(user).into_iter().flat_map(|all| all.values());
            let Some(drain) = drains.find(|drain| drain.whole) else { continue };
            match index.places.get(&(user, position)) {
                Some(&(_, event)) => has = Some((user, event)),
                // What was trimmed may have been there.
                None if drain.head <= 1 => lacks = Some((user, drain.event)),
                None => {}
            }
        }
        if let (Some((with, seen)), Some((without, read))) = (has, lacks) {
            let what = || format!("{}'s send {} reached {with} but not {without}", key.0, key.1);
            report.add(PROMISE, ANOMALY, what, &[index.calls[first].begin, seen, read]);
        }
    }
}

/// For each queue, the sequences that an applied index demands; then each page is held to it.
fn by_applied_index(index: &Index<'_>, report: &mut Report) {
    let mut demands: HashMap<&str, Vec<(u64, u64, usize)>> = HashMap::new();
    for call in &index.calls {
        let (
            Op::Send { .. },
            Some(Answer::Sent { conversation, seq, applied, duplicate: false, .. }),
            Some(end),
        ) = (call.op, call.answer, call.end)
        else {
            continue;
        };
        for recipient in index.candidates(call.op) {
            let place = (recipient, (conversation.as_str(), *seq));
            if let Some(&(seq, _)) = index.places.get(&place) {
                demands.entry(recipient).or_default().push((*applied, seq, end));
            }
        }
    }
    for list in demands.values_mut() {
        list.sort_unstable();
        // Each entry then holds the greatest sequence up to its index.
        for at in 1..list.len() {
            if list[at - 1].1 > list[at].1 {
                (list[at].1, list[at].2) = (list[at - 1].1, list[at - 1].2);
            }
        }
    }
    for call in &index.calls {
        let (Op::Pull { user, .. }, Some(Answer::Items { tail, applied, .. }), Some(end)) =
            (call.op, call.answer, call.end)
        else {
            continue;
        };
        let Some(list) = demands.get(user.as_str()) else { continue };
        let upto = list.partition_point(|demand| demand.0 <= *applied);
        let Some(&(at, seq, event)) = upto.checked_sub(1).map(|last| &list[last]) else { continue };
        if *tail < seq {
            let what = || {
                format!(
                    "{user}'s queue on node {} at index {applied} ends at {tail}, but {seq} was there at {at}",
                    call.node
                )
            };
            report.add(PROMISE, ANOMALY, what, &[event, end]);
        }
    }
}

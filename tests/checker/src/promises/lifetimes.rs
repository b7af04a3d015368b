//! Promise 11, for lifetimes: a message whose lifetime has ended by the log's time is shown to
//! nobody, whatever the reading node's own clock says.
//!
//! *Outlived*: a page of a node that had applied an entry of a later time still shows it. How late
//! it is at an applied index is known from acknowledged sends: at least as late as the newest of
//! them up to there. (A node whose clock is ahead may hide a message sooner.)

use crate::history::{Answer, Op};
use crate::index::{Index, message_of};
use crate::report::Report;

const PROMISE: u8 = 11;

pub(crate) fn check(index: &Index<'_>, report: &mut Report) {
    let times = times(index);
    for call in &index.calls {
        let (Op::Pull { .. }, Some(Answer::Items { items, applied, .. }), Some(end)) =
            (call.op, call.answer, call.end)
        else {
            continue;
        };
        let upto = times.partition_point(|(at, ..)| at <= applied);
        let Some(&(at, now_ms, event)) = upto.checked_sub(1).map(|last| &times[last]) else {
            continue;
        };
        for (_, message) in items.iter().filter_map(message_of) {
            if let Some(expires_at_ms) = message.expires_at_ms.filter(|ends| *ends <= now_ms) {
                let what = || {
                    format!(
                        "{}'s send {} ended at {expires_at_ms} ms, and is shown at index {applied}, \
                         while it was {now_ms} ms at {at}",
                        message.sender, message.client_id
                    )
                };
                report.add(PROMISE, "outlived", what, &[event, end]);
            }
        }
    }
}

/// Applied index → the time that it was at least, and the event that says so; both ascend.
fn times(index: &Index<'_>) -> Vec<(u64, u64, usize)> {
    let sent = index.calls.iter().filter_map(|call| match call.answer {
        Some(Answer::Sent { applied, at_ms, .. }) => Some((*applied, *at_ms, call.end?)),
        _ => None,
    });
    let mut times: Vec<_> = sent.collect();
    times.sort_unstable();
    for at in 1..times.len() {
        if times[at - 1].1 > times[at].1 {
            (times[at].1, times[at].2) = (times[at - 1].1, times[at - 1].2);
        }
    }
    times
}

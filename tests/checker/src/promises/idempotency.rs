//! Promise 5: the same (sender, client id) is stored once within the dedup window, and gives the same
//! reply.
//!
//! *Duplicate*: two places for one send, in a queue, in conversations or in replies. *Reused client
//! id*: another body was acknowledged under it. *False duplicate*: the only attempt was told that an
//! earlier one had stored it.

use std::collections::{BTreeMap, HashMap};

use roost_protocol::limits::DEDUP_WINDOW_MS;

use crate::history::{Answer, Op};
use crate::index::{Attempts, Index, Key, Position, key_of, message_of};
use crate::report::Report;

const PROMISE: u8 = 5;

pub(crate) fn check(index: &Index<'_>, report: &mut Report) {
    for (&key, attempts) in &index.attempts {
        replies(index, report, key, attempts);
    }
    for (&key, positions) in &index.positions {
        stored(report, key, positions);
    }
    queues(index, report);
}

/// What the replies say of one position.
struct Replied<'h> {
    op: &'h Op,
    event: usize,
    /// The reply that said that this attempt stored it.
    stored: Option<usize>,
}

fn replies(index: &Index<'_>, report: &mut Report, key: Key<'_>, attempts: &Attempts) {
    let mut positions: HashMap<Position<'_>, Replied<'_>> = HashMap::new();
    for (call, end) in index.acknowledged(attempts) {
        let Some(Answer::Sent { conversation, seq, duplicate, .. }) = call.answer else { continue };
        let found = |anomaly: &'static str, report: &mut Report, events: &[usize]| {
            report.add(PROMISE, anomaly, || format!("{}'s send {}", key.0, key.1), events);
        };
        let known = positions.entry((conversation, *seq)).or_insert(Replied {
            op: call.op,
            event: end,
            stored: None,
        });
        if !same_body(known.op, call.op) {
            found("reused client id", report, &[known.event, call.begin, end]);
        }
        if !duplicate && let Some(event) = known.stored.replace(end) {
            found("duplicate", report, &[event, end]);
        }
        if *duplicate && attempts.calls.len() == 1 {
            found("false duplicate", report, &[call.begin, end]);
        }
    }
}

/// Every position of one message must be a dedup window after the one before.
fn stored(report: &mut Report, key: Key<'_>, positions: &BTreeMap<Position<'_>, (u64, usize)>) {
    let mut by_time: Vec<(u64, usize)> = positions.values().copied().collect();
    by_time.sort_unstable();
    for pair in by_time.windows(2) {
        let ((first_ms, first), (next_ms, next)) = (pair[0], pair[1]);
        if next_ms - first_ms < DEDUP_WINDOW_MS {
            let what = || {
                format!("{}'s send {} is stored at {first_ms} ms and {next_ms} ms", key.0, key.1)
            };
            report.add(PROMISE, "duplicate", what, &[first, next]);
        }
    }
}

fn same_body(one: &Op, other: &Op) -> bool {
    match (one, other) {
        (Op::Send { body: a, .. }, Op::Send { body: b, .. }) => a == b,
        _ => false,
    }
}

/// A queue has each message once.
fn queues(index: &Index<'_>, report: &mut Report) {
    for (user, queue) in &index.queues {
        for (&seq, &(item, event)) in queue {
            let Some((conversation, message)) = message_of(item) else { continue };
            let (first, sight) = index.places[&(*user, (conversation, message.seq))];
            if first != seq {
                let key = key_of(message);
                let what = || {
                    format!("{}'s send {} is in {user}'s queue at {first} and {seq}", key.0, key.1)
                };
                report.add(PROMISE, "duplicate", what, &[sight, event]);
            }
        }
    }
}

//! Promise 5: the same (sender, client id) is stored once, and gives the same reply.
//!
//! *Duplicate*: two places for one send, in a queue, in conversations or in replies. *Reused client
//! id*: another body was acknowledged under it. *False duplicate*: the only attempt was told that an
//! earlier one had stored it.

use std::collections::HashMap;

use crate::history::{Answer, Op};
use crate::index::{Attempts, Index, Key, key_of, message_of};
use crate::report::Report;

const PROMISE: u8 = 5;

pub(crate) fn check(index: &Index<'_>, report: &mut Report) {
    for (&key, attempts) in &index.attempts {
        replies(index, report, key, attempts);
    }
    queues(index, report);
    conversations(index, report);
}

fn replies(index: &Index<'_>, report: &mut Report, key: Key<'_>, attempts: &Attempts) {
    let mut first: Option<(&str, u64, usize, &Op)> = None;
    let mut stored: Option<usize> = None;
    for (call, end) in index.acknowledged(attempts) {
        let Some(Answer::Sent { conversation, seq, duplicate, .. }) = call.answer else { continue };
        let found = |anomaly: &'static str, report: &mut Report, events: &[usize]| {
            report.add(PROMISE, anomaly, || format!("{}'s send {}", key.0, key.1), events);
        };
        match first {
            None => first = Some((conversation, *seq, end, call.op)),
            Some((other, at, event, op)) => {
                if (other, at) != (conversation.as_str(), *seq) {
                    found("duplicate", report, &[event, end]);
                }
                if !same_body(op, call.op) {
                    found("reused client id", report, &[event, call.begin, end]);
                }
            }
        }
        if !duplicate && let Some(event) = stored.replace(end) {
            found("duplicate", report, &[event, end]);
        }
        if *duplicate && attempts.calls.len() == 1 {
            found("false duplicate", report, &[call.begin, end]);
        }
    }
}

fn same_body(one: &Op, other: &Op) -> bool {
    match (one, other) {
        (Op::Send { body: a, .. }, Op::Send { body: b, .. }) => a == b,
        _ => false,
    }
}

fn queues(index: &Index<'_>, report: &mut Report) {
    for (user, queue) in &index.queues {
        for (&seq, &(item, event)) in queue {
            let Some((_, message)) = message_of(item) else { continue };
            let key = key_of(message);
            let (first, sight) = index.places[&(*user, key)];
            if first != seq {
                let what = || {
                    format!("{}'s send {} is in {user}'s queue at {first} and {seq}", key.0, key.1)
                };
                report.add(PROMISE, "duplicate", what, &[sight, event]);
            }
        }
    }
}

fn conversations(index: &Index<'_>, report: &mut Report) {
    let mut places: HashMap<Key<'_>, (&str, u64, usize)> = HashMap::new();
    for (&conversation, messages) in &index.conversations {
        for (&seq, &(message, event)) in messages {
            let key = key_of(message);
            let first = *places.entry(key).or_insert((conversation, seq, event));
            if (first.0, first.1) != (conversation, seq) {
                let what = || format!("{}'s send {} is stored twice", key.0, key.1);
                report.add(PROMISE, "duplicate", what, &[first.2, event]);
            }
        }
    }
}

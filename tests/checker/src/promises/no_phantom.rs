//! Promise 2: each item comes from an attempted, authorised send.
//!
//! *Unexpected*: nobody sent it, or not to this user. *Aborted read*: every attempt had definitely
//! failed. *Corrupt*: no attempt had this body. *Future read*: it was read before it was sent.

use roost_protocol::Message;

use crate::history::{Op, Stage};
use crate::index::{Index, key_of, message_of};
use crate::report::Report;

const PROMISE: u8 = 2;

pub(crate) fn check(index: &Index<'_>, report: &mut Report) {
    for seen in &index.seen {
        for (_, message) in seen.items.iter().filter_map(message_of) {
            check_message(index, report, message, seen.event, Some(seen.user));
        }
    }
    for seen in &index.histories {
        for message in seen.messages {
            check_message(index, report, message, seen.event, None);
        }
    }
}

fn check_message(
    index: &Index<'_>,
    report: &mut Report,
    message: &Message,
    event: usize,
    reader: Option<&str>,
) {
    let key = key_of(message);
    let mut found = |anomaly: &'static str, why: &str, events: &[usize]| {
        report.add(PROMISE, anomaly, || format!("{}'s send {}: {why}", key.0, key.1), events);
    };
    let Some(attempts) = index.attempts.get(&key) else {
        found("unexpected", "it was read, but never attempted", &[event]);
        return;
    };
    let mut calls = attempts.calls.iter().map(|&at| &index.calls[at]);
    let ends = |stage: Stage| calls.clone().filter(move |call| call.stage == stage);
    if ends(Stage::Ok).chain(ends(Stage::Unknown)).next().is_none() {
        let mut events: Vec<usize> = calls.clone().flat_map(|call| index.both_ends(call)).collect();
        events.push(event);
        found("aborted read", "every attempt had failed, and yet it was read", &events);
        return;
    }
    let Some(first) = calls.clone().next() else { return };
    if event < first.begin {
        found("future read", "it was read before it was sent", &[event, first.begin]);
    }
    let text = message.body.text();
    let same = |op: &Op| matches!(op, Op::Send { body, .. } if Some(body.as_str()) == text);
    if !calls.any(|call| same(call.op)) {
        found("corrupt", "it was read with a body that no attempt had", &[first.begin, event]);
    }
    if let Some(user) = reader
        && !index.may_receive(first.op, user, (first.begin, event))
    {
        found("unexpected", "it is in a queue that it was not sent to", &[first.begin, event]);
    }
}

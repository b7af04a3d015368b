//! Promise 8: if A was acknowledged before B was sent, A comes before B in every queue and
//! conversation that they share.
//!
//! *Real-time reorder*: it does not. Walking a sequence upwards, it is enough to remember the
//! latest beginning so far: whatever comes above must not have ended before that.

use std::collections::HashMap;

use crate::index::{Index, Key, key_of, message_of};
use crate::report::Report;

const PROMISE: u8 = 8;

/// When a message's first attempt began and when it was first acknowledged.
struct Span {
    begin: usize,
    end: Option<usize>,
}

pub(crate) fn check(index: &Index<'_>, report: &mut Report) {
    let spans: HashMap<Key<'_>, Span> = index
        .attempts
        .iter()
        // Of one that is stored twice, nobody knows which attempt is which.
        .filter(|(key, _)| index.is_stored_once(**key))
        .filter_map(|(&key, attempts)| {
            let begin = index.calls[*attempts.calls.first()?].begin;
            let end = index.acknowledged(attempts).map(|(_, end)| end).min();
            Some((key, Span { begin, end }))
        })
        .collect();
    for (user, queue) in &index.queues {
        let messages = queue.values().filter_map(|(item, _)| Some(message_of(item)?.1));
        walk(report, &format!("{user}'s queue"), messages.map(key_of), &spans);
    }
    for (conversation, messages) in &index.conversations {
        let keys = messages.values().map(|(message, _)| key_of(message));
        walk(report, conversation, keys, &spans);
    }
}

fn walk<'h>(
    report: &mut Report,
    name: &str,
    keys: impl Iterator<Item = Key<'h>>,
    spans: &HashMap<Key<'_>, Span>,
) {
    let mut latest: Option<(usize, Key<'_>)> = None;
    for key in keys {
        let Some(span) = spans.get(&key) else { continue };
        if let (Some((begin, before)), Some(end)) = (latest, span.end)
            && end < begin
        {
            let what = || {
                format!(
                    "in {name}, {}'s {} stands above {}'s {}, which was sent after it was acknowledged",
                    key.0, key.1, before.0, before.1
                )
            };
            report.add(PROMISE, "real-time reorder", what, &[span.begin, end, begin]);
        }
        if latest.is_none_or(|(begin, _)| span.begin > begin) {
            latest = Some((span.begin, key));
        }
    }
}

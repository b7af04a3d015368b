//! Promise 11: time comes from the log: stamped by the leader, monotone, the same everywhere.
//!
//! *Time went back*: a message's time is before that of one below it, in a conversation or a queue.
//! *Two times*: a reply and an item, or two replies, say different times of one message.

use std::collections::HashMap;

use roost_protocol::Message;

use crate::history::{Answer, Op};
use crate::index::{Index, Position, message_of};
use crate::report::Report;

const PROMISE: u8 = 11;

pub(crate) fn check(index: &Index<'_>, report: &mut Report) {
    for (user, queue) in &index.queues {
        let messages =
            queue.values().filter_map(|&(item, event)| Some((message_of(item)?.1, event)));
        rises(report, &format!("{user}'s queue"), messages);
    }
    for (conversation, messages) in &index.conversations {
        rises(report, conversation, messages.values().copied());
    }
    agrees(index, report);
}

fn rises<'h>(
    report: &mut Report,
    name: &str,
    messages: impl Iterator<Item = (&'h Message, usize)>,
) {
    let mut newest: Option<(u64, usize)> = None;
    for (message, event) in messages {
        if let Some((at_ms, before)) = newest
            && message.at_ms < at_ms
        {
            let what = || format!("{name} goes back from {at_ms} ms to {} ms", message.at_ms);
            report.add(PROMISE, "time went back", what, &[before, event]);
        }
        newest = Some((message.at_ms, event));
    }
}

fn agrees(index: &Index<'_>, report: &mut Report) {
    let mut times: HashMap<Position<'_>, (u64, usize)> = HashMap::new();
    for (&conversation, messages) in &index.conversations {
        let seen = messages.iter().map(|(&seq, &(message, event))| (seq, message.at_ms, event));
        times.extend(seen.map(|(seq, at_ms, event)| ((conversation, seq), (at_ms, event))));
    }
    for call in &index.calls {
        let (
            Op::Send { user, client_id, .. },
            Some(Answer::Sent { conversation, seq, at_ms, .. }),
            Some(end),
        ) = (call.op, call.answer, call.end)
        else {
            continue;
        };
        let (first, event) = *times.entry((conversation, *seq)).or_insert((*at_ms, end));
        if first != *at_ms {
            let what = || format!("{user}'s send {client_id} is of {first} ms and of {at_ms} ms");
            report.add(PROMISE, "two times", what, &[event, end]);
        }
    }
}

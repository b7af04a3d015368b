//! Promise 10: reference counts equal a full scan: no orphan, no dangling reference.
//!
//! Seen from outside: what a node counts must be what reading all queues and conversations finds.
//! *Count mismatch*: it is not. *Dangling reference*: a queue's item names a message that its
//! conversation, read to the end, lacks. The counts are compared only where every user's queue was
//! read on that node after its faults.

use std::collections::{HashMap, HashSet};

use roost_protocol::ItemContent;

use crate::history::{Answer, Op};
use crate::index::{Index, message_of};
use crate::report::Report;

const PROMISE: u8 = 10;

pub(crate) fn check(index: &Index<'_>, report: &mut Report) {
    counts(index, report);
    dangling(index, report);
}

/// The node's newest status.
fn counts(index: &Index<'_>, report: &mut Report) {
    let mut newest: HashMap<u64, usize> = HashMap::new();
    for (at, call) in index.calls.iter().enumerate() {
        if matches!(call.answer, Some(Answer::Status { .. })) {
            newest.insert(call.node, at);
        }
    }
    for (node, at) in newest {
        let call = &index.calls[at];
        let (Some(Answer::Status { users, messages, references, .. }), Some(event)) =
            (call.answer, call.end)
        else {
            continue;
        };
        let drains: Vec<_> = index
            .drains
            .iter()
            .filter_map(|(user, drains)| Some((*user, drains.get(&node)?)))
            .filter(|(_, drain)| drain.whole)
            .collect();
        if drains.len() as u64 != *users {
            continue;
        }
        let held: u64 = drains.iter().map(|(_, drain)| drain.seqs.len() as u64).sum();
        let mut different: HashSet<(&str, u64)> = HashSet::new();
        let mut expired = false;
        for (user, drain) in &drains {
            let queue = &index.queues.get(user);
            let items = drain.seqs.iter().filter_map(|seq| Some(queue.as_ref()?.get(seq)?.0));
            expired |= items.clone().any(|item| item.content == ItemContent::Expired);
            let messages = items.filter_map(message_of);
            different.extend(messages.map(|(conversation, message)| (conversation, message.seq)));
        }
        let of =
            [("references", *references, held), ("messages", *messages, different.len() as u64)];
        for (name, counted, found) in of {
            // Of what had expired before anybody saw it, nobody knows which messages they were.
            if counted != found && !(expired && name == "messages") {
                let what = || format!("node {node} counts {counted} {name}, reading finds {found}");
                report.add(PROMISE, "count mismatch", what, &[event]);
            }
        }
    }
}

fn dangling(index: &Index<'_>, report: &mut Report) {
    let mut read: HashMap<&str, (HashSet<u64>, usize)> = HashMap::new();
    for call in &index.calls {
        if let (Op::History { conversation, last: true, .. }, Some(end)) = (call.op, call.end)
            && let Some(Answer::Messages { messages, .. }) = call.answer
        {
            let (seqs, event) = read.entry(conversation).or_default();
            seqs.extend(messages.iter().map(|message| message.seq));
            *event = end;
        }
    }
    for (user, queue) in &index.queues {
        for (&seq, &(item, event)) in queue {
            let Some((conversation, message)) = message_of(item) else { continue };
            let Some((seqs, end)) = read.get(conversation) else { continue };
            if message.expires_at_ms.is_none() && !seqs.contains(&message.seq) {
                let what = || {
                    format!(
                        "item {seq} of {user}'s queue names message {} of {conversation}, which is not there",
                        message.seq
                    )
                };
                report.add(PROMISE, "dangling reference", what, &[event, *end]);
            }
        }
    }
}

//! Promise 4: sequences have no gaps.
//!
//! *Gap*: at the last reading a queue lacks a sequence between its head and its tail, or a
//! conversation lacks one below the newest message that anybody saw.

use std::collections::{BTreeSet, HashMap};

use crate::history::Op;
use crate::index::Index;
use crate::report::Report;

const PROMISE: u8 = 4;
const ANOMALY: &str = "gap";

pub(crate) fn check(index: &Index<'_>, report: &mut Report) {
    for (user, drains) in &index.drains {
        for (node, drain) in drains.iter().filter(|(_, drain)| drain.whole) {
            let mut expected = drain.head.max(1);
            for &seq in &drain.seqs {
                if seq > expected {
                    let what =
                        || format!("{user}'s queue on node {node} lacks {expected} to {}", seq - 1);
                    report.add(PROMISE, ANOMALY, what, &[drain.event]);
                }
                expected = seq + 1;
            }
            if expected <= drain.tail {
                let what = || {
                    format!(
                        "{user}'s queue on node {node} ends at {} of {}",
                        expected - 1,
                        drain.tail
                    )
                };
                report.add(PROMISE, ANOMALY, what, &[drain.event]);
            }
        }
    }
    conversations(index, report);
}

/// Conversations that were read to the end.
fn conversations(index: &Index<'_>, report: &mut Report) {
    let mut read: HashMap<&str, (BTreeSet<u64>, usize)> = HashMap::new();
    for call in &index.calls {
        let Op::History { conversation, last: true, .. } = call.op else { continue };
        let Some(end) = call.end else { continue };
        let Some(crate::history::Answer::Messages { messages, .. }) = call.answer else { continue };
        let (seqs, event) = read.entry(conversation).or_default();
        seqs.extend(messages.iter().map(|message| message.seq));
        *event = end;
    }
    // What has expired is left out of histories.
    for (conversation, (seqs, event)) in
        read.into_iter().filter(|(conversation, _)| !index.expiring.contains(conversation))
    {
        let mut expected = 1;
        for &seq in &seqs {
            if seq != expected {
                let what = || format!("{conversation} lacks {expected} to {}", seq - 1);
                report.add(PROMISE, ANOMALY, what, &[event]);
            }
            expected = seq + 1;
        }
        let seen = index.conversations.get(conversation).and_then(|all| all.last_key_value());
        if let Some((&newest, &(_, sight))) = seen
            && newest >= expected
        {
            let what = || format!("{conversation} ends at {} of {newest}", expected - 1);
            report.add(PROMISE, ANOMALY, what, &[sight, event]);
        }
    }
}

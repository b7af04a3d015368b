//! Promise 3: (user, sequence) names one item, on all nodes, for ever; (conversation, sequence)
//! names one message.
//!
//! *Inconsistent offset*: two looks at the same place show different things; that a message with a
//! lifetime has expired is none.

use roost_protocol::{Item, ItemContent, Message};

use crate::history::{Answer, Op};
use crate::index::{Index, key_of, message_of};
use crate::report::Report;

const PROMISE: u8 = 3;
const ANOMALY: &str = "inconsistent offset";

pub(crate) fn check(index: &Index<'_>, report: &mut Report) {
    for seen in &index.seen {
        let Some(queue) = index.queues.get(seen.user) else { continue };
        for item in seen.items {
            let (first, event) = queue[&item.seq];
            if first != item && !has_expired(first, item) {
                let what =
                    || format!("item {} of {}'s queue has two contents", item.seq, seen.user);
                report.add(PROMISE, ANOMALY, what, &[event, seen.event]);
            }
            if let Some((conversation, message)) = message_of(item) {
                check_message(index, report, conversation, message, seen.event);
            }
        }
    }
    for seen in &index.histories {
        for message in seen.messages {
            check_message(index, report, seen.conversation, message, seen.event);
        }
    }
    check_replies(index, report);
}

/// Whether the one is what the other became when its lifetime ended.
fn has_expired(shown: &Item, item: &Item) -> bool {
    let expires = message_of(shown).is_some_and(|(_, message)| message.expires_at_ms.is_some());
    expires && item.content == ItemContent::Expired
}

fn check_message(
    index: &Index<'_>,
    report: &mut Report,
    conversation: &str,
    message: &Message,
    event: usize,
) {
    let (first, seen) = index.conversations[conversation][&message.seq];
    if first != message {
        let what = || format!("message {} of {conversation} has two contents", message.seq);
        report.add(PROMISE, ANOMALY, what, &[seen, event]);
    }
}

/// A reply says where the message is.
fn check_replies(index: &Index<'_>, report: &mut Report) {
    for call in &index.calls {
        let (Op::Send { user, client_id, .. }, Some(Answer::Sent { conversation, seq, .. })) =
            (call.op, call.answer)
        else {
            continue;
        };
        let found = index.conversations.get(conversation.as_str()).and_then(|all| all.get(seq));
        let Some(&(message, event)) = found else { continue };
        if key_of(message) != (user.as_str(), client_id.as_str()) {
            let what = || {
                format!(
                    "{user}'s send {client_id} was said to be message {seq} of {conversation}, which is another one"
                )
            };
            let mut events = index.both_ends(call);
            events.push(event);
            report.add(PROMISE, ANOMALY, what, &events);
        }
    }
}

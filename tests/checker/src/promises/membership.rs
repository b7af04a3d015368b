//! Promise 15, as queues show it: who is not a member gets nothing of a group, and who is misses
//! nothing.
//!
//! A queue says itself when its user joined and left a group; between the two it has every message
//! of the group in the order of the group's sequence. *Received outside*: something of a group in a
//! queue while its user is no member. *Missed inside*: the group's sequence has a hole there.
//! A queue that nobody saw from its beginning without a gap says nothing.

use std::collections::{BTreeSet, HashMap};

use roost_protocol::{ItemContent, MemberChange};

use crate::index::Index;
use crate::report::Report;

const PROMISE: u8 = 15;

/// What a queue's user is to a group.
#[derive(Debug, Default)]
struct Standing {
    /// Whether the user is a member, and the event that says so.
    member: bool,
    because: Option<usize>,
    /// The newest message since the user joined, and how many items had expired by then.
    newest: Option<(u64, u64)>,
}

pub(crate) fn check(index: &Index<'_>, report: &mut Report) {
    let groups = groups(index);
    for user in index.queues.keys() {
        walk(index, report, user, &groups);
    }
}

/// Conversations whose members are said to have changed: direct ones never do.
fn groups<'h>(index: &Index<'h>) -> BTreeSet<&'h str> {
    let items = index.queues.values().flat_map(|queue| queue.values());
    let changed = items.filter_map(|(item, _)| match &item.content {
        ItemContent::Member { conversation, .. } => Some(conversation.as_str()),
        _ => None,
    });
    changed.collect()
}

fn walk(index: &Index<'_>, report: &mut Report, user: &str, groups: &BTreeSet<&str>) {
    let queue = &index.queues[user];
    if queue.keys().zip(1..).any(|(seq, expected)| *seq != expected) {
        return;
    }
    let mut expired = 0;
    let mut standings: HashMap<&str, Standing> = HashMap::new();
    for (&seq, &(item, event)) in queue {
        let conversation = match &item.content {
            ItemContent::Expired => {
                expired += 1;
                continue;
            }
            ItemContent::Message { conversation, .. }
            | ItemContent::Member { conversation, .. } => conversation.as_str(),
            _ => continue,
        };
        if !groups.contains(conversation) {
            continue;
        }
        let standing = standings.entry(conversation).or_default();
        let events: Vec<usize> = standing.because.into_iter().chain([event]).collect();
        let what = |how: String| move || format!("item {seq} of {user}'s queue: {how}");
        match &item.content {
            ItemContent::Member { user: whose, change, .. } if whose == user => {
                let member = *change == MemberChange::Joined;
                *standing = Standing { member, because: Some(event), newest: None };
            }
            _ if !standing.member => {
                let how = format!("{user} is no member of {conversation}");
                report.add(PROMISE, "received outside", what(how), &events);
            }
            ItemContent::Message { message, .. } => {
                // What expired may be what is missing.
                let hole = standing.newest.filter(|(newest, before)| {
                    message.seq.saturating_sub(newest + 1) > expired - before
                });
                if let Some((newest, _)) = hole {
                    let how = format!("{} follows {newest} of {conversation}", message.seq);
                    report.add(PROMISE, "missed inside", what(how), &events);
                }
                standing.newest = Some((message.seq, expired));
            }
            _ => {}
        }
    }
}

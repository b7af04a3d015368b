//! What ends, by hand: lifetimes, the dedup window, memberships; and the window of pushes.

use roost_checker::{Answer, Op};
use roost_protocol::limits::DEDUP_WINDOW_MS;
use roost_protocol::{Item, ItemContent, MemberChange};

use crate::by_hand::{breaks, holds, sound};
use crate::support::{Script, ack, connected, item, item_with, page, pull, send, sent};

/// A direct send of alice's with a lifetime, and its item.
fn brief_send(client_id: &str, ttl_ms: u64) -> Op {
    match send(client_id) {
        Op::Send { user, client_id, body, conversation, to, .. } => {
            Op::Send { user, client_id, body, conversation, to, ttl_ms: Some(ttl_ms) }
        }
        _ => unreachable!(),
    }
}

fn brief_item(seq: u64, client_id: &str, message: u64, expires_at_ms: u64) -> Item {
    let mut item = item(seq, client_id, message);
    if let ItemContent::Message { message, .. } = &mut item.content {
        message.expires_at_ms = Some(expires_at_ms);
    }
    item
}

fn expired(seq: u64) -> Item {
    Item { seq, content: ItemContent::Expired }
}

#[test]
fn a_message_with_a_lifetime_may_expire_and_no_other_may() {
    let mut script = Script::default();
    script.call(1, brief_send("a", 5), sent(1));
    script.call(1, send("b"), sent(2));
    let shown = vec![brief_item(1, "a", 1, 6), item(2, "b", 2)];
    script.call(2, pull("bob", 0, false, None), page(shown, 2));
    for user in ["alice", "bob"] {
        script.drain(1, user, vec![expired(1), item(2, "b", 2)]);
    }
    holds(&script);
    script.drain(2, "bob", vec![expired(1), expired(2)]);
    breaks(&script, 3, "inconsistent offset");
}

#[test]
fn what_expired_before_anybody_saw_it_is_not_lost() {
    let with = |op| {
        let mut script = sound();
        script.call(1, op, sent(3));
        for node in [1, 2] {
            for user in ["alice", "bob"] {
                let items = vec![item(1, "a", 1), item(2, "b", 2), expired(3)];
                script.drain(node, user, items);
            }
        }
        script
    };
    holds(&with(brief_send("c", 5)));
    breaks(&with(send("c")), 1, "lost write");
}

#[test]
fn a_message_is_not_shown_once_the_logs_time_has_passed_its_lifetime() {
    let shown_at = |applied| {
        let mut script = Script::default();
        script.call(1, brief_send("a", 1), sent(1));
        script.call(1, send("b"), sent(2));
        let items = vec![brief_item(1, "a", 1, 2)];
        let answer = Answer::Items { items, head: 1, tail: 1, more: false, applied };
        script.call(2, pull("bob", 0, false, None), answer);
        script
    };
    assert!(!shown_at(1).report().found("outlived"));
    breaks(&shown_at(2), 11, "outlived");
}

#[test]
fn a_client_id_may_be_used_again_after_the_window_and_not_before() {
    let again_after = |window_ms: u64| {
        let mut script = Script::default();
        script.call(1, send("a"), sent(1));
        let again = Answer::Sent {
            conversation: "d".into(),
            seq: 2,
            at_ms: 1 + window_ms,
            duplicate: false,
            applied: 2,
        };
        script.call(1, send("a"), again);
        for user in ["alice", "bob"] {
            let second = item_with(2, 2, "a", "body of a", 1 + window_ms);
            script.drain(1, user, vec![item(1, "a", 1), second]);
        }
        script
    };
    holds(&again_after(DEDUP_WINDOW_MS));
    breaks(&again_after(DEDUP_WINDOW_MS - 1), 5, "duplicate");
}

#[test]
fn pushes_stay_within_the_window() {
    let with = |window, acknowledged| {
        let mut script = sound();
        let op = Op::Connect {
            user: "bob".into(),
            device: "phone".into(),
            after: None,
            window: Some(window),
        };
        let begun = script.begin(2, 1, op);
        script.ok(begun, connected(2, 0));
        script.pushed("bob", begun, vec![item(1, "a", 1)]);
        if acknowledged {
            script.call(3, ack(1), Answer::Acked { cursor: 1 });
        }
        script.pushed("bob", begun, vec![item(2, "b", 2)]);
        script
    };
    holds(&with(2, false));
    holds(&with(1, true));
    breaks(&with(1, false), 18, "past the window");
}

/// A group of alice's and bob's: alice's sends into it, and what queues say of it.
fn group_send(client_id: &str) -> Op {
    match send(client_id) {
        Op::Send { user, client_id, body, .. } => {
            let conversation = Some("d".to_owned());
            Op::Send { user, client_id, body, conversation, to: None, ttl_ms: None }
        }
        _ => unreachable!(),
    }
}

fn member(seq: u64, user: &str, change: MemberChange) -> Item {
    let content = ItemContent::Member { conversation: "d".into(), user: user.into(), change };
    Item { seq, content }
}

/// Alice makes a group with bob, sends, removes bob, and sends again; bob's queue is as given.
fn removed(bobs: Vec<Item>) -> Script {
    use MemberChange::{Joined, Removed};
    let mut script = Script::default();
    let members = vec!["alice".to_owned(), "bob".to_owned()];
    let op = Op::Create { user: "alice".into(), client_id: "g".into(), members };
    script.call(1, op, Answer::Created { conversation: "d".into() });
    script.call(1, group_send("a"), sent(1));
    let op = Op::RemoveMembers {
        user: "alice".into(),
        conversation: "d".into(),
        members: vec!["bob".into()],
    };
    script.call(1, op, Answer::Members { count: 1 });
    script.call(1, group_send("b"), sent(2));
    let alices = vec![
        member(1, "alice", Joined),
        item(2, "a", 1),
        member(3, "bob", Removed),
        item(4, "b", 2),
    ];
    script.drain(1, "alice", alices);
    script.drain(1, "bob", bobs);
    script
}

#[test]
fn who_was_removed_gets_nothing_more() {
    use MemberChange::{Joined, Removed};
    let mut bobs = vec![member(1, "bob", Joined), item(2, "a", 1), member(3, "bob", Removed)];
    holds(&removed(bobs.clone()));
    bobs.push(item(4, "b", 2));
    breaks(&removed(bobs.clone()), 15, "received outside");
    breaks(&removed(bobs), 2, "unexpected");
}

#[test]
fn a_member_misses_nothing() {
    use MemberChange::Joined;
    let mut script = Script::default();
    let members = vec!["alice".to_owned(), "bob".to_owned()];
    let op = Op::Create { user: "alice".into(), client_id: "g".into(), members };
    script.call(1, op, Answer::Created { conversation: "d".into() });
    for (at, name) in ["a", "b", "c"].iter().enumerate() {
        script.call(1, group_send(name), sent(at as u64 + 1));
    }
    let bobs = vec![member(1, "bob", Joined), item(2, "a", 1), item(3, "c", 3)];
    script.drain(1, "bob", bobs);
    breaks(&script, 15, "missed inside");
    breaks(&script, 1, "lost write");
}

#[test]
fn a_send_beside_a_change_of_members_may_reach_them_or_not() {
    let with = |reached: bool| {
        let mut script = Script::default();
        let members = vec!["alice".to_owned(), "bob".to_owned()];
        let op = Op::Create { user: "alice".into(), client_id: "g".into(), members };
        script.call(1, op, Answer::Created { conversation: "d".into() });
        let op = Op::Leave { user: "bob".into(), conversation: "d".into() };
        let leaving = script.begin(2, 1, op);
        script.call(1, group_send("a"), sent(1));
        script.ok(leaving, Answer::Members { count: 1 });
        script.drain(1, "alice", vec![item(1, "a", 1)]);
        let bobs = if reached { vec![item(1, "a", 1)] } else { vec![] };
        script.drain(1, "bob", bobs);
        script
    };
    holds(&with(true));
    holds(&with(false));
}

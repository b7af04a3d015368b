//! What each command does, and what it refuses.

use crate::support::*;
use roost_storage::command::{Actor, Attempt, Command, Effect, Rejection, Reply, Target};
use roost_storage::limits::{
    MAX_BODY_BYTES, MAX_CONTENT_TYPE_BYTES, MAX_FAN_OUT, MAX_MEMBERS_PER_COMMAND, MAX_NAME_BYTES,
    MAX_TTL_MS,
};
use roost_storage::model::{ConversationId, ConversationKind, Retention, Role};
use roost_storage::store::{Counts, HistoryRange, Payload, QueueBounds};

/// A send's conversation, sequence, time, and whether it was a duplicate.
pub(crate) fn sent(reply: Result<Reply, Rejection>) -> (String, u64, u64, bool) {
    match reply {
        Ok(Reply::Sent { conversation, seq, at_ms, duplicate }) => {
            (conversation.as_str().to_owned(), seq, at_ms, duplicate)
        }
        other => panic!("{other:?}"),
    }
}

/// The conversation of two users.
pub(crate) fn direct(a: &str, b: &str) -> String {
    ConversationId::direct(&user(a), &user(b)).as_str().to_owned()
}

fn forbidden(reply: &Result<Reply, Rejection>) -> bool {
    matches!(reply, Err(Rejection::Forbidden(_)))
}

/// Runs a command that must be refused, and must not leave a trace.
pub(crate) fn refused(node: &mut Node, command: Command) -> Rejection {
    let state = |node: &Node| (node.store.counts(), node.store.now_ms());
    let before = state(node);
    let mut other = Node::new();
    for entry in &node.log {
        entry.apply(&other.store).unwrap();
        other.log.push(entry.clone());
    }
    let rejection = node.run(command).unwrap_err();
    other.apply_at(0, vec![]);
    assert_eq!(state(node), before);
    assert_eq!(node.store.digest(), other.store.digest(), "a refusal leaves no trace");
    rejection
}

#[test]
fn a_send_to_a_user_makes_their_direct_conversation() {
    let mut node = Node::new();
    let first = sent(node.run_at(500, send_to("alice", "bob", "1", "hi")));
    assert_eq!(first, (direct("alice", "bob"), 1, 500, false));
    let second = sent(node.run_at(600, send_to("bob", "alice", "1", "ho")));
    assert_eq!(second, (direct("alice", "bob"), 2, 600, false));
    let id = direct("alice", "bob");
    for who in ["alice", "bob"] {
        assert_eq!(node.queue(who), [format!("1 {id}#1 alice: hi"), format!("2 {id}#2 bob: ho")]);
    }
    let record = node.store.conversation(&conversation(&id)).unwrap().unwrap();
    assert_eq!((record.kind, record.created_at_ms), (ConversationKind::Direct, 500));
    assert_eq!(node.store.members(&conversation(&id)).unwrap().len(), 2);
}

#[test]
fn a_user_can_send_to_itself() {
    let mut node = Node::new();
    let (id, ..) = sent(node.run(send_to("alice", "alice", "1", "note")));
    assert_eq!(node.queue("alice"), [format!("1 {id}#1 alice: note")]);
    assert_eq!(node.store.members(&conversation(&id)).unwrap().len(), 1);
}

#[test]
fn a_send_to_a_group_reaches_all_members_and_nobody_else() {
    let mut node = Node::new();
    let id = node.group("alice", &["bob", "carol"]);
    node.run(send_to("dave", "bob", "1", "psst")).unwrap();
    let applied = node.apply_at(0, vec![send("bob", &id, "1", "a"), send("bob", &id, "2", "b")]);
    let grew = |who: &str, seq| Effect::QueueGrew { user: user(who), seq };
    assert_eq!(applied.effects, [grew("alice", 3), grew("bob", 4), grew("carol", 3)]);
    assert_eq!(
        node.queue("carol"),
        [format!("1 carol joined {id}"), format!("2 {id}#1 bob: a"), format!("3 {id}#2 bob: b")]
    );
    assert_eq!(node.queue("dave").len(), 1);
}

#[test]
fn sending_reads_up_to_the_own_message() {
    let mut node = Node::new();
    let id = node.group("alice", &["bob"]);
    for n in 0..3 {
        node.run(send("alice", &id, &n.to_string(), "x")).unwrap();
    }
    let read = |node: &Node, who: &str| {
        let (list, more) = node.store.conversations(&user(who), None, 10, 0).unwrap();
        assert!(!more);
        (list[0].read, list[0].last.as_ref().map(|last| last.seq))
    };
    assert_eq!(read(&node, "alice"), (3, Some(3)));
    assert_eq!(read(&node, "bob"), (0, Some(3)));
    node.run(add(by("bob"), &id, &["carol"])).unwrap();
    assert_eq!(read(&node, "carol"), (3, Some(3)), "what was said before joining is not unread");
}

#[test]
fn sends_that_may_not_be_are_refused() {
    let mut node = Node::new();
    let id = node.group("alice", &["bob"]);
    let unknown = Rejection::NotFound("conversation".to_owned());
    assert_eq!(refused(&mut node, send("alice", "g-9-9", "1", "x")), unknown);
    assert_eq!(refused(&mut node, send("carol", &id, "1", "x")), Rejection::NotAMember);
    let never_made = direct("alice", "bob");
    assert_eq!(refused(&mut node, send("alice", &never_made, "1", "x")), unknown);
    node.run(delete(&id)).unwrap();
    assert_eq!(refused(&mut node, send("alice", &id, "1", "x")), unknown);
    assert_eq!(node.store.counts().users, 2, "a refused sender is not named");
}

#[test]
fn sizes_are_checked_before_anything() {
    let mut node = Node::new();
    let with = |body: usize, content_type: Option<usize>, ttl_ms| Command::Send {
        sender: user("alice"),
        target: Target::User(user("bob")),
        client_id: client_id("1"),
        attempt: Attempt(1),
        body: vec![0xff; body].into(),
        content_type: content_type.map(|len| "t".repeat(len).into()),
        ttl_ms,
    };
    let too_large = [
        with(MAX_BODY_BYTES + 1, None, None),
        with(1, Some(MAX_CONTENT_TYPE_BYTES + 1), None),
        create("alice", ConversationKind::Group, &["bob"; MAX_MEMBERS_PER_COMMAND + 1], "1"),
        add(Actor::Admin, "g-0-1", &["bob"; MAX_MEMBERS_PER_COMMAND + 1]),
        remove(Actor::Admin, "g-0-1", &["bob"; MAX_MEMBERS_PER_COMMAND + 1]),
    ];
    for command in too_large {
        assert!(matches!(refused(&mut node, command), Rejection::TooLarge(_)));
    }
    for ttl_ms in [0, MAX_TTL_MS + 1] {
        let command = with(1, None, Some(ttl_ms));
        assert!(matches!(refused(&mut node, command), Rejection::BadRequest(_)));
    }
    let largest = with(MAX_BODY_BYTES, Some(MAX_CONTENT_TYPE_BYTES), Some(MAX_TTL_MS));
    node.run(largest).unwrap();
    let mut long_name = group("alice", &["bob"], "2");
    if let Command::CreateConversation { name, .. } = &mut long_name {
        *name = Some("n".repeat(MAX_NAME_BYTES + 1));
    }
    assert!(matches!(refused(&mut node, long_name), Rejection::TooLarge(_)));
}

#[test]
fn only_those_who_run_a_channel_send_to_it() {
    let mut node = Node::new();
    let made = node.run(create("alice", ConversationKind::Channel, &["bob"], "1")).unwrap();
    let id = conversation("c-0-1");
    assert_eq!(made, Reply::Created { conversation: id, duplicate: false });
    node.run(send("alice", "c-0-1", "2", "news")).unwrap();
    assert!(matches!(refused(&mut node, send("bob", "c-0-1", "1", "re")), Rejection::Forbidden(_)));
    let adding = add(by("bob"), "c-0-1", &["carol"]);
    assert!(matches!(refused(&mut node, adding), Rejection::Forbidden(_)));
    node.run(add(by("alice"), "c-0-1", &["carol"])).unwrap();
}

#[test]
fn a_message_lives_for_the_shorter_of_the_two_lifetimes() {
    let mut node = Node::new();
    let mut make = group("alice", &["bob"], "make");
    if let Command::CreateConversation { retention, .. } = &mut make {
        *retention = Retention::Ttl { ttl_ms: 1_000 };
    }
    node.run(make).unwrap();
    for (name, ttl) in [("short", Some(100)), ("long", Some(5_000)), ("none", None)] {
        let mut command = send("alice", "g-0-1", name, name);
        if let Command::Send { ttl_ms, .. } = &mut command {
            *ttl_ms = ttl;
        }
        node.run_at(10_000, command).unwrap();
    }
    let shown = |now_ms| {
        let items = queue(&node.store, "bob", now_ms);
        let expired = items.iter().filter(|item| short(item).ends_with("expired")).count();
        let page =
            node.store.history(&conversation("g-0-1"), HistoryRange::Newest, 9, now_ms).unwrap();
        assert_eq!(page.messages.len() + expired, 3);
        (items.len(), expired)
    };
    assert_eq!(shown(10_099), (4, 0));
    assert_eq!(shown(10_100), (4, 1));
    assert_eq!(shown(10_999), (4, 1));
    assert_eq!(shown(11_000), (4, 3));
}

#[test]
fn time_never_goes_back() {
    let mut node = Node::new();
    node.run_at(5_000, send_to("alice", "bob", "1", "a")).unwrap();
    assert_eq!(sent(node.run_at(4_000, send_to("alice", "bob", "2", "b"))).2, 5_000);
    assert_eq!(node.store.now_ms(), 5_000);
}

#[test]
fn a_direct_conversation_has_exactly_one_other_member() {
    let mut node = Node::new();
    let make =
        |others: &[&str], name: &str| create("alice", ConversationKind::Direct, others, name);
    for others in [&[][..], &["bob", "carol"]] {
        assert!(matches!(refused(&mut node, make(others, "1")), Rejection::BadRequest(_)));
    }
    let id = conversation(&direct("alice", "bob"));
    let created = |duplicate| Ok(Reply::Created { conversation: id.clone(), duplicate });
    assert_eq!(node.run(make(&["bob"], "1")), created(false));
    assert_eq!(node.run(make(&["bob", "alice"], "2")), created(true));
    assert_eq!(node.run(make(&["bob"], "2")), created(true), "also the retry says so");
    assert!(node.queue("bob").is_empty());
    node.run(make(&["alice"], "3")).unwrap();
    let id = direct("alice", "bob");
    assert!(forbidden(&node.run(add(by("alice"), &id, &["carol"]))));
    assert!(forbidden(&node.run(remove(Actor::Admin, &id, &["bob"]))));
    assert!(forbidden(&node.run(leave("alice", &id))));
    assert_eq!(node.run(leave("carol", &id)), Err(Rejection::NotAMember));
    node.run(delete(&id)).unwrap();
    let gone = Err(Rejection::NotFound("conversation".to_owned()));
    assert_eq!(node.run(make(&["bob"], "4")), gone);
    assert_eq!(node.run(send_to("alice", "bob", "5", "hi")), gone);
}

#[test]
fn adding_tells_the_old_members_of_each_and_the_new_ones_of_themselves() {
    let mut node = Node::new();
    let id = node.group("alice", &["bob"]);
    let count = node.run(add(by("bob"), &id, &["dave", "bob", "carol", "carol"]));
    assert_eq!(count, Ok(Reply::Members { count: 4 }));
    assert_eq!(
        node.queue("alice"),
        [
            format!("1 alice joined {id}"),
            format!("2 carol joined {id}"),
            format!("3 dave joined {id}")
        ]
    );
    assert_eq!(node.queue("carol"), [format!("1 carol joined {id}")]);
    assert_eq!(node.run(add(by("bob"), &id, &["carol"])), Ok(Reply::Members { count: 4 }));
    assert_eq!(node.queue("carol").len(), 1);
    let stranger = add(by("mallory"), &id, &["mallory"]);
    assert_eq!(refused(&mut node, stranger), Rejection::NotAMember);
    node.run(add(Actor::Admin, &id, &["erin"])).unwrap();
}

#[test]
fn the_cost_of_a_command_is_known_before() {
    let mut node = Node::new();
    let id = node.group("alice", &["bob", "carol"]);
    let commands = [
        (send("alice", &id, "1", "hi"), 3),
        (send_to("alice", "bob", "2", "hi"), 2),
        (group("alice", &["bob"], "3"), 2),
        (add(Actor::Admin, &id, &["dave", "erin"]), 8),
        (remove(Actor::Admin, &id, &["erin"]), 6),
        (leave("dave", &id), 4),
        (delete(&id), 3),
        (register("bob", "tv"), 0),
        (send("alice", "g-9-9", "4", "hi"), 0),
    ];
    for (command, due) in commands {
        node.store.checkpoint().unwrap();
        assert_eq!(node.store.view(|view| view.fan_out(&command)).unwrap(), due);
        let before = node.store.counts().references;
        let _ = node.run(command);
        assert!(node.store.counts().references - before <= due as u64);
    }
}

#[test]
fn one_command_appends_a_bounded_number_of_references() {
    let mut node = Node::new();
    let names: Vec<String> = (0..MAX_MEMBERS_PER_COMMAND).map(|n| format!("m{n}")).collect();
    let members: Vec<&str> = names.iter().map(String::as_str).collect();
    let id = node.group("alice", &members);
    let more: Vec<String> = (0..200).map(|n| format!("n{n}")).collect();
    let more: Vec<&str> = more.iter().map(String::as_str).collect();
    // Each of the 1,001 members is told of each of the new ones, who are told of themselves.
    let most = MAX_FAN_OUT / (MAX_MEMBERS_PER_COMMAND + 2);
    let too_many = add(Actor::Admin, &id, &more[..=most]);
    assert!(matches!(refused(&mut node, too_many), Rejection::TooLarge(_)));
    node.run(add(Actor::Admin, &id, &more[..most])).unwrap();
    node.run(send("m7", &id, "1", "hi")).unwrap();
    assert_eq!(node.store.queue_bounds(&user("alice")).unwrap().tail, 2 + most as u64);
    let too_many = remove(Actor::Admin, &id, &members[..most + 1]);
    assert!(matches!(refused(&mut node, too_many), Rejection::TooLarge(_)));
    node.run(delete(&id)).unwrap();
    node.store.recount().unwrap();
}

#[test]
fn owners_and_admins_remove_members_but_nobody_the_owner() {
    let mut node = Node::new();
    let id = node.group("alice", &["bob", "carol", "dave"]);
    let by_member = remove(by("bob"), &id, &["carol"]);
    assert!(matches!(refused(&mut node, by_member), Rejection::Forbidden(_)));
    let count = node.run(remove(by("alice"), &id, &["carol", "nobody"]));
    assert_eq!(count, Ok(Reply::Members { count: 3 }));
    assert_eq!(node.queue("carol")[1], format!("2 carol removed from {id}"));
    assert_eq!(node.queue("bob")[1], format!("2 carol removed from {id}"));
    let with_owner = remove(by("alice"), &id, &["alice", "bob"]);
    assert!(matches!(refused(&mut node, with_owner), Rejection::Forbidden(_)));
    node.run(remove(by("bob"), &id, &["bob"])).unwrap();
    assert_eq!(node.queue("dave")[2], format!("3 bob left {id}"));
    node.run(remove(Actor::Admin, &id, &["alice"])).unwrap();
    let members = node.store.members(&conversation(&id)).unwrap();
    assert_eq!(members[&user("dave")].role, Role::Owner);
    let (list, _) = node.store.conversations(&user("dave"), None, 10, 0).unwrap();
    assert_eq!(list[0].role, Role::Owner);
    assert_eq!(node.store.conversations(&user("alice"), None, 10, 0).unwrap(), (vec![], false));
}

#[test]
fn an_owner_who_leaves_hands_the_conversation_on() {
    let mut node = Node::new();
    let id = node.group("dave", &["bob", "carol"]);
    assert_eq!(node.run(leave("dave", &id)), Ok(Reply::Members { count: 2 }));
    assert_eq!(node.run(leave("dave", &id)), Err(Rejection::NotAMember));
    let members = node.store.members(&conversation(&id)).unwrap();
    assert_eq!(members[&user("bob")].role, Role::Owner);
    node.run(leave("bob", &id)).unwrap();
    node.run(leave("carol", &id)).unwrap();
    assert!(node.store.members(&conversation(&id)).unwrap().is_empty());
    // Without anybody, the next one to come owns it.
    node.run(add(Actor::Admin, &id, &["zoe", "yan"])).unwrap();
    let members = node.store.members(&conversation(&id)).unwrap();
    assert_eq!(members[&user("yan")].role, Role::Owner);
    assert_eq!(members[&user("zoe")].role, Role::Member);
    node.store.recount().unwrap();
}

#[test]
fn a_deleted_conversation_is_gone_and_its_items_say_so() {
    let mut node = Node::new();
    let id = node.group("alice", &["bob"]);
    node.run(send("alice", &id, "1", "hi")).unwrap();
    assert_eq!(node.run(delete(&id)), Ok(Reply::Deleted));
    assert_eq!(
        node.queue("bob"),
        [format!("1 bob joined {id}"), "2 expired".to_owned(), format!("3 bob removed from {id}")]
    );
    assert_eq!(node.store.conversation(&conversation(&id)).unwrap(), None);
    assert!(node.store.members(&conversation(&id)).unwrap().is_empty());
    let page = node.store.history(&conversation(&id), HistoryRange::Newest, 10, 0).unwrap();
    assert!(page.messages.is_empty() && !page.more);
    let gone = Err(Rejection::NotFound("conversation".to_owned()));
    assert_eq!(node.run(delete(&id)), gone);
    assert_eq!(node.run(add(Actor::Admin, &id, &["bob"])), gone);
    assert_eq!(node.run(leave("bob", &id)), gone);
    assert_eq!(node.store.counts().conversations, 0);
}

#[test]
fn an_unknown_user_has_an_empty_queue() {
    let node = Node::new();
    let bounds = node.store.queue_bounds(&user("nobody")).unwrap();
    assert_eq!(bounds, QueueBounds { head: 1, tail: 0 });
    for after in [0, 5, u64::MAX] {
        let page = node.store.queue_page(&user("nobody"), after, 10, 0).unwrap();
        assert!(page.items.is_empty() && !page.more);
    }
    assert_eq!(node.store.counts(), Counts::default());
}

#[test]
fn entries_apply_in_order_or_stop_the_store() {
    let node = Node::new();
    let at = |term, index| roost_storage::model::LogPosition { term, index };
    node.store.apply(at(2, 0), Payload::Membership(b"three nodes")).unwrap();
    node.store.apply(at(2, 1), Payload::Blank).unwrap();
    let state = node.store.applied_state();
    assert_eq!(state.applied, Some(at(2, 1)));
    assert_eq!(state.membership, Some((at(2, 0), b"three nodes".to_vec())));
    assert!(node.store.apply(at(2, 3), Payload::Blank).is_err());
    let stopped = node.store.apply(at(2, 2), Payload::Blank).unwrap_err();
    assert!(matches!(stopped, roost_storage::Fault::Stopped(_)));
    assert!(node.store.checkpoint().is_err());
}

#[test]
fn an_entry_that_does_not_decode_stops_the_store() {
    let node = Node::new();
    let at = roost_storage::model::LogPosition { term: 1, index: 0 };
    assert!(node.store.apply(at, Payload::Batch(b"\x01\xff\xff")).is_err());
    assert!(node.store.queue_bounds(&user("bob")).is_err());
    assert!(!node.store.wait_for_pressure());
}

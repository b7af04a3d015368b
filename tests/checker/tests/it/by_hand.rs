//! For each promise, the shortest history that breaks it, and one that nearly does.

use roost_checker::{Answer, History, Op, Verdict, svg};
use roost_protocol::ItemContent;

use crate::support::{
    Script, ack, connect, connected, duplicate, item, item_with, last_pull, page, pull, send,
    send_body, sent,
};

/// Two sends that everything went well with, read by both on two nodes.
pub(crate) fn sound() -> Script {
    let mut script = Script::default();
    script.call(1, send("a"), sent(1));
    script.call(1, send("b"), sent(2));
    for node in [1, 2] {
        script.drain(node, "alice", vec![item(1, "a", 1), item(2, "b", 2)]);
        script.drain(node, "bob", vec![item(1, "a", 1), item(2, "b", 2)]);
    }
    script
}

#[track_caller]
pub(crate) fn breaks(script: &Script, promise: u8, anomaly: &str) {
    let report = script.report();
    assert!(
        report.counts.keys().any(|&kind| kind == (promise, anomaly)),
        "no {anomaly}: {}",
        report.text(&script.history())
    );
    assert_eq!(report.verdict(), Verdict::Invalid);
}

#[track_caller]
pub(crate) fn holds(script: &Script) {
    let report = script.report();
    assert_eq!(report.verdict(), Verdict::Valid, "{}", report.text(&script.history()));
}

#[test]
fn a_sound_history_is_valid() {
    holds(&sound());
}

#[test]
fn an_acknowledged_send_that_one_node_lacks_is_a_lost_write() {
    let mut script = sound();
    script.call(1, send("c"), sent(3));
    script.drain(1, "bob", vec![item(1, "a", 1), item(2, "b", 2), item(3, "c", 3)]);
    script.drain(1, "alice", vec![item(1, "a", 1), item(2, "b", 2), item(3, "c", 3)]);
    breaks(&script, 1, "lost write");
    breaks(&script, 1, "lost after seen");
}

#[test]
fn a_send_whose_outcome_is_unknown_may_be_there_or_not() {
    for there in [true, false] {
        let mut script = Script::default();
        script.call(1, send("a"), sent(1));
        let begun = script.begin(1, 1, send("b"));
        script.unknown(begun);
        let mut items = vec![item(1, "a", 1)];
        items.extend(there.then(|| item(2, "b", 2)));
        script.drain(1, "alice", items.clone());
        script.drain(1, "bob", items);
        holds(&script);
    }
}

#[test]
fn what_was_never_looked_for_is_unseen_and_not_lost() {
    let mut script = Script::default();
    script.call(1, send("a"), sent(1));
    script.drain(1, "alice", vec![item(1, "a", 1)]);
    let report = script.report();
    assert_eq!((report.verdict(), report.unseen), (Verdict::Unknown, 1));
}

#[test]
fn an_item_that_nobody_sent_is_unexpected() {
    let mut script = sound();
    script.drain(3, "bob", vec![item(1, "a", 1), item(2, "b", 2), item(3, "x", 3)]);
    breaks(&script, 2, "unexpected");
}

#[test]
fn an_item_of_a_failed_send_is_an_aborted_read() {
    let mut script = sound();
    let begun = script.begin(1, 1, send("c"));
    script.fail(begun, "not_available");
    script.drain(3, "bob", vec![item(1, "a", 1), item(2, "b", 2), item(3, "c", 3)]);
    breaks(&script, 2, "aborted read");
}

#[test]
fn an_item_with_another_body_is_corrupt() {
    let mut script = sound();
    script.call(1, send("c"), sent(3));
    script.call(2, pull("bob", 2, false, None), page(vec![item_with(3, 3, "c", "?", 3)], 3));
    breaks(&script, 2, "corrupt");
}

#[test]
fn an_item_that_is_read_before_it_is_sent_is_a_future_read() {
    let mut script = Script::default();
    script.call(2, pull("bob", 0, false, None), page(vec![item(1, "a", 1)], 1));
    script.call(1, send("a"), sent(1));
    breaks(&script, 2, "future read");
}

#[test]
fn two_contents_at_one_place_are_an_inconsistent_offset() {
    let mut script = sound();
    script.drain(3, "bob", vec![item(1, "b", 2), item(2, "a", 1)]);
    breaks(&script, 3, "inconsistent offset");
}

#[test]
fn a_hole_in_a_queue_is_a_gap() {
    let mut script = sound();
    script.call(1, send("c"), sent(3));
    script.drain(3, "bob", vec![item(1, "a", 1), item(3, "c", 3)]);
    breaks(&script, 4, "gap");
}

#[test]
fn a_hole_in_a_conversation_is_a_gap() {
    let mut script = sound();
    let op = Op::History { user: "bob".into(), conversation: "d".into(), after: 0, last: true };
    let messages = [item(2, "b", 2)].map(|item| match item.content {
        ItemContent::Message { message, .. } => message,
        _ => unreachable!(),
    });
    script.call(2, op, Answer::Messages { messages: messages.into(), more: false });
    breaks(&script, 4, "gap");
    breaks(&script, 10, "dangling reference");
}

#[test]
fn a_send_that_is_stored_twice_is_a_duplicate() {
    let mut script = Script::default();
    let begun = script.begin(1, 1, send("a"));
    script.unknown(begun);
    script.call(1, send("a"), sent(2));
    script.drain(1, "bob", vec![item(1, "a", 1), item(2, "a", 2)]);
    script.drain(1, "alice", vec![item(1, "a", 1), item(2, "a", 2)]);
    breaks(&script, 5, "duplicate");
}

#[test]
fn a_repetition_gets_the_first_reply() {
    let mut script = Script::default();
    let begun = script.begin(1, 1, send("a"));
    script.unknown(begun);
    script.call(1, send("a"), duplicate(1));
    let begun = script.begin(1, 1, send_body("a", "other"));
    script.fail(begun, "client_id_reused");
    script.drain(1, "bob", vec![item(1, "a", 1)]);
    script.drain(1, "alice", vec![item(1, "a", 1)]);
    holds(&script);
}

#[test]
fn two_replies_that_differ_are_duplicates() {
    let mut script = sound();
    script.call(1, send("a"), duplicate(2));
    breaks(&script, 5, "duplicate");
    breaks(&script, 5, "not linearizable");
}

#[test]
fn another_body_under_a_client_id_must_be_refused() {
    let mut script = sound();
    script.call(1, send_body("a", "other"), duplicate(1));
    breaks(&script, 5, "reused client id");
}

#[test]
fn a_first_attempt_cannot_be_a_duplicate() {
    let mut script = sound();
    script.call(1, send("c"), duplicate(3));
    breaks(&script, 5, "false duplicate");
}

#[test]
fn a_page_that_passes_over_an_item_is_a_poll_skip() {
    let mut script = sound();
    script.call(2, pull("bob", 0, false, None), page(vec![item(2, "b", 2)], 2));
    breaks(&script, 6, "poll skip");
    let mut script = sound();
    script.call(1, send("c"), sent(3));
    script.call(2, pull("bob", 0, false, None), page(vec![item(1, "a", 1), item(3, "c", 3)], 2));
    breaks(&script, 6, "internal poll skip");
}

#[test]
fn a_page_that_ends_below_its_tail_must_say_that_there_is_more() {
    let short = |more| {
        let mut script = sound();
        let items = vec![item(1, "a", 1)];
        let answer = Answer::Items { items, head: 1, tail: 2, more, applied: 2 };
        script.call(2, pull("bob", 0, false, None), answer);
        script
    };
    holds(&short(true));
    breaks(&short(false), 6, "poll skip");
}

#[test]
fn a_page_that_goes_back_is_a_nonmonotonic_poll() {
    let mut script = sound();
    script.call(2, pull("bob", 1, false, None), page(vec![item(1, "a", 1), item(2, "b", 2)], 2));
    breaks(&script, 6, "nonmonotonic poll");
    let mut script = sound();
    script.call(2, pull("bob", 0, false, None), page(vec![item(1, "a", 1), item(1, "a", 1)], 2));
    breaks(&script, 6, "internal nonmonotonic poll");
}

#[test]
fn pushes_go_on_where_the_connection_was() {
    let stream = |first: u64, second: u64| {
        let mut script = sound();
        let begun = script.begin(2, 1, connect(Some(0)));
        script.ok(begun, connected(2, 0));
        let names = ["", "a", "b"];
        for seq in [first, second] {
            script.pushed("bob", begun, vec![item(seq, names[seq as usize], seq)]);
        }
        script
    };
    holds(&stream(1, 2));
    breaks(&stream(2, 2), 6, "poll skip");
    breaks(&stream(1, 1), 6, "nonmonotonic poll");
}

#[test]
fn a_linearizable_read_without_a_completed_send_is_stale() {
    let mut script = sound();
    script.call(2, pull("bob", 0, true, None), page(vec![item(1, "a", 1)], 1));
    breaks(&script, 7, "stale read");
    // A default read may lag.
    let mut script = sound();
    script.call(2, pull("bob", 0, false, None), page(vec![item(1, "a", 1)], 1));
    holds(&script);
}

#[test]
fn a_read_that_began_before_the_ack_may_miss_it() {
    let mut script = Script::default();
    let begun = script.begin(2, 1, pull("bob", 0, true, None));
    script.call(1, send("a"), sent(1));
    script.ok(begun, page(vec![], 0));
    script.drain(1, "alice", vec![item(1, "a", 1)]);
    script.drain(1, "bob", vec![item(1, "a", 1)]);
    holds(&script);
}

#[test]
fn a_client_that_carries_its_index_is_not_shown_less() {
    let with = |carried| {
        let mut script = sound();
        let both = vec![item(1, "a", 1), item(2, "b", 2)];
        script.call(2, pull("bob", 0, false, None), page(both, 2));
        script.call(2, pull("bob", 0, false, carried), page(vec![item(1, "a", 1)], 1));
        script
    };
    breaks(&with(Some(2)), 7, "nonmonotonic read");
    holds(&with(None));
    let mut script = sound();
    script.call(1, pull("alice", 0, false, Some(2)), page(vec![item(1, "a", 1)], 1));
    breaks(&script, 7, "own write unseen");
}

#[test]
fn sends_one_after_the_other_keep_their_order() {
    let mut script = Script::default();
    script.call(1, send("a"), sent(2));
    script.call(2, send("b"), sent(1));
    for user in ["alice", "bob"] {
        script.drain(1, user, vec![item(1, "b", 1), item(2, "a", 2)]);
    }
    breaks(&script, 8, "real-time reorder");
    // Overlapping ones may come in any order.
    let mut script = Script::default();
    let begun = script.begin(1, 1, send("a"));
    script.call(2, send("b"), sent(1));
    script.ok(begun, sent(2));
    for user in ["alice", "bob"] {
        script.drain(1, user, vec![item(1, "b", 1), item(2, "a", 2)]);
    }
    holds(&script);
}

#[test]
fn a_message_in_one_recipients_queue_only_is_a_partial_fan_out() {
    let mut script = Script::default();
    let begun = script.begin(1, 1, send("a"));
    script.unknown(begun);
    script.drain(1, "alice", vec![item(1, "a", 1)]);
    script.drain(1, "bob", vec![]);
    breaks(&script, 9, "partial fan-out");
}

#[test]
fn a_node_that_applied_a_send_shows_it_to_every_recipient() {
    let mut script = sound();
    script.call(2, pull("bob", 0, false, None), page(vec![item(1, "a", 1)], 2));
    breaks(&script, 9, "partial fan-out");
}

fn status(references: u64, digest: &str) -> Answer {
    Answer::Status {
        applied: 2,
        digest: digest.into(),
        users: 2,
        conversations: 1,
        messages: 2,
        references,
    }
}

#[test]
fn counts_are_what_a_full_reading_finds() {
    let mut script = sound();
    script.call(9, Op::Status {}, status(4, "x"));
    holds(&script);
    let mut script = sound();
    script.call(9, Op::Status {}, status(5, "x"));
    breaks(&script, 10, "count mismatch");
}

#[test]
fn equal_indices_have_equal_digests() {
    let mut script = sound();
    script.call(9, Op::Status {}, status(4, "x"));
    script.call(9, Op::Status {}, status(4, "y"));
    breaks(&script, 13, "diverged");
}

#[test]
fn the_logs_time_rises_and_is_the_same_everywhere() {
    let mut script = Script::default();
    script.call(1, send("a"), sent(1));
    script.call(1, send("b"), sent(2));
    let back = vec![item(1, "a", 1), item_with(2, 2, "b", "body of b", 0)];
    for user in ["alice", "bob"] {
        script.drain(1, user, back.clone());
    }
    breaks(&script, 11, "time went back");
    breaks(&script, 11, "two times");
}

#[test]
fn a_cursor_does_not_go_back() {
    let after = |cursor| {
        let mut script = sound();
        script.call(2, ack(2), Answer::Acked { cursor: 2 });
        script.call(2, connect(None), connected(2, cursor));
        script
    };
    holds(&after(2));
    breaks(&after(1), 12, "cursor went back");
    breaks(&after(1), 12, "not linearizable");
    breaks(&after(3), 12, "cursor past the tail");
    breaks(&after(3), 12, "invented cursor");
}

#[test]
fn an_acknowledgement_whose_outcome_is_unknown_may_count_late() {
    let mut script = sound();
    let begun = script.begin(2, 1, ack(2));
    script.unknown(begun);
    script.call(3, connect(None), connected(2, 0));
    script.call(3, connect(None), connected(2, 2));
    holds(&script);
    script.call(3, connect(None), connected(2, 0));
    breaks(&script, 12, "not linearizable");
}

#[test]
fn a_history_survives_its_lines() {
    let history = sound().history();
    let mut lines = Vec::new();
    history.write(&mut lines).unwrap();
    assert_eq!(History::read(lines.as_slice()).unwrap(), history);
    let error = History::read(&b"\n{\"time_ns\":1}\n"[..]).unwrap_err();
    assert!(error.to_string().starts_with("line 2:"), "{error}");
}

#[test]
fn a_violation_has_a_picture_with_its_calls_and_faults() {
    let mut script = Script::default();
    let fault = Op::Fault { name: "kill".into(), nodes: vec![2] };
    let fault = script.begin(0, 2, fault);
    script.call(1, send("a<b"), sent(1));
    script.drain(1, "bob", vec![]);
    let begun = script.begin(99, 1, last_pull("alice"));
    script.unknown(begun);
    script.ok(fault, Answer::Ended {});
    let report = script.report();
    let violation = report.violations.iter().find(|one| one.anomaly == "lost write").unwrap();
    assert_eq!(violation.events, [1, 2, 4], "the send's two ends, and the reading without it");
    let picture = svg::draw(&script.history(), violation);
    assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"));
    for part in ["kill [2]", "a&lt;b", "process 1", "process 99"] {
        assert!(picture.contains(part), "no {part} in {picture}");
    }
    assert!(!picture.contains("a<b"));
}

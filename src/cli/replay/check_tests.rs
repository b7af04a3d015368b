//! The check against fabricated queues: it must pass the right one, and fail each wrong one.

use super::super::ledger::{Acknowledged, Page};
use super::*;

const PREFIX: &str = "p";

/// Two days that u1 and u2 share: three messages on the first, two on the second.
fn world() -> (Trace, Ledger) {
    let text = "d1\t00:00\tsay\tu1\tone\nd1\t00:01\tsay\tu2\ttwo\nd1\t00:02\tsay\tu1\tthree\n\
        d2\t00:00\tsay\tu2\tfour\nd2\t00:01\tsay\tu1\tfive\n";
    let trace = Trace::parse(text.as_bytes(), 99).unwrap();
    let page = |conversation: &str, times: &[(u64, u64)]| {
        let entry = |(say, (started_us, acknowledged_us)): (usize, &(u64, u64))| Acknowledged {
            seq: say as u64 + 1,
            say: say as u32,
            started_us: *started_us,
            acknowledged_us: *acknowledged_us,
        };
        Page {
            conversation: conversation.into(),
            acknowledged: times.iter().enumerate().map(entry).collect(),
        }
    };
    // The days run side by side; d1's last message begins after d2's first was acknowledged.
    let pages =
        vec![page("c1", &[(10, 20), (21, 30), (45, 50)]), page("c2", &[(15, 40), (41, 60)])];
    let ledger = Ledger::new(&trace, pages);
    (trace, ledger)
}

fn message(
    conversation: &'static str,
    seq: u64,
    sender: &'static str,
    body: &'static str,
    client_id: &'static str,
) -> Content<'static> {
    Content::Message { conversation, seq, sender, body, client_id }
}

fn join(conversation: &'static str) -> Content<'static> {
    Content::Joined { conversation, user: "u1" }
}

/// The queue of u1 as it should be.
fn right() -> Vec<Content<'static>> {
    vec![
        join("c1"),
        join("c2"),
        message("c1", 1, "u1", "one", "p-1"),
        message("c1", 2, "u2", "two", "p-2"),
        message("c2", 1, "u2", "four", "p-4"),
        message("c1", 3, "u1", "three", "p-3"),
        message("c2", 2, "u1", "five", "p-5"),
    ]
}

/// Checks a queue of these items with dense sequences.
fn check(items: &[Content<'_>]) -> Faults {
    let numbered: Vec<_> =
        (1..).zip(items).map(|(seq, content)| Seen { seq, content: *content }).collect();
    check_seen(&numbered, 1, items.len() as u64)
}

fn check_seen(items: &[Seen<'_>], head: u64, tail: u64) -> Faults {
    let (trace, ledger) = world();
    let mut check = QueueCheck::new(&trace, &ledger, PREFIX, 0);
    for item in items {
        check.item(*item);
    }
    let (count, faults) = check.finish(head, tail);
    assert_eq!(count, items.len() as u64);
    faults
}

#[test]
fn the_right_queue_has_no_fault() {
    assert_eq!(check(&right()), Faults::default());
}

#[test]
fn a_lost_message_is_noticed() {
    for missing in 2..right().len() {
        let mut items = right();
        items.remove(missing);
        let faults = check(&items);
        assert_eq!((faults.lost, faults.duplicated, faults.unexpected), (1, 0, 0), "{faults:?}");
        assert_eq!(faults.examples.len(), 1);
    }
}

#[test]
fn an_empty_queue_has_lost_everything() {
    assert_eq!(check(&[]).lost, right().len() as u64);
}

#[test]
fn a_lost_join_is_noticed() {
    assert_eq!(check(&right()[1..]).lost, 1);
}

#[test]
fn a_duplicate_is_noticed_wherever_it_stands() {
    for (from, to) in [(2, 3), (2, 7), (6, 7)] {
        let mut items = right();
        items.insert(to, items[from]);
        let faults = check(&items);
        assert_eq!((faults.duplicated, faults.lost, faults.unexpected), (1, 0, 0), "{faults:?}");
    }
    let mut items = right();
    items.push(join("c1"));
    assert_eq!(check(&items).duplicated, 1);
}

#[test]
fn swapped_messages_of_one_conversation_are_noticed() {
    let mut items = right();
    items.swap(2, 3);
    let faults = check(&items);
    assert_eq!((faults.out_of_order, faults.lost, faults.duplicated), (1, 0, 0), "{faults:?}");
}

#[test]
fn an_order_across_conversations_against_real_time_is_noticed() {
    let mut items = right();
    // c2's first was acknowledged at 40, before c1's third was sent at 45.
    items.swap(4, 5);
    assert_eq!(check(&items).out_of_order, 1);
}

#[test]
fn messages_that_were_in_flight_together_may_stand_in_either_order() {
    let mut items = right();
    // c1's second was in flight from 21 to 30, c2's first from 15 to 40.
    items.swap(3, 4);
    assert_eq!(check(&items), Faults::default());
}

#[test]
fn a_join_after_messages_is_out_of_order() {
    let mut items = right();
    items.swap(0, 2);
    assert_eq!(check(&items).out_of_order, 1);
}

#[test]
fn an_item_that_nobody_sent_is_noticed() {
    for extra in [
        message("c1", 4, "u1", "one", "p-1"),
        message("c2", 9, "u1", "x", "q"),
        Content::Other { conversation: Some("c1") },
    ] {
        let mut items = right();
        items.push(extra);
        let faults = check(&items);
        assert_eq!((faults.unexpected, faults.lost), (1, 0), "{faults:?}");
    }
}

#[test]
fn messages_beyond_the_limit_are_those_of_an_earlier_replay() {
    let text = "d1\t00:00\tsay\tu1\tone\nd1\t00:01\tsay\tu1\ttwo\n";
    let trace = Trace::parse(text.as_bytes(), 1).unwrap();
    let entry = Acknowledged { seq: 1, say: 0, started_us: 0, acknowledged_us: 1 };
    let page = Page { conversation: "c1".into(), acknowledged: vec![entry] };
    let ledger = Ledger::new(&trace, vec![page]);
    let unexpected = |client_id: &'static str| {
        let mut check = QueueCheck::new(&trace, &ledger, PREFIX, 0);
        let items = [
            join("c1"),
            message("c1", 1, "u1", "one", "p-1"),
            message("c1", 2, "u1", "two", client_id),
        ];
        for (seq, content) in (1..).zip(items) {
            check.item(Seen { seq, content });
        }
        check.finish(1, 3).1.unexpected
    };
    assert_eq!((unexpected("p-2"), unexpected("p-1"), unexpected("q-2")), (0, 1, 1));
}

#[test]
fn another_text_sender_or_client_id_is_noticed() {
    for wrong in [
        message("c1", 1, "u1", "two", "p-1"),
        message("c1", 1, "u2", "one", "p-1"),
        message("c1", 1, "u1", "one", "p-2"),
        message("c1", 1, "u1", "one", "q-1"),
    ] {
        let mut items = right();
        items[2] = wrong;
        let faults = check(&items);
        assert_eq!((faults.altered, faults.lost, faults.unexpected), (1, 0, 0), "{faults:?}");
    }
}

#[test]
fn a_gap_or_repetition_in_the_queues_own_sequence_is_noticed() {
    let numbered = |sequences: [u64; 7]| {
        let items: Vec<_> = sequences
            .into_iter()
            .zip(right())
            .map(|(seq, content)| Seen { seq, content })
            .collect();
        check_seen(&items, 1, 7).gaps
    };
    assert_eq!(numbered([1, 2, 3, 4, 5, 6, 7]), 0);
    assert!(numbered([1, 2, 3, 5, 6, 7, 8]) > 0);
    assert!(numbered([1, 2, 3, 3, 5, 6, 7]) > 0);
    assert!(numbered([2, 3, 4, 5, 6, 7, 8]) > 0);
}

#[test]
fn a_tail_beyond_the_last_item_is_a_gap() {
    let items: Vec<_> = (1..).zip(right()).map(|(seq, content)| Seen { seq, content }).collect();
    assert_eq!(check_seen(&items, 1, 8).gaps, 1);
    assert_eq!(check_seen(&items, 3, 7).gaps, 1);
}

#[test]
fn items_of_other_conversations_are_left_alone() {
    let mut items = right();
    items.insert(3, message("elsewhere", 1, "u9", "x", "y"));
    items.push(Content::Other { conversation: None });
    assert_eq!(check(&items), Faults::default());
}

#[test]
fn a_conversation_of_which_the_user_is_no_member_is_unexpected() {
    let text = "d1\t00:00\tsay\tu1\tone\nd2\t00:00\tsay\tu2\ttwo\n";
    let trace = Trace::parse(text.as_bytes(), 99).unwrap();
    let entry = Acknowledged { seq: 1, say: 0, started_us: 0, acknowledged_us: 1 };
    let page =
        |conversation: &str| Page { conversation: conversation.into(), acknowledged: vec![entry] };
    let ledger = Ledger::new(&trace, vec![page("c1"), page("c2")]);
    let mut check = QueueCheck::new(&trace, &ledger, PREFIX, 0);
    let items =
        [join("c1"), message("c1", 1, "u1", "one", "p-1"), message("c2", 1, "u2", "two", "p-2")];
    for (seq, content) in (1..).zip(items) {
        check.item(Seen { seq, content });
    }
    assert_eq!(check.finish(1, 3).1.unexpected, 1);
}

#[test]
fn faults_of_many_queues_add_up_with_few_examples() {
    let mut sum = Faults::default();
    for _ in 0..20 {
        sum.add(check(&right()[..6]));
    }
    assert_eq!(sum.lost, 20);
    assert_eq!(sum.examples.len(), MAX_EXAMPLES);
    assert!(!sum.none());
}

//! A sound run passes whatever its seed; the same run with one item spoilt does not.

use proptest::prelude::*;
use roost_checker::{Answer, History, Verdict, check};
use roost_protocol::{Item, ItemContent};

use crate::service::history;
use crate::support::{Script, item, send, sent};

/// A way to spoil a page.
#[derive(Debug, Clone, Copy)]
enum Spoil {
    /// An item is missing, the last one too: a page says whether there is more.
    Drop,
    /// An item comes twice in a row, as two places.
    Double,
    /// Two items have changed their contents.
    Swap,
    /// From an item on, everything stands one higher.
    Shift,
    /// A body is another one.
    Body,
}

fn spoil(items: &mut Vec<Item>, at: usize, how: Spoil) {
    let at = at % items.len();
    match how {
        Spoil::Drop => {
            items.remove(at);
        }
        Spoil::Double => {
            let again = items[at].clone();
            items.insert(at, again);
            for (n, item) in items.iter_mut().enumerate().skip(at) {
                item.seq = n as u64 + 1;
            }
        }
        Spoil::Swap => {
            let other = (at + 1) % items.len();
            let content = items[at].content.clone();
            items[at].content = std::mem::replace(&mut items[other].content, content);
        }
        Spoil::Shift => items[at..].iter_mut().for_each(|item| item.seq += 1),
        Spoil::Body => {
            if let ItemContent::Message { message, .. } = &mut items[at].content {
                message.body = "spoilt".into();
            }
        }
    }
}

/// The answers with at least two items, the last readings among them.
fn pages(history: &mut History) -> Vec<&mut Vec<Item>> {
    let answers = history.events.iter_mut().filter_map(|event| event.answer.as_mut());
    let items = answers.filter_map(|answer| match answer {
        // A page that begins at 1, so that places and sequences agree.
        Answer::Items { items, .. } if items.len() > 1 && items[0].seq == 1 => Some(items),
        _ => None,
    });
    items.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_sound_run_is_valid(seed: u64) {
        let history = history(seed, 300);
        let report = check(&history);
        prop_assert_eq!(report.verdict(), Verdict::Valid, "{}", report.text(&history));
    }

    #[test]
    fn a_spoilt_run_is_caught(
        seed: u64,
        page: prop::sample::Index,
        at: usize,
        how in prop::sample::select(
            vec![Spoil::Drop, Spoil::Double, Spoil::Swap, Spoil::Shift, Spoil::Body]
        ),
    ) {
        let mut history = history(seed, 300);
        let mut pages = pages(&mut history);
        let page = page.get_mut(&mut pages);
        spoil(page, at, how);
        let report = check(&history);
        prop_assert_eq!(report.verdict(), Verdict::Invalid);
    }
}

#[test]
fn a_long_history_is_no_trouble() {
    // A check that looked at everything for each event would not end within any test's patience.
    let mut script = Script::default();
    let sends = 40_000;
    for seq in 1..=sends {
        script.call(1, send(&seq.to_string()), sent(seq));
    }
    for user in ["alice", "bob"] {
        let items = (1..=sends).map(|seq| item(seq, &seq.to_string(), seq)).collect();
        script.drain(1, user, items);
    }
    assert_eq!(script.report().verdict(), Verdict::Valid);
}

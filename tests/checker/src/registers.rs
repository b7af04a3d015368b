//! The registers that are small enough to search for a linear order: a device's cursor and a dedup
//! key. (Read markers will be a third; the server does not have them yet.)

use std::collections::HashMap;
use std::marker::PhantomData;

use crate::history::{Answer, Op, Stage};
use crate::index::{Call, Index};
use crate::linear::{Found, Register, Timed, search};
use crate::report::Report;

/// Configurations that a search may look at.
const MOST_CONFIGURATIONS: usize = 50_000;

/// A device's cursor: acknowledging moves it to the maximum; connecting reads it.
struct Cursor;

#[derive(Debug, Clone, Copy)]
enum CursorCall {
    Ack { seq: u64, shown: Option<u64> },
    Read { shown: u64 },
}

impl Register for Cursor {
    type State = u64;
    type Call = CursorCall;

    fn initial(&self) -> u64 {
        0
    }

    fn step(&self, state: &u64, call: &CursorCall) -> Option<u64> {
        match *call {
            CursorCall::Ack { seq, shown } => {
                let after = (*state).max(seq);
                shown.is_none_or(|shown| shown == after).then_some(after)
            }
            CursorCall::Read { shown } => (shown == *state).then_some(*state),
        }
    }
}

/// A dedup key, of calls that borrow from a history: the first body that is stored under it stays,
/// at one place.
struct DedupKey<'h>(PhantomData<&'h str>);

#[derive(Debug, Clone)]
struct DedupCall<'h> {
    body: &'h str,
    answer: DedupAnswer<'h>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum DedupAnswer<'h> {
    Unknown,
    Stored { place: (&'h str, u64), duplicate: bool },
    Reused,
}

/// What is stored: the body, and where, once somebody was told.
type Stored<'h> = Option<(&'h str, Option<(&'h str, u64)>)>;

impl<'h> Register for DedupKey<'h> {
    type State = Stored<'h>;
    type Call = DedupCall<'h>;

    fn initial(&self) -> Stored<'h> {
        None
    }

    fn step(&self, state: &Stored<'h>, call: &DedupCall<'h>) -> Option<Stored<'h>> {
        match (&call.answer, state) {
            (DedupAnswer::Unknown, None) => Some(Some((call.body, None))),
            (DedupAnswer::Unknown, stored) => Some(*stored),
            (DedupAnswer::Stored { place, duplicate: false }, None) => {
                Some(Some((call.body, Some(*place))))
            }
            (DedupAnswer::Stored { place, duplicate: true }, Some((body, known))) => {
                let same = *body == call.body && known.is_none_or(|known| known == *place);
                same.then_some(Some((*body, Some(*place))))
            }
            (DedupAnswer::Stored { .. }, _) => None,
            (DedupAnswer::Reused, Some((body, _))) => (*body != call.body).then_some(*state),
            (DedupAnswer::Reused, None) => None,
        }
    }
}

pub(crate) fn check(index: &Index<'_>, report: &mut Report) {
    cursors(index, report);
    dedup_keys(index, report);
}

fn cursors(index: &Index<'_>, report: &mut Report) {
    let mut devices: HashMap<(&str, &str), Vec<Timed<CursorCall>>> = HashMap::new();
    for call in &index.calls {
        let (key, cursor) = match (call.op, call.answer) {
            (Op::Ack { user, device, seq }, answer) => {
                let shown = match answer {
                    Some(Answer::Acked { cursor }) => Some(*cursor),
                    _ if call.stage == Stage::Fail => continue,
                    _ => None,
                };
                ((user, device), CursorCall::Ack { seq: *seq, shown })
            }
            // One that says where it is may be let in by a node that knows no leader.
            (
                Op::Connect { user, device, after: None, .. },
                Some(Answer::Connected { cursor, .. }),
            ) => ((user, device), CursorCall::Read { shown: *cursor }),
            _ => continue,
        };
        let timed = timed(call, cursor);
        devices.entry((key.0, key.1)).or_default().push(timed);
    }
    for ((user, device), calls) in devices {
        let found = search(&Cursor, &calls, MOST_CONFIGURATIONS);
        say(report, 12, &format!("the cursor of {user}'s {device}"), found, &calls);
    }
}

fn dedup_keys(index: &Index<'_>, report: &mut Report) {
    // One that is stored twice is a window's end, or a violation of its own.
    for (key, attempts) in index.attempts.iter().filter(|(key, _)| index.is_stored_once(**key)) {
        let calls: Vec<_> = attempts
            .calls
            .iter()
            .filter_map(|&at| {
                let call = &index.calls[at];
                let Op::Send { body, .. } = call.op else { return None };
                let answer = match (call.stage, call.answer) {
                    (Stage::Ok, Some(Answer::Sent { conversation, seq, duplicate, .. })) => {
                        DedupAnswer::Stored { place: (conversation, *seq), duplicate: *duplicate }
                    }
                    (Stage::Fail, _) if call.error == Some("client_id_reused") => {
                        DedupAnswer::Reused
                    }
                    (Stage::Fail, _) => return None,
                    _ => DedupAnswer::Unknown,
                };
                Some(timed(call, DedupCall { body, answer }))
            })
            .collect();
        let found = search(&DedupKey(PhantomData), &calls, MOST_CONFIGURATIONS);
        say(report, 5, &format!("the dedup key of {}'s send {}", key.0, key.1), found, &calls);
    }
}

fn timed<C>(call: &Call<'_>, inner: C) -> Timed<C> {
    let known = matches!(call.stage, Stage::Ok | Stage::Fail);
    Timed { begin: call.begin, end: call.end.filter(|_| known), call: inner }
}

fn say<C>(report: &mut Report, promise: u8, what: &str, found: Found, calls: &[Timed<C>]) {
    match found {
        Found::Order => {}
        Found::Undecided => report.undecided += 1,
        Found::None { longest } => {
            let mut order: Vec<&Timed<C>> = calls.iter().collect();
            order.sort_by_key(|call| call.begin);
            // The calls about the place where every order gets stuck.
            let about = order.iter().skip(longest.saturating_sub(2)).take(4);
            let events: Vec<usize> =
                about.flat_map(|call| std::iter::once(call.begin).chain(call.end)).collect();
            let what = || format!("no linear order explains {what}: stuck after {longest} calls");
            report.add(promise, "not linearizable", what, &events);
        }
    }
}

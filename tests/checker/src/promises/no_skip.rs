//! Promise 6: paging from a cursor gives exactly the next items, also on another node.
//!
//! *Internal poll skip* and *internal nonmonotonic poll*: within one page. *Poll skip* and
//! *nonmonotonic poll*: between what was asked for, or pushed before on the same connection, and
//! what came. A page that says that nothing more is there, and ends below the tail that it names, is
//! a *poll skip* too: whoever believes it stops there.

use std::collections::HashMap;

use roost_protocol::Item;

use crate::history::{Answer, Op};
use crate::index::{Call, Index};
use crate::report::Report;

const PROMISE: u8 = 6;

pub(crate) fn check(index: &Index<'_>, report: &mut Report) {
    let mut streams = streams(index);
    for call in &index.calls {
        let (Some(Answer::Items { items, head, tail, .. }), Some(end)) = (call.answer, call.end)
        else {
            continue;
        };
        within(report, items, end);
        match call.op {
            Op::Pull { after, .. } => {
                page(index, report, call, *after, (*head, *tail), items);
                ended(index, report, call);
            }
            Op::Push { connection, .. } => {
                if let Some(stream) = streams.get_mut(connection) {
                    pushed(report, stream, items, end);
                }
            }
            _ => {}
        }
    }
}

/// Within a page, each item follows the one before.
fn within(report: &mut Report, items: &[Item], event: usize) {
    for pair in items.windows(2) {
        let (one, next) = (pair[0].seq, pair[1].seq);
        let anomaly = if next > one + 1 {
            "internal poll skip"
        } else if next <= one {
            "internal nonmonotonic poll"
        } else {
            continue;
        };
        report.add(PROMISE, anomaly, || format!("{next} follows {one} in one page"), &[event]);
    }
}

fn page(
    index: &Index<'_>,
    report: &mut Report,
    call: &Call<'_>,
    after: u64,
    (head, tail): (u64, u64),
    items: &[Item],
) {
    let expected = (after + 1).max(head);
    let what = |got: String| move || format!("after {after}, {expected} was expected: {got}");
    match items.first() {
        Some(item) if item.seq > expected => {
            let what = what(format!("{} came", item.seq));
            report.add(PROMISE, "poll skip", what, &index.both_ends(call));
        }
        Some(item) if item.seq < expected => {
            let what = what(format!("{} came", item.seq));
            report.add(PROMISE, "nonmonotonic poll", what, &index.both_ends(call));
        }
        None if tail >= expected => {
            let what = what(format!("nothing came, with a tail of {tail}"));
            report.add(PROMISE, "poll skip", what, &index.both_ends(call));
        }
        _ => {}
    }
}

/// A page without more has everything up to its own tail.
fn ended(index: &Index<'_>, report: &mut Report, call: &Call<'_>) {
    let Some(Answer::Items { items, tail, more: false, .. }) = call.answer else { return };
    let Some(last) = items.last().filter(|last| last.seq < *tail) else { return };
    let what = || format!("a page ends at {} of {tail}, and says that there is no more", last.seq);
    report.add(PROMISE, "poll skip", what, &index.both_ends(call));
}

/// A connection's pushes: the next sequence, and the event that fixed it.
struct Stream {
    next: u64,
    because: usize,
}

fn streams(index: &Index<'_>) -> HashMap<u64, Stream> {
    let connect = |call: &Call<'_>| {
        let Op::Connect { after, .. } = call.op else { return None };
        let Some(Answer::Connected { head, cursor, resumed, .. }) = call.answer else {
            return None;
        };
        let start = if *resumed { after.unwrap_or(*cursor) + 1 } else { *head };
        Some((call.id, Stream { next: start, because: call.end? }))
    };
    index.calls.iter().filter_map(connect).collect()
}

fn pushed(report: &mut Report, stream: &mut Stream, items: &[Item], event: usize) {
    let (Some(first), Some(last)) = (items.first(), items.last()) else { return };
    let anomaly = match first.seq.cmp(&stream.next) {
        std::cmp::Ordering::Greater => Some("poll skip"),
        std::cmp::Ordering::Less => Some("nonmonotonic poll"),
        std::cmp::Ordering::Equal => None,
    };
    if let Some(anomaly) = anomaly {
        let what = || format!("{} was pushed where {} was next", first.seq, stream.next);
        report.add(PROMISE, anomaly, what, &[stream.because, event]);
    }
    *stream = Stream { next: last.seq + 1, because: event };
}

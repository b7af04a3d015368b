//! Promise 12: cursors never go back, never pass the tail, and survive failover.
//!
//! *Cursor went back*: an answer shows less than one that was complete before the call began.
//! *Cursor past the tail*: it stands above its queue. *Invented cursor*: nobody had acknowledged
//! that far. The registers' search (`registers`) asks more; this asks it in one pass.

use std::collections::HashMap;

use crate::history::{Answer, Op};
use crate::index::{Call, Index};
use crate::report::Report;

const PROMISE: u8 = 12;

#[derive(Default)]
struct Device {
    /// The highest cursor of a completed call, and its event.
    shown: (u64, usize),
    /// The highest sequence that anybody asked to acknowledge, and the event.
    asked: (u64, usize),
}

pub(crate) fn check(index: &Index<'_>, report: &mut Report) {
    let mut steps: Vec<(usize, bool, usize)> = Vec::new();
    for (at, call) in index.calls.iter().enumerate() {
        if matches!(call.op, Op::Ack { .. } | Op::Connect { .. }) {
            steps.push((call.begin, false, at));
            steps.extend(call.end.map(|end| (end, true, at)));
        }
    }
    steps.sort_unstable();
    let mut devices: HashMap<(&str, &str), Device> = HashMap::new();
    let mut floors: HashMap<usize, (u64, usize)> = HashMap::new();
    for (event, is_end, at) in steps {
        let call = &index.calls[at];
        let (Op::Ack { user, device, .. } | Op::Connect { user, device, .. }) = call.op else {
            continue;
        };
        let state = devices.entry((user, device)).or_default();
        if is_end {
            end(report, call, state, floors.remove(&at).unwrap_or_default(), event);
        } else {
            floors.insert(at, state.shown);
            if let Op::Ack { seq, .. } = call.op
                && *seq > state.asked.0
            {
                state.asked = (*seq, event);
            }
        }
    }
}

fn end(
    report: &mut Report,
    call: &Call<'_>,
    state: &mut Device,
    floor: (u64, usize),
    event: usize,
) {
    let (cursor, tail) = match call.answer {
        Some(Answer::Acked { cursor }) => (*cursor, None),
        Some(Answer::Connected { cursor, tail, .. }) => (*cursor, Some(*tail)),
        _ => return,
    };
    // A connect that says where it is may be let in by a node that knows no leader.
    let fresh = !matches!(call.op, Op::Connect { after: Some(_), .. });
    if fresh && cursor < floor.0 {
        let what = || format!("a cursor of {cursor} after one of {}", floor.0);
        report.add(PROMISE, "cursor went back", what, &[floor.1, call.begin, event]);
    }
    if let Op::Ack { seq, .. } = call.op
        && cursor < *seq
    {
        let what = || format!("{seq} was acknowledged, and the cursor is {cursor}");
        report.add(PROMISE, "cursor went back", what, &[call.begin, event]);
    }
    if let Some(tail) = tail
        && cursor > tail
    {
        let what = || format!("a cursor of {cursor} with a tail of {tail}");
        report.add(PROMISE, "cursor past the tail", what, &[event]);
    }
    if cursor > state.asked.0 {
        let what = || format!("a cursor of {cursor}, and at most {} was asked for", state.asked.0);
        report.add(PROMISE, "invented cursor", what, &[state.asked.1, event]);
    }
    if cursor > state.shown.0 {
        state.shown = (cursor, event);
    }
}

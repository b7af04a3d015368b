//! Promise 18, as clients see it: pushes stay within the window that the connection asked for.
//!
//! *Past the window*: an item was pushed that is further ahead of what the device had acknowledged.
//! An acknowledgement counts from the moment that it was attempted.

use std::collections::HashMap;

use roost_protocol::limits::{DEFAULT_WINDOW, MAX_WINDOW};

use crate::history::{Answer, Op};
use crate::index::{Call, Index};
use crate::report::Report;

const PROMISE: u8 = 18;

/// A connection: its device, its window, where it began, and the event that says so.
struct Connection<'h> {
    device: (&'h str, &'h str),
    window: u64,
    start: u64,
    event: usize,
}

pub(crate) fn check(index: &Index<'_>, report: &mut Report) {
    let connections: HashMap<u64, Connection<'_>> =
        index.calls.iter().filter_map(connection).collect();
    let mut acknowledged: HashMap<(&str, &str), u64> = HashMap::new();
    // In the order of their beginnings.
    for call in &index.calls {
        match (call.op, call.answer) {
            (Op::Ack { user, device, seq }, _) => {
                let newest = acknowledged.entry((user, device)).or_default();
                *newest = (*newest).max(*seq);
            }
            (Op::Push { connection, .. }, Some(Answer::Items { items, .. })) => {
                let Some(connection) = connections.get(connection) else { continue };
                let Some(last) = items.last() else { continue };
                let newest = acknowledged.get(&connection.device).copied().unwrap_or_default();
                let most = newest.max(connection.start) + connection.window;
                if last.seq > most {
                    let what = || format!("{} was pushed, and the window ends at {most}", last.seq);
                    report.add(PROMISE, "past the window", what, &[connection.event, call.begin]);
                }
            }
            _ => {}
        }
    }
}

fn connection<'h>(call: &Call<'h>) -> Option<(u64, Connection<'h>)> {
    let Op::Connect { user, device, after, window } = call.op else { return None };
    let Some(Answer::Connected { head, cursor, resumed, .. }) = call.answer else { return None };
    let wanted = after.unwrap_or(*cursor);
    let start = if *resumed { wanted } else { head.saturating_sub(1) };
    let window = window.unwrap_or(DEFAULT_WINDOW).min(MAX_WINDOW);
    let connection = Connection {
        device: (user, device),
        window: window.into(),
        start: start.max(*cursor),
        event: call.end?,
    };
    Some((call.id, connection))
}

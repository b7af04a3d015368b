//! Promise 7: a linearizable read reflects every completed operation; the default reads are
//! monotonic and show the client's own writes, on any node, by the applied index that it carries.
//!
//! *Stale read*: a linearizable pull, or a `connect` without `after`, lacks what was complete before it began.
//! *Nonmonotonic read*: a client that carried the applied index it had seen was shown less than
//! before. *Own write unseen*: the same, for its own send.
//!
//! Where a message stands in a queue is known from anybody's sight of it; how far a queue must reach
//! is then a maximum that grows along the history.

use std::collections::HashMap;

use crate::history::{Answer, Op};
use crate::index::{Call, Index};
use crate::report::Report;

const PROMISE: u8 = 7;

/// How far a queue must reach, and the event that says so.
#[derive(Debug, Clone, Copy, Default)]
struct Floor {
    seq: u64,
    event: usize,
}

impl Floor {
    fn raise(&mut self, seq: u64, event: usize) {
        if seq > self.seq {
            *self = Self { seq, event };
        }
    }
}

/// What a client has seen of a queue, and how much it must carry for that to bind.
#[derive(Debug, Clone, Copy, Default)]
struct Session {
    read: Floor,
    wrote: Floor,
    applied: u64,
}

#[derive(Default)]
struct Walk<'h> {
    /// Queue → what everybody's completed operations demand.
    floors: HashMap<&'h str, Floor>,
    /// (client, queue) → what its own demand.
    sessions: HashMap<(u64, &'h str), Session>,
    /// Call → the floor when it began.
    at_begin: HashMap<usize, (Floor, Session)>,
}

pub(crate) fn check(index: &Index<'_>, report: &mut Report) {
    // Every call's beginning and end, in order.
    let mut steps: Vec<(usize, bool, usize)> = Vec::new();
    for (at, call) in index.calls.iter().enumerate() {
        steps.push((call.begin, false, at));
        steps.extend(call.end.map(|end| (end, true, at)));
    }
    steps.sort_unstable();
    let mut walk = Walk::default();
    for (event, is_end, at) in steps {
        let call = &index.calls[at];
        if is_end {
            walk.end(index, report, at, call, event);
        } else {
            walk.begin(at, call);
        }
    }
}

/// The queue that a call reads.
fn queue_of(op: &Op) -> Option<&str> {
    match op {
        Op::Pull { user, .. } | Op::Connect { user, .. } => Some(user),
        _ => None,
    }
}

impl<'h> Walk<'h> {
    fn begin(&mut self, at: usize, call: &Call<'h>) {
        if let Some(user) = queue_of(call.op) {
            let floor = self.floors.get(user).copied().unwrap_or_default();
            let session = self.sessions.get(&(call.process, user)).copied().unwrap_or_default();
            self.at_begin.insert(at, (floor, session));
        }
    }

    fn end(
        &mut self,
        index: &Index<'h>,
        report: &mut Report,
        at: usize,
        call: &Call<'h>,
        event: usize,
    ) {
        match (call.op, call.answer) {
            (Op::Send { .. }, Some(Answer::Sent { conversation, seq, applied, .. })) => {
                for recipient in index.candidates(call.op) {
                    let place = (recipient, (conversation.as_str(), *seq));
                    let Some(&(seq, _)) = index.places.get(&place) else { continue };
                    self.floors.entry(recipient).or_default().raise(seq, event);
                    let own = self.sessions.entry((call.process, recipient)).or_default();
                    own.wrote.raise(seq, event);
                    own.applied = own.applied.max(*applied);
                }
            }
            (
                Op::Pull { user, linearizable, applied: carried, .. },
                Some(Answer::Items { tail, applied, .. }),
            ) => {
                let (floor, session) = self.at_begin.remove(&at).unwrap_or_default();
                if *linearizable {
                    fresh(report, call, *tail, floor, event);
                    self.floors.entry(user).or_default().raise(*tail, event);
                }
                if carried.is_some_and(|carried| carried >= session.applied) {
                    in_session(report, call, *tail, session, event);
                }
                let own = self.sessions.entry((call.process, user)).or_default();
                own.read.raise(*tail, event);
                own.applied = own.applied.max(*applied);
            }
            // One that says where it is may be let in by a node that knows no leader.
            (Op::Connect { user, after: None, .. }, Some(Answer::Connected { tail, .. })) => {
                let (floor, _) = self.at_begin.remove(&at).unwrap_or_default();
                fresh(report, call, *tail, floor, event);
                self.floors.entry(user).or_default().raise(*tail, event);
            }
            _ => {}
        }
    }
}

fn fresh(report: &mut Report, call: &Call<'_>, tail: u64, floor: Floor, event: usize) {
    if tail < floor.seq {
        let what = || {
            format!("a linearizable {} shows a tail of {tail}, after {}", call.op.name(), floor.seq)
        };
        report.add(PROMISE, "stale read", what, &[floor.event, call.begin, event]);
    }
}

fn in_session(report: &mut Report, call: &Call<'_>, tail: u64, session: Session, event: usize) {
    let floors = [("nonmonotonic read", session.read), ("own write unseen", session.wrote)];
    for (anomaly, floor) in floors {
        if tail < floor.seq {
            let what = || {
                format!("process {} is shown a tail of {tail}, after {}", call.process, floor.seq)
            };
            report.add(PROMISE, anomaly, what, &[floor.event, call.begin, event]);
        }
    }
}

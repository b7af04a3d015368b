//! The calls of a client that have no answer yet, and whether they may be repeated.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use roost_protocol::{OkBody, Operation, OperationKind};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::connection::Connection;
use crate::error::{ClientError, CloseReason};

/// A call's number: calls are sent in this order, at each connection anew.
type Ticket = u64;

/// A call without an answer.
#[derive(Debug)]
struct Call {
    operation: Operation,
    reply: oneshot::Sender<Result<OkBody, ClientError>>,
    attempts: u32,
    not_before: Option<Instant>,
}

/// How one attempt of a call ended.
pub(crate) struct Attempt {
    ticket: Ticket,
    result: Result<OkBody, ClientError>,
}

/// The calls without an answer: those to send, and those sent.
#[derive(Default)]
pub(crate) struct PendingCalls {
    next_ticket: Ticket,
    waiting: BTreeMap<Ticket, Call>,
    sent: HashMap<Ticket, Call>,
    attempts: FuturesUnordered<BoxFuture<'static, Attempt>>,
}

impl PendingCalls {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len() + self.sent.len()
    }

    /// Whether the node owes an answer.
    pub(crate) fn any_sent(&self) -> bool {
        !self.sent.is_empty()
    }

    /// Takes a new call.
    pub(crate) fn add(
        &mut self,
        operation: Operation,
        reply: oneshot::Sender<Result<OkBody, ClientError>>,
    ) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.waiting.insert(ticket, Call { operation, reply, attempts: 0, not_before: None });
    }

    /// Sends the calls whose time has come, oldest first, as far as the connection takes them.
    pub(crate) fn send_due(&mut self, connection: &Connection) {
        let now = Instant::now();
        let due: Vec<Ticket> = self
            .waiting
            .iter()
            .filter(|(_, call)| call.not_before.is_none_or(|time| time <= now))
            .map(|(ticket, _)| *ticket)
            .collect();
        for ticket in due {
            let Some(call) = self.waiting.get(&ticket) else { continue };
            // Nobody waits any more: its deadline passed, or its caller went away.
            if call.reply.is_closed() {
                self.waiting.remove(&ticket);
                continue;
            }
            match connection.try_submit(&call.operation) {
                Ok(Some(pending)) => {
                    let attempt = pending.wait().map(move |result| Attempt { ticket, result });
                    self.attempts.push(attempt.boxed());
                    self.sent.extend(self.waiting.remove_entry(&ticket));
                }
                Ok(None) | Err(ClientError::Closed(_)) => return,
                Err(error) => {
                    if let Some(call) = self.waiting.remove(&ticket) {
                        let _ = call.reply.send(Err(error));
                    }
                }
            }
        }
    }

    /// When the next call that was put off is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.waiting.values().filter_map(|call| call.not_before).min()
    }

    /// The next attempt that ends; never, while none is under way.
    pub(crate) async fn next_ended(&mut self) -> Attempt {
        match self.attempts.next().await {
            Some(attempt) => attempt,
            None => std::future::pending().await,
        }
    }

    /// Gives the caller its answer, or keeps the call for another attempt. Returns the answer for
    /// whom else it concerns; `None` if the caller will hear later.
    pub(crate) fn settle(&mut self, attempt: Attempt, backoff: Backoff) -> Settled {
        let Some(mut call) = self.sent.remove(&attempt.ticket) else {
            return Settled::Answered(0);
        };
        match attempt.result {
            Err(error) if repeatable(&call.operation, &error) => {
                let delay = match &error {
                    ClientError::Lost(_) | ClientError::Closed(_) => Duration::ZERO,
                    _ => error.retry_after().unwrap_or_else(|| backoff.delay(call.attempts)),
                };
                call.attempts += 1;
                call.not_before = Some(Instant::now() + delay);
                self.waiting.insert(attempt.ticket, call);
                Settled::PutOff
            }
            result => {
                let applied = result.as_ref().map_or(0, applied);
                // A caller that has gone does not want it.
                let _ = call.reply.send(result);
                Settled::Answered(applied)
            }
        }
    }

    /// The connection is gone: what was sent waits again, unless a repetition could do harm.
    pub(crate) fn disconnected(&mut self, reason: &CloseReason) {
        self.attempts.clear();
        for (ticket, mut call) in self.sent.drain() {
            let lost = ClientError::Lost(CloseReason { reconnect: true, ..reason.clone() });
            if repeatable(&call.operation, &lost) {
                call.not_before = None;
                self.waiting.insert(ticket, call);
            } else {
                let _ = call.reply.send(Err(lost));
            }
        }
        for call in self.waiting.values_mut() {
            call.not_before = None;
        }
    }

    /// The client ends: those that were sent are lost, the others never were.
    pub(crate) fn fail_all(&mut self, error: &ClientError, reason: &CloseReason) {
        for (_, call) in self.sent.drain() {
            let _ = call.reply.send(Err(ClientError::Lost(reason.clone())));
        }
        for call in std::mem::take(&mut self.waiting).into_values() {
            let unknown = call.attempts > 0;
            let error = if unknown { ClientError::Lost(reason.clone()) } else { error.clone() };
            let _ = call.reply.send(Err(error));
        }
    }
}

/// What became of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settled {
    /// The caller has its answer, which showed this applied index (or 0).
    Answered(u64),
    /// The node could not answer now; the call waits for another attempt.
    PutOff,
}

/// Whether the same request may be sent again after this error.
fn repeatable(operation: &Operation, error: &ClientError) -> bool {
    if !error.retry() || matches!(error, ClientError::DeadlineExceeded) {
        return false;
    }
    // A second `leave` after one that had succeeded would be refused.
    !(error.outcome_unknown() && operation.kind() == OperationKind::Leave)
}

/// The applied index that an answer shows; 0 if it shows none.
fn applied(ok: &OkBody) -> u64 {
    match ok {
        OkBody::Connected(ok) => ok.applied,
        OkBody::Sent(ok) => ok.applied,
        OkBody::Page(ok) => ok.applied,
        OkBody::Acked(ok) => ok.applied,
        OkBody::History(ok) => ok.applied,
        OkBody::Read(ok) => ok.applied,
        OkBody::Changed(ok) => ok.applied,
        OkBody::Conversations(ok) => ok.applied,
        OkBody::Created(ok) => ok.applied,
        OkBody::Members(ok) => ok.applied,
        OkBody::Typing(_) | OkBody::Presence(_) | OkBody::Pong(_) => 0,
    }
}

//! A client's connection to a node, in the client protocol.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use roost_checker::history::{Answer, Op};
use roost_protocol::request::{OperationKind, Request};
use roost_protocol::{Encoding, ErrorBody, OkBody, Operation, Push, ServerFrame};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::net::{CLIENTS, Net, Place, What};
use crate::record::{Caller, Record};

/// How often somebody who waits for a push looks.
const PUSH_LOOK: Duration = Duration::from_millis(20);

/// Why a call has no answer.
#[derive(Debug)]
pub(crate) enum CallError {
    /// The node said why.
    Answered(ErrorBody),
    /// The connection ended, or nothing came in time.
    Gone(&'static str),
}

/// An open connection.
pub(crate) struct Connection {
    net: Net,
    record: Record,
    who: Caller,
    user: String,
    conn: u64,
    encoding: Encoding,
    frames: mpsc::UnboundedReceiver<Option<Bytes>>,
    next_id: u64,
    /// How long it waits for an answer.
    pub(crate) patience: Duration,
    /// The `connect` call, once it is made.
    pub(crate) call: u64,
    /// Where its pushes begin.
    pub(crate) start: u64,
    /// The newest item that came without a gap.
    pub(crate) seen: u64,
    /// The newest applied index that it said.
    pub(crate) applied: u64,
    ended: bool,
}

impl Connection {
    /// Opens one; nothing is known yet of whether the node is there.
    pub(crate) fn open(
        net: Net,
        record: Record,
        who: Caller,
        user: String,
        encoding: Encoding,
    ) -> Self {
        let node: Place = who.node;
        let (conn, frames) = net.open(node, encoding);
        Self {
            net,
            record,
            who,
            user,
            conn,
            encoding,
            frames,
            next_id: 1,
            patience: Duration::from_secs(6),
            call: 0,
            start: 0,
            seen: 0,
            applied: 0,
            ended: false,
        }
    }

    /// One call.
    pub(crate) async fn call(&mut self, operation: Operation) -> Result<OkBody, CallError> {
        let waiting = BTreeMap::from([self.ask(operation)]);
        self.answers(waiting).await.pop_first().expect("one call, one answer").1
    }

    /// Several calls, none of which waits for another; their answers in the same order.
    pub(crate) async fn calls(
        &mut self,
        operations: Vec<Operation>,
    ) -> Vec<Result<OkBody, CallError>> {
        let waiting = operations.into_iter().map(|operation| self.ask(operation)).collect();
        self.answers(waiting).await.into_values().collect()
    }

    fn ask(&mut self, operation: Operation) -> (u64, OperationKind) {
        let (id, kind) = (self.next_id, operation.kind());
        self.next_id += 1;
        let bytes = self.encoding.request_bytes(&Request { id, operation });
        self.send(bytes);
        (id, kind)
    }

    async fn answers(
        &mut self,
        mut waiting: BTreeMap<u64, OperationKind>,
    ) -> BTreeMap<u64, Result<OkBody, CallError>> {
        let deadline = Instant::now() + self.patience;
        let mut answers = BTreeMap::new();
        let gone = loop {
            if waiting.is_empty() {
                return answers;
            }
            if self.ended {
                break "the connection ended";
            }
            let Ok(frame) = timeout_at(deadline, self.frames.recv()).await else {
                break "no answer in time";
            };
            if let Some((id, answer)) = self.take(frame.flatten(), &waiting) {
                waiting.remove(&id);
                answers.insert(id, answer.map_err(CallError::Answered));
            }
        };
        answers.extend(waiting.into_keys().map(|id| (id, Err(CallError::Gone(gone)))));
        answers
    }

    /// Takes what comes until then.
    pub(crate) async fn listen(&mut self, until: Instant) {
        while !self.ended {
            let Ok(frame) = timeout_at(until, self.frames.recv()).await else { return };
            self.take(frame.flatten(), &BTreeMap::new());
        }
    }

    /// Takes what comes until something was pushed; whether it was, by then.
    pub(crate) async fn pushed(&mut self, until: Instant) -> bool {
        while self.seen <= self.start && !self.ended && Instant::now() < until {
            self.listen(until.min(Instant::now() + PUSH_LOOK)).await;
        }
        self.seen > self.start
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Reads nothing for a while, as a client does that hangs.
    pub(crate) async fn hang(&mut self, time: Duration) {
        self.net.set_slow(self.conn, true);
        tokio::time::sleep(time).await;
        self.net.set_slow(self.conn, false);
    }

    /// Ends it; `quietly` without a word to the node.
    pub(crate) fn leave(self, quietly: bool) {
        if quietly {
            self.net.mute(self.conn);
        } else {
            self.net.send(CLIENTS, self.who.node, What::Gone { conn: self.conn });
        }
    }

    fn send(&self, bytes: Bytes) {
        self.net.send(CLIENTS, self.who.node, What::FromClient { conn: self.conn, bytes });
    }

    fn take(
        &mut self,
        frame: Option<Bytes>,
        waiting: &BTreeMap<u64, OperationKind>,
    ) -> Option<(u64, Result<OkBody, ErrorBody>)> {
        let Some(bytes) = frame else {
            self.ended = true;
            return None;
        };
        if bytes.is_empty() {
            self.send(bytes);
            return None;
        }
        let operation = |id: u64| waiting.get(&id).copied();
        match self.encoding.decode_server(&bytes, &operation) {
            Ok(Some(ServerFrame::Reply { id, ok })) if operation(id).is_some() => {
                Some((id, Ok(ok)))
            }
            Ok(Some(ServerFrame::Error { id, error })) if operation(id).is_some() => {
                Some((id, Err(error)))
            }
            Ok(Some(ServerFrame::Push(Push::Items(push)))) => {
                self.applied = self.applied.max(push.applied);
                self.seen = push.items.last().map_or(self.seen, |item| item.seq);
                let op = Op::Push { user: self.user.clone(), connection: self.call };
                let (items, tail) = (push.items, push.tail);
                let answer = Answer::Items { items, head: 0, tail, more: false, applied: 0 };
                self.record.note(self.who, op, answer);
                None
            }
            Ok(_) => None,
            Err(_) => {
                self.ended = true;
                None
            }
        }
    }
}

//! A short way to write a history down.

use roost_checker::{Answer, Event, History, Op, Report, Stage, check};
use roost_protocol::{Item, ItemContent, Message};

/// A history that grows.
#[derive(Default)]
pub(crate) struct Script {
    events: Vec<Event>,
    calls: u64,
}

/// A call that was begun.
#[derive(Clone, Copy)]
pub(crate) struct Begun {
    call: u64,
    process: u64,
    node: u64,
}

impl Script {
    fn push(&mut self, begun: Begun, stage: Stage, op: Option<Op>, answer: Option<Answer>) {
        self.events.push(Event {
            time_ns: self.events.len() as u64 * 1_000_000,
            process: begun.process,
            node: begun.node,
            call: begun.call,
            stage,
            op,
            answer,
            error: None,
        });
    }

    pub(crate) fn begin(&mut self, process: u64, node: u64, op: Op) -> Begun {
        self.calls += 1;
        let begun = Begun { call: self.calls, process, node };
        self.push(begun, Stage::Invoke, Some(op), None);
        begun
    }

    pub(crate) fn ok(&mut self, begun: Begun, answer: Answer) {
        self.push(begun, Stage::Ok, None, Some(answer));
    }

    pub(crate) fn fail(&mut self, begun: Begun, code: &str) {
        self.push(begun, Stage::Fail, None, None);
        self.events.last_mut().unwrap().error = Some(code.to_owned());
    }

    pub(crate) fn unknown(&mut self, begun: Begun) {
        self.push(begun, Stage::Unknown, None, None);
    }

    /// A call and its answer, with nothing between.
    pub(crate) fn call(&mut self, process: u64, op: Op, answer: Answer) {
        let begun = self.begin(process, 1, op);
        self.ok(begun, answer);
    }

    /// What a node pushed.
    pub(crate) fn pushed(&mut self, user: &str, connection: Begun, items: Vec<Item>) {
        self.calls += 1;
        let op = Op::Push { user: user.into(), connection: connection.call };
        let begun = Begun { call: self.calls, ..connection };
        let tail = items.last().map_or(0, |item| item.seq);
        let answer = Answer::Items { items, head: 0, tail, more: false, applied: 0 };
        self.push(begun, Stage::Ok, Some(op), Some(answer));
    }

    /// The last reading of a whole queue on a node.
    pub(crate) fn drain(&mut self, node: u64, user: &str, items: Vec<Item>) {
        let tail = items.last().map_or(0, |item| item.seq);
        let begun = self.begin(99, node, last_pull(user));
        self.ok(begun, Answer::Items { items, head: 1, tail, more: false, applied: 1_000 });
    }

    pub(crate) fn history(&self) -> History {
        History { events: self.events.clone() }
    }

    pub(crate) fn report(&self) -> Report {
        check(&self.history())
    }
}

/// A direct send of alice's to bob.
pub(crate) fn send(client_id: &str) -> Op {
    send_body(client_id, &format!("body of {client_id}"))
}

pub(crate) fn send_body(client_id: &str, body: &str) -> Op {
    Op::Send {
        user: "alice".into(),
        client_id: client_id.into(),
        body: body.into(),
        conversation: None,
        to: Some("bob".into()),
        ttl_ms: None,
    }
}

pub(crate) fn sent(seq: u64) -> Answer {
    Answer::Sent { conversation: "d".into(), seq, at_ms: seq, duplicate: false, applied: seq }
}

pub(crate) fn duplicate(seq: u64) -> Answer {
    Answer::Sent { conversation: "d".into(), seq, at_ms: seq, duplicate: true, applied: seq }
}

pub(crate) fn pull(user: &str, after: u64, linearizable: bool, applied: Option<u64>) -> Op {
    Op::Pull { user: user.into(), after, linearizable, applied, last: false }
}

pub(crate) fn last_pull(user: &str) -> Op {
    Op::Pull { user: user.into(), after: 0, linearizable: false, applied: None, last: true }
}

/// A page with all that there is.
pub(crate) fn page(items: Vec<Item>, applied: u64) -> Answer {
    let tail = items.last().map_or(0, |item| item.seq);
    Answer::Items { items, head: 1, tail, more: false, applied }
}

pub(crate) fn ack(seq: u64) -> Op {
    Op::Ack { user: "bob".into(), device: "phone".into(), seq }
}

pub(crate) fn connect(after: Option<u64>) -> Op {
    Op::Connect { user: "bob".into(), device: "phone".into(), after, window: None }
}

pub(crate) fn connected(tail: u64, cursor: u64) -> Answer {
    Answer::Connected { head: 1, tail, cursor, resumed: true, applied: tail }
}

/// Item `seq` of a queue: message `message` of the direct conversation, stamped `message` ms.
pub(crate) fn item(seq: u64, client_id: &str, message: u64) -> Item {
    item_with(seq, message, client_id, &format!("body of {client_id}"), message)
}

pub(crate) fn item_with(seq: u64, message: u64, client_id: &str, body: &str, at_ms: u64) -> Item {
    let message = Message {
        seq: message,
        sender: "alice".into(),
        at_ms,
        body: body.into(),
        content_type: None,
        client_id: client_id.into(),
        expires_at_ms: None,
    };
    Item { seq, content: ItemContent::Message { conversation: "d".into(), message } }
}

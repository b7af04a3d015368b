//! What clients saw, as a history for the checker.

use std::sync::Arc;

use parking_lot::Mutex;
use roost_checker::history::{Answer, Event, History, Op, Stage};

use crate::trace::Trace;

/// The history. Clones share it.
#[derive(Clone)]
pub(crate) struct Record {
    state: Arc<Mutex<State>>,
    trace: Trace,
}

struct State {
    now_ms: u64,
    next_call: u64,
    history: History,
}

/// A client, a node, and a call between them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller {
    /// The client.
    pub(crate) process: u64,
    /// The node; 0 for none.
    pub(crate) node: u64,
}

impl Record {
    /// An empty history.
    pub(crate) fn new(trace: Trace) -> Self {
        let state = State { now_ms: 0, next_call: 1, history: History::default() };
        Self { state: Arc::new(Mutex::new(state)), trace }
    }

    /// The time of later events.
    pub(crate) fn set_time(&self, now_ms: u64) {
        self.state.lock().now_ms = now_ms;
    }

    /// A call begins; its number.
    pub(crate) fn begin(&self, who: Caller, op: Op) -> u64 {
        let call = self.number();
        self.push(who, call, Stage::Invoke, Some(op), None, None);
        call
    }

    /// A call was carried out.
    pub(crate) fn ok(&self, who: Caller, call: u64, answer: Answer) {
        self.push(who, call, Stage::Ok, None, Some(answer), None);
    }

    /// A call had no effect.
    pub(crate) fn fail(&self, who: Caller, call: u64, error: &str) {
        self.push(who, call, Stage::Fail, None, None, Some(error.to_owned()));
    }

    /// Nobody knows what became of a call.
    pub(crate) fn unknown(&self, who: Caller, call: u64, error: &str) {
        self.push(who, call, Stage::Unknown, None, None, Some(error.to_owned()));
    }

    /// Something happened that nobody called for.
    pub(crate) fn note(&self, who: Caller, op: Op, answer: Answer) {
        let call = self.number();
        self.push(who, call, Stage::Ok, Some(op), Some(answer), None);
    }

    /// A client saw a rule broken that the history can't show.
    pub(crate) fn violate(&self, rule: &'static str, what: String) {
        self.trace.violate(rule, what);
    }

    /// The history so far.
    pub(crate) fn take(&self) -> History {
        std::mem::take(&mut self.state.lock().history)
    }

    fn number(&self) -> u64 {
        let mut state = self.state.lock();
        state.next_call += 1;
        state.next_call
    }

    fn push(
        &self,
        who: Caller,
        call: u64,
        stage: Stage,
        op: Option<Op>,
        answer: Option<Answer>,
        error: Option<String>,
    ) {
        let Caller { process, node } = who;
        let mut state = self.state.lock();
        let time_ns = state.now_ms * 1_000_000;
        let event = Event { time_ns, process, node, call, stage, op, answer, error };
        self.trace.line(&line(&event));
        state.history.events.push(event);
    }
}

/// Short, but different for different events.
fn line(event: &Event) -> String {
    let Event { process, node, call, stage, op, answer, error, .. } = event;
    let mut text = format!("client {process} node {node} call {call} {stage:?}");
    let shorten = |text: String| match text.char_indices().nth(160) {
        Some((at, _)) => {
            let hash = xxhash_rust::xxh3::xxh3_64(text.as_bytes());
            format!("{}… #{hash:016x}", &text[..at])
        }
        None => text,
    };
    if let Some(op) = op {
        text += &shorten(format!(" {op:?}"));
    }
    if let Some(answer) = answer {
        text += &shorten(format!(" {answer:?}"));
    }
    if let Some(error) = error {
        text += &format!(" {error}");
    }
    text
}

//! What happened, line by line, and the first violation.
//!
//! Every message, fault and answer goes into a running hash; the lines themselves are kept in full
//! if they are to be written to a file, and else the newest ones only. Two runs of one seed must give
//! the same lines, byte for byte.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::Arc;

use parking_lot::Mutex;
use xxhash_rust::xxh3::Xxh3;

/// Lines that are kept for the report of a violation.
const RECENT: usize = 60;

/// A broken rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    /// Which rule.
    pub(crate) rule: &'static str,
    /// How it was broken.
    pub(crate) what: String,
    /// When, in simulated milliseconds.
    pub(crate) at_ms: u64,
}

/// The trace. Clones share it.
#[derive(Clone)]
pub(crate) struct Trace {
    state: Arc<Mutex<State>>,
}

struct State {
    now_ms: u64,
    hash: Xxh3,
    recent: VecDeque<String>,
    all: Option<String>,
    lines: u64,
    violation: Option<Violation>,
}

impl Trace {
    /// An empty trace; `whole` keeps all lines.
    pub(crate) fn new(whole: bool) -> Self {
        let state = State {
            now_ms: 0,
            hash: Xxh3::new(),
            recent: VecDeque::new(),
            all: whole.then(String::new),
            lines: 0,
            violation: None,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// The time that later lines carry.
    pub(crate) fn set_time(&self, now_ms: u64) {
        self.state.lock().now_ms = now_ms;
    }

    /// Appends a line.
    pub(crate) fn line(&self, text: &str) {
        let mut state = self.state.lock();
        let mut line = format!("{:>7} ", state.now_ms);
        line.push_str(text);
        line.push('\n');
        state.hash.update(line.as_bytes());
        state.lines += 1;
        if let Some(all) = &mut state.all {
            all.push_str(&line);
        }
        if state.recent.len() == RECENT {
            state.recent.pop_front();
        }
        state.recent.push_back(line);
    }

    /// Mixes in what is too much for lines of its own.
    pub(crate) fn mix(&self, bytes: &[u8]) {
        self.state.lock().hash.update(bytes);
    }

    /// Notes a broken rule; only the first one counts.
    pub(crate) fn violate(&self, rule: &'static str, what: impl Into<String>) {
        let what = what.into();
        self.line(&format!("VIOLATION {rule}: {what}"));
        let mut state = self.state.lock();
        if state.violation.is_none() {
            state.violation = Some(Violation { rule, what, at_ms: state.now_ms });
        }
    }

    /// The first broken rule.
    pub(crate) fn violation(&self) -> Option<Violation> {
        self.state.lock().violation.clone()
    }

    /// A number for all that happened.
    pub(crate) fn hash(&self) -> u64 {
        self.state.lock().hash.digest()
    }

    /// The newest lines.
    pub(crate) fn recent(&self) -> String {
        self.state.lock().recent.iter().fold(String::new(), |mut text, line| {
            text.push_str(line);
            text
        })
    }

    /// All lines, and the hash of what has none.
    pub(crate) fn all(&self) -> String {
        let hash = self.hash();
        let mut text = self.state.lock().all.clone().unwrap_or_default();
        writeln!(text, "hash {hash:016x}").expect("a string takes all writes");
        text
    }
}

//! The verdict, with the shortest evidence for each violation.

use std::collections::BTreeMap;
use std::fmt;

use crate::history::{Event, History, Op, Stage};
use crate::index::Index;

/// Violations that are kept of each kind; the others are counted.
const KEPT_OF_A_KIND: usize = 5;

/// What a history says of the promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// No promise is broken, and everything was read at the end.
    Valid,
    /// A promise is broken.
    Invalid,
    /// No promise is seen broken, but something acknowledged was never looked for.
    Unknown,
}

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The promise's number in the design.
    pub promise: u8,
    /// The anomaly's name.
    pub anomaly: &'static str,
    /// What contradicts what.
    pub what: String,
    /// The places of the events that show it, in order.
    pub events: Vec<usize>,
}

/// All that was found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The first violations of each kind.
    pub violations: Vec<Violation>,
    /// How many there are of each kind: (promise, anomaly) → count.
    pub counts: BTreeMap<(u8, &'static str), usize>,
    /// Acknowledged (message, recipient) pairs whose queue was not read at the end.
    pub unseen: usize,
    /// Registers whose linear order was not decided within the search's bound.
    pub undecided: usize,
    /// How many calls ended how: name → (ok, failed, unknown).
    pub calls: BTreeMap<&'static str, (usize, usize, usize)>,
    /// Acknowledged (message, recipient) pairs that were looked for.
    pub looked_for: usize,
}

impl Report {
    pub(crate) fn new(index: &Index<'_>) -> Self {
        let mut report = Self::default();
        for call in &index.calls {
            let ends = report.calls.entry(call.op.name()).or_default();
            match call.stage {
                Stage::Ok => ends.0 += 1,
                Stage::Fail => ends.1 += 1,
                Stage::Invoke | Stage::Unknown => ends.2 += 1,
            }
        }
        report
    }

    pub(crate) fn add(
        &mut self,
        promise: u8,
        anomaly: &'static str,
        what: impl FnOnce() -> String,
        events: &[usize],
    ) {
        let count = self.counts.entry((promise, anomaly)).or_default();
        *count += 1;
        if *count <= KEPT_OF_A_KIND {
            let mut events = events.to_vec();
            events.sort_unstable();
            events.dedup();
            self.violations.push(Violation { promise, anomaly, what: what(), events });
        }
    }

    pub(crate) fn finish(mut self) -> Self {
        self.violations.sort_by_key(|violation| (violation.promise, violation.events.len()));
        self
    }

    /// The verdict.
    pub fn verdict(&self) -> Verdict {
        if !self.violations.is_empty() {
            Verdict::Invalid
        } else if self.unseen > 0 || self.undecided > 0 || self.looked_for == 0 {
            Verdict::Unknown
        } else {
            Verdict::Valid
        }
    }

    /// Whether some violation has this name.
    pub fn found(&self, anomaly: &str) -> bool {
        self.counts.keys().any(|(_, name)| *name == anomaly)
    }

    /// The report for people, with the events of the history that it was made from.
    pub fn text(&self, history: &History) -> String {
        use fmt::Write as _;
        let mut out = String::new();
        // Writing into a string cannot fail.
        let _ = writeln!(out, "calls (ok / failed / unknown):");
        for (name, (ok, failed, unknown)) in &self.calls {
            let _ = writeln!(out, "  {name:<8} {ok:>8} / {failed} / {unknown}");
        }
        let _ = writeln!(out, "acknowledged references looked for: {}", self.looked_for);
        let _ = writeln!(out, "unseen: {}, undecided: {}", self.unseen, self.undecided);
        for ((promise, anomaly), count) in &self.counts {
            let _ = writeln!(out, "promise {promise}: {anomaly}: {count}");
        }
        for violation in &self.violations {
            let _ = writeln!(out, "\npromise {}: {}", violation.promise, violation.anomaly);
            let _ = writeln!(out, "  {}", violation.what);
            for &place in &violation.events {
                if let Some(event) = history.events.get(place) {
                    let _ = writeln!(out, "  #{place} {}", describe(event));
                }
            }
        }
        let _ = writeln!(out, "\nverdict: {:?}", self.verdict());
        out
    }
}

impl Op {
    /// The name, as `f` in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Create { .. } => "create",
            Self::Send { .. } => "send",
            Self::AddMembers { .. } => "add_members",
            Self::RemoveMembers { .. } => "remove_members",
            Self::Leave { .. } => "leave",
            Self::Pull { .. } => "pull",
            Self::Push { .. } => "push",
            Self::Ack { .. } => "ack",
            Self::Connect { .. } => "connect",
            Self::History { .. } => "history",
            Self::Status { .. } => "status",
            Self::Fault { .. } => "fault",
        }
    }
}

/// An event in a line, cut where it is long.
pub fn describe(event: &Event) -> String {
    const LONGEST: usize = 300;
    let mut text = format!(
        "{:.6} s process {} node {} call {} {:?}",
        event.time_ns as f64 / 1e9,
        event.process,
        event.node,
        event.call,
        event.stage
    );
    let parts = [
        event.op.as_ref().and_then(|op| serde_json::to_string(op).ok()),
        event.answer.as_ref().and_then(|answer| serde_json::to_string(answer).ok()),
        event.error.clone(),
    ];
    for part in parts.into_iter().flatten() {
        text.push(' ');
        text.extend(part.chars().take(LONGEST));
        if part.chars().count() > LONGEST {
            text.push('…');
        }
    }
    text
}

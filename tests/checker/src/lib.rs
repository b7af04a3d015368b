//! Says which of Roost's promises a history of calls breaks.
//!
//! A history is what clients saw: each call when it was made, and how it ended, with times and
//! nodes, as JSON lines. The checker knows the client protocol and nothing of the server: whoever
//! records such a history, of one process or of a real cluster, can have it checked.
//!
//! Every promise has a file of its own under `promises/`, with the anomalies' names that Jepsen's
//! `kafka`, `queue` and `set-full` workloads use for the same thing. A call that timed out is
//! *unknown*: it may have taken effect, now or later, or never; no check assumes which. Work grows
//! with the history's length (sorting aside): sequences that the server assigns make it enough to
//! look at each observation once. Only the small registers, a device's cursor and a dedup key, are
//! searched for a linear order ([`registers`]).
//!
//! Reading order: [`history`], [`report`], `index`, `promises`, [`linear`], [`registers`], [`svg`].

pub mod history;

pub mod report;

mod index;

mod promises;

pub mod linear;

pub mod registers;

pub mod svg;

pub use history::{Answer, Event, History, Op, Stage};
pub use report::{Report, Verdict, Violation};

/// Checks every promise.
pub fn check(history: &History) -> Report {
    let index = index::Index::new(history);
    let mut report = Report::new(&index);
    promises::check(&index, &mut report);
    registers::check(&index, &mut report);
    report.finish()
}

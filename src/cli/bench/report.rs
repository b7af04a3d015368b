//! What a run says at its end: a table, or one line of JSON.
//!
//! The names in the JSON are those of the drivers that Roost is compared with, where they measure
//! the same. The figures of `send` stand in the line itself, those of the others under their names.

use roost_cluster::host::unix_ms;
use serde_json::{Value, json};

use super::connect::Connected;
use super::pull::Pulled;
use super::push::Pushed;
use super::send::Sent;
use super::tally::{LatencySummary, Tally};
use super::workload::Group;
use crate::cli::output::{number, say};

/// How a run was set up.
#[derive(Debug)]
pub(crate) struct Setting {
    pub(crate) label: String,
    pub(crate) group: Group,
    pub(crate) concurrency: usize,
    pub(crate) rate: Option<f64>,
    pub(crate) burst: usize,
    pub(crate) skew: f64,
    pub(crate) users: usize,
    pub(crate) body: usize,
    pub(crate) seconds: f64,
    pub(crate) connections: usize,
    pub(crate) transport: &'static str,
    pub(crate) addresses: Vec<String>,
}

/// The outcome of one phase.
pub(crate) enum Outcome {
    Send(Sent),
    Push(Pushed),
    Pull(Pulled),
    Connect(Connected),
}

/// One line for machines.
pub(crate) fn line(setting: &Setting, outcomes: &[Outcome]) -> Value {
    let mut line = json!({
        "backend": "roost",
        "label": setting.label,
        "group": setting.group.to_string(),
        "c": setting.concurrency,
        "rate": setting.rate,
        "burst": setting.burst,
        "skew": setting.skew,
        "users": setting.users,
        "body": setting.body,
        "secs": setting.seconds,
        "conns": setting.connections,
        "transport": setting.transport,
        "addresses": setting.addresses,
        "at": unix_ms() / 1_000,
    });
    for outcome in outcomes {
        let figures = match outcome {
            Outcome::Send(sent) => sent.json(),
            Outcome::Push(pushed) => json!({ "push": pushed.json() }),
            Outcome::Pull(pulled) => json!({ "pull": pulled.json() }),
            Outcome::Connect(connected) => json!({ "connect": connected.json() }),
        };
        extend(&mut line, figures);
    }
    line
}

/// Adds one object's fields to another's.
pub(crate) fn extend(line: &mut Value, more: Value) {
    if let (Value::Object(line), Value::Object(more)) = (line, more) {
        line.extend(more);
    }
}

/// How the run was, for people.
pub(crate) fn print_setting(setting: &Setting) {
    let load = match setting.rate {
        Some(rate) if setting.burst > 1 => {
            format!("{} a second, {} at a time", number(rate as u64), number(setting.burst as u64))
        }
        Some(rate) => format!("{} a second", number(rate as u64)),
        None => format!("{} in flight", setting.concurrency),
    };
    let skew = match setting.skew {
        0.0 => String::new(),
        skew => format!(" with a skew of {skew}"),
    };
    say!(
        "{} users{skew}, group {}, {} bytes, {load}, {} connections ({}), {} nodes, {} s",
        number(setting.users as u64),
        setting.group,
        setting.body,
        setting.connections,
        setting.transport,
        setting.addresses.len(),
        setting.seconds
    );
}

/// One phase, for people.
pub(crate) fn print(setting: &Setting, outcome: &Outcome) {
    say!("");
    match outcome {
        Outcome::Send(sent) => sent.print(&setting.addresses),
        Outcome::Push(pushed) => pushed.print(&setting.addresses),
        Outcome::Pull(pulled) => pulled.print(&setting.addresses),
        Outcome::Connect(connected) => connected.print(&setting.addresses),
    }
}

/// A distribution, for people.
pub(crate) fn latency_line(latency: &LatencySummary) -> String {
    let ms = |us: u64| us as f64 / 1_000.0;
    format!(
        "p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, max {:.2} ms",
        ms(latency.p50_us),
        ms(latency.p99_us),
        ms(latency.p999_us),
        ms(latency.max_us)
    )
}

/// What went wrong, for people.
pub(crate) fn print_failures(tally: &Tally) {
    if tally.errors.total() > 0 {
        say!("  failed: {}", tally.errors.in_words());
    }
    if let Some(error) = &tally.first_error {
        say!("  the first: {error}");
    }
}

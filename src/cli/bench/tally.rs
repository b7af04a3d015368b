//! What a phase counts: how many, how long, and what went wrong.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use roost_client::ClientError;
use serde::Serialize;

/// The longest latency that is told from longer ones, in microseconds.
const LONGEST_US: u64 = 120_000_000;

/// Latencies in microseconds, exact to 0.1 %.
#[derive(Debug, Clone)]
pub(crate) struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, LONGEST_US, 3).expect("the bounds are sound"))
    }
}

impl Latencies {
    /// Counts one.
    pub(crate) fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(LONGEST_US));
    }

    /// Adds another's.
    pub(crate) fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all have the same bounds");
    }

    /// In short.
    pub(crate) fn summary(&self) -> LatencySummary {
        LatencySummary {
            mean_us: (self.0.mean() * 10.0).round() / 10.0,
            p50_us: self.0.value_at_quantile(0.5),
            p99_us: self.0.value_at_quantile(0.99),
            p999_us: self.0.value_at_quantile(0.999),
            max_us: self.0.max(),
            count: self.0.len(),
        }
    }
}

/// A distribution in short, in microseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct LatencySummary {
    pub(crate) mean_us: f64,
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) p999_us: u64,
    pub(crate) max_us: u64,
    /// How many were measured.
    pub(crate) count: u64,
}

/// Failures by the protocol's code, or by what happened to the connection.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(transparent)]
pub(crate) struct Errors(BTreeMap<&'static str, u64>);

impl Errors {
    /// Counts one.
    pub(crate) fn count(&mut self, error: &ClientError) {
        self.count_as(code(error), 1);
    }

    /// Counts some that have a name of their own.
    pub(crate) fn count_as(&mut self, code: &'static str, count: u64) {
        if count > 0 {
            *self.0.entry(code).or_default() += count;
        }
    }

    /// Adds another's.
    pub(crate) fn add(&mut self, other: &Self) {
        for (code, count) in &other.0 {
            self.count_as(code, *count);
        }
    }

    /// All together.
    pub(crate) fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// For people: `overloaded 3, lost 1`.
    pub(crate) fn in_words(&self) -> String {
        let words: Vec<_> = self.0.iter().map(|(code, count)| format!("{code} {count}")).collect();
        words.join(", ")
    }
}

fn code(error: &ClientError) -> &'static str {
    match error {
        ClientError::Refused(error) => error.code.as_str(),
        ClientError::DeadlineExceeded => "no_answer",
        ClientError::Lost(_) => "connection_lost",
        ClientError::Closed(_) => "connection_closed",
        ClientError::Connect { .. } => "cannot_connect",
        ClientError::Invalid(_) => "invalid",
        ClientError::Protocol(_) => "unexpected_answer",
    }
}

/// What one task counted.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// From start to answer, of what was answered within the measured time; with a rate, from due
    /// time to answer, of what was due within it.
    pub(crate) latencies: Latencies,
    /// Answered within the measured time.
    pub(crate) answered: u64,
    /// References that these made, or items that they brought.
    pub(crate) references: u64,
    /// Answered in all, warm-up too.
    pub(crate) all: u64,
    /// What failed.
    pub(crate) errors: Errors,
    /// The first failure, in words.
    pub(crate) first_error: Option<String>,
}

impl Tally {
    /// Counts a failure.
    pub(crate) fn failed(&mut self, error: &ClientError) {
        self.errors.count(error);
        if self.first_error.is_none() {
            self.first_error = Some(error.to_string());
        }
    }

    /// Adds another's.
    pub(crate) fn add(&mut self, other: Self) {
        self.latencies.add(&other.latencies);
        self.answered += other.answered;
        self.references += other.references;
        self.all += other.all;
        self.errors.add(&other.errors);
        self.first_error = self.first_error.take().or(other.first_error);
    }
}

/// What is shown while a phase runs; shared by its tasks.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Answered so far.
    pub(crate) done: AtomicU64,
    /// Failed so far.
    pub(crate) failed: AtomicU64,
}

impl Counters {
    /// Counts one that was answered.
    pub(crate) fn done(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one that failed.
    pub(crate) fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tallies_add_up() {
        let mut sum = Tally::default();
        for latency_ms in [1, 3] {
            let mut tally = Tally { references: 10, all: 1, ..Tally::default() };
            tally.latencies.record(Duration::from_millis(latency_ms));
            tally.failed(&ClientError::DeadlineExceeded);
            sum.add(tally);
        }
        let summary = sum.latencies.summary();
        assert_eq!((summary.count, summary.max_us / 10, sum.references), (2, 300, 20));
        assert_eq!((sum.errors.total(), sum.errors.in_words().as_str()), (2, "no_answer 2"));
        assert_eq!(serde_json::to_string(&sum.errors).unwrap(), r#"{"no_answer":2}"#);
    }
}

//! What a replay says at its end.

use serde::Serialize;

use super::verify::{Read, Settled};
use crate::cli::output::{note, number, say};

/// The outcome of a replay. Times are in seconds unless their name says otherwise.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Groups, one a day.
    pub(crate) days: usize,
    /// Members of at least one group.
    pub(crate) users: usize,
    /// Acknowledged messages.
    pub(crate) messages: u64,
    /// References that they make, over all queues.
    pub(crate) references: u64,
    /// How playing went; absent if nothing was played.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) played: Option<PlayedReport>,
    /// Where the nodes came to rest.
    pub(crate) nodes: Settled,
    /// Acknowledgements that share a sequence with another one.
    pub(crate) shared_sequences: u64,
    /// What the queues hold.
    pub(crate) queues: Read,
    /// How long reading them took.
    pub(crate) read_s: f64,
    /// Whether everything is as it must be.
    pub(crate) ok: bool,
}

/// How playing went.
#[derive(Debug, Serialize)]
pub(crate) struct PlayedReport {
    /// How long it took.
    pub(crate) elapsed_s: f64,
    /// Messages a second.
    pub(crate) messages_per_s: f64,
    /// References a second.
    pub(crate) references_per_s: f64,
    /// Median from sending to acknowledgement, in milliseconds.
    pub(crate) p50_ms: f64,
    /// The same, 99th percentile.
    pub(crate) p99_ms: f64,
    /// Attempts beyond each message's first.
    pub(crate) retries: u64,
    /// Messages that were stored before they were acknowledged to this attempt.
    pub(crate) known: u64,
}

impl Report {
    /// Whether everything is as it must be: equal states, and queues that hold exactly what was
    /// acknowledged.
    pub(crate) fn judge(&self) -> bool {
        self.nodes.digest.is_some() && self.shared_sequences == 0 && self.queues.faults.none()
    }

    /// Prints it for people.
    pub(crate) fn print(&self) {
        let count = |value: usize| number(value as u64);
        if let Some(played) = &self.played {
            say!(
                "played {} messages of {} days by {} users in {:.1} s: {} messages/s, {} references/s",
                number(self.messages),
                count(self.days),
                count(self.users),
                played.elapsed_s,
                number(played.messages_per_s as u64),
                number(played.references_per_s as u64),
            );
            say!(
                "acknowledged after {:.1} ms (median), {:.1} ms (p99)",
                played.p50_ms,
                played.p99_ms
            );
            if played.retries + played.known > 0 {
                say!("retries {}, already stored {}", number(played.retries), number(played.known));
            }
        }
        match &self.nodes.digest {
            Some(digest) => say!(
                "nodes: {} with the same state {digest} at entry {}",
                self.nodes.nodes,
                number(self.nodes.applied)
            ),
            None => say!(
                "nodes: {} with DIFFERENT states at entry {}",
                self.nodes.nodes,
                number(self.nodes.applied)
            ),
        }
        let queues = &self.queues;
        let dense = if queues.dense == queues.queues {
            format!("{} dense", number(queues.queues))
        } else {
            format!("{} of {} dense", number(queues.dense), number(queues.queues))
        };
        let equal = if queues.faults.none() { "equal" } else { "NOT equal" };
        say!(
            "queues: {dense}, {equal} to what was acknowledged; {} items read in {:.1} s",
            number(queues.items),
            self.read_s
        );
        let faults = &queues.faults;
        say!(
            "lost {}, duplicated {}, out of order {}",
            number(faults.lost),
            number(faults.duplicated + self.shared_sequences),
            number(faults.out_of_order)
        );
        if faults.unexpected + faults.altered + faults.gaps > 0 {
            say!(
                "unexpected {}, altered {}, gaps {}",
                number(faults.unexpected),
                number(faults.altered),
                number(faults.gaps)
            );
        }
        for example in &faults.examples {
            note!("  {example}");
        }
    }
}

/// A percentile of ascending values in microseconds, as milliseconds; 0 for none.
pub(crate) fn percentile_ms(ascending_us: &[u32], percent: usize) -> f64 {
    let index = (ascending_us.len() * percent / 100).min(ascending_us.len().saturating_sub(1));
    ascending_us.get(index).map_or(0.0, |value| f64::from(*value) / 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::super::check::Faults;
    use super::*;

    fn report() -> Report {
        let nodes = Settled { nodes: 3, applied: 9, digest: Some("aa".into()) };
        Report {
            days: 1,
            users: 1,
            messages: 1,
            references: 1,
            played: None,
            nodes,
            shared_sequences: 0,
            queues: Read::default(),
            read_s: 0.1,
            ok: true,
        }
    }

    #[test]
    fn anything_wrong_makes_the_whole_wrong() {
        assert!(report().judge());
        let wrong = |change: fn(&mut Report)| {
            let mut report = report();
            change(&mut report);
            !report.judge()
        };
        assert!(wrong(|report| report.nodes.digest = None));
        assert!(wrong(|report| report.shared_sequences = 1));
        assert!(wrong(|report| report.queues.faults.lost = 1));
        assert!(wrong(|report| report.queues.faults.duplicated = 1));
        assert!(wrong(|report| report.queues.faults.out_of_order = 1));
        assert!(wrong(|report| report.queues.faults.unexpected = 1));
        assert!(wrong(|report| report.queues.faults.altered = 1));
        assert!(wrong(|report| report.queues.faults = Faults { gaps: 1, ..Faults::default() }));
    }

    #[test]
    fn percentiles_come_from_the_sorted_values() {
        let values: Vec<u32> = (1..=100).map(|value| value * 1_000).collect();
        assert_eq!(percentile_ms(&values, 50), 51.0);
        assert_eq!(percentile_ms(&values, 99), 100.0);
        assert_eq!(percentile_ms(&[], 50), 0.0);
    }
}

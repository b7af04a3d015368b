//! The phase `send`: messages into random conversations.
//!
//! Without a rate, each sender sends its next when its last is acknowledged, and latency counts from
//! the sending. With one, sends are due by the clock whatever became of those before, and latency
//! counts from the due time ([`open_loop`](super::open_loop)): a stall is seen by all that it holds up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use roost_client::protocol::request::SendMessage;
use roost_client::protocol::{CompactString, Operation, Target};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::costs::Costs;
use super::progress::Progress;
use super::report::{latency_line, print_failures};
use super::session::Session;
use super::stage::Stage;
use super::tally::{Counters, LatencySummary, Tally};
use super::usage::{Usage, growth_each, mib, shown, stored, tenth};
use super::window::Window;
use super::workload::Workload;
use crate::cli::output::{number, say};

/// What is written behind gets this long to reach the disk before space is looked at.
const SETTLE: Duration = Duration::from_millis(1_200);

/// What all senders share.
pub(crate) struct Senders {
    pub(crate) plan: Arc<Workload>,
    pub(crate) sessions: Vec<Arc<Session>>,
    pub(crate) counters: Arc<Counters>,
}

/// The outcome.
pub(crate) struct Sent {
    tally: Tally,
    latency: LatencySummary,
    sends_per_s: f64,
    references_per_s: f64,
    usage: Usage,
    disk_bytes_each: Option<f64>,
    written_bytes_each: Option<f64>,
    after: Costs,
}

/// Runs the phase.
///
/// # Errors
/// A task has panicked; what a node refuses is counted.
pub(crate) async fn measure(stage: &Stage, sessions: Vec<Arc<Session>>) -> anyhow::Result<Sent> {
    let counters = Arc::new(Counters::default());
    let senders =
        Arc::new(Senders { plan: stage.plan.clone(), sessions, counters: counters.clone() });
    let _progress = Progress::start("sending", counters);
    let before = stage.meter.read().await;
    let window = stage.window();
    let sending = async {
        match stage.rate {
            Some(rate) => senders.open_loop(rate, stage.burst, window).await,
            None => senders.closed_loop(stage.concurrency, window).await,
        }
    };
    let (tally, (first, last)) = tokio::join!(sending, window.costs(&stage.meter));
    let tally = tally?;
    sleep(SETTLE).await;
    let after = stage.meter.read().await;
    let seconds = window.seconds();
    Ok(Sent {
        latency: tally.latencies.summary(),
        sends_per_s: tenth(tally.answered as f64 / seconds),
        references_per_s: tenth(tally.references as f64 / seconds),
        usage: Usage::new(&first, &last, seconds, tally.answered),
        disk_bytes_each: growth_each(&before, &after, tally.all, |node| node.data),
        written_bytes_each: growth_each(&before, &after, tally.all, |node| node.written),
        after,
        tally,
    })
}

impl Senders {
    /// A message for a conversation.
    pub(crate) fn message(
        &self,
        conversation: &CompactString,
        client_id: CompactString,
        rng: &mut SmallRng,
    ) -> Operation {
        Operation::Send(SendMessage {
            target: Target::Conversation(conversation.clone()),
            client_id,
            body: self.plan.body(rng),
            content_type: None,
            ttl_ms: None,
        })
    }

    /// Runs so many senders, one send in flight each, until the window ends.
    async fn closed_loop(
        self: &Arc<Self>,
        senders: usize,
        window: Window,
    ) -> anyhow::Result<Tally> {
        let mut tasks = JoinSet::new();
        for sender in 0..senders {
            tasks.spawn(self.clone().keep_sending(sender, senders, window));
        }
        let mut sum = Tally::default();
        while let Some(ended) = tasks.join_next().await {
            sum.add(ended.context("a sender has stopped")?);
        }
        Ok(sum)
    }

    async fn keep_sending(self: Arc<Self>, sender: usize, senders: usize, window: Window) -> Tally {
        let places = places(sender, senders, self.sessions.len());
        let mut rng = SmallRng::from_os_rng();
        let mut tally = Tally::default();
        for count in 0.. {
            let started = Instant::now();
            if started >= window.end {
                break;
            }
            let place = places[rng.random_range(0..places.len())];
            let session = &self.sessions[place];
            let draw = self.plan.draw(place, &mut rng);
            let client_id = self.plan.client_id(sender, count);
            match session.ask(&self.message(draw.conversation, client_id, &mut rng)).await {
                Ok(_) => {
                    let ended = Instant::now();
                    tally.all += 1;
                    self.counters.done();
                    if window.measures(ended) {
                        tally.answered += 1;
                        tally.references += draw.references;
                        tally.latencies.record(ended - started);
                    }
                }
                Err(error) => {
                    tally.failed(&error);
                    self.counters.failed();
                    session.recover(&error).await;
                }
            }
        }
        tally
    }
}

/// The connections that one of so many senders sends over: those that are its alone, or the one that it
/// shares with others.
fn places(sender: usize, senders: usize, connections: usize) -> Vec<usize> {
    (sender % connections..connections).step_by(senders).collect()
}

impl Sent {
    /// For machines: the figures of the whole line.
    pub(crate) fn json(&self) -> Value {
        let mut line = json!({
            "sends_per_s": self.sends_per_s,
            "refs_per_s": self.references_per_s,
            "lat": self.latency,
            "errors": self.tally.errors.total(),
            "errors_by_code": self.tally.errors,
            "first_error": self.tally.first_error,
            "all_sends": self.tally.all,
            "server_cpu_us_per_send": self.usage.node_us_each,
            "disk_bytes_per_send": self.disk_bytes_each,
            "written_bytes_per_send": self.written_bytes_each,
            "rss_mb": mib(&self.after, |node| node.resident),
            "rss_peak_mb": mib(&self.after, |node| node.peak),
            "disk_mb": mib(&self.after, |node| node.data),
            "stored": stored(&self.after),
        });
        super::report::extend(&mut line, self.usage.json());
        line
    }

    /// For people.
    pub(crate) fn print(&self, addresses: &[String]) {
        say!(
            "send: {} sends/s, {} references/s",
            number(self.sends_per_s as u64),
            number(self.references_per_s as u64)
        );
        say!("  acknowledged after {}", latency_line(&self.latency));
        print_failures(&self.tally);
        self.usage.print(addresses, &self.after);
        say!(
            "  a send, all nodes together: {} µs of processor, {} bytes more on disk, {} bytes written",
            shown(self.usage.node_us_each),
            shown(self.disk_bytes_each),
            shown(self.written_bytes_each)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_connection_has_a_sender_and_every_sender_a_connection() {
        for (senders, connections) in [(3, 7), (4, 4), (7, 3), (1, 5), (5, 1)] {
            let mut taken = vec![0; connections];
            for sender in 0..senders {
                let places = places(sender, senders, connections);
                assert!(!places.is_empty());
                for place in places {
                    taken[place] += 1;
                }
            }
            let shared = senders.div_ceil(connections);
            assert!(taken.iter().all(|count| (1..=shared).contains(count)), "{taken:?}");
        }
    }
}

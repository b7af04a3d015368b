//! The phase `connect`: many connections that do nothing, and what each costs a node.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt as _};
use roost_client::protocol::limits::DEFAULT_WINDOW;
use roost_client::{ClientError, Connection, Pushes};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::costs::Costs;
use super::progress::Progress;
use super::report::{extend, latency_line, print_failures};
use super::session::{Nodes, Seat};
use super::stage::Stage;
use super::tally::{Counters, LatencySummary, Tally};
use super::usage::{Usage, growth_each, mib, shown, tenth};
use super::window::Window;
use crate::cli::output::{number, say};

/// The nodes get this long to come to rest before memory is looked at.
const SETTLE: Duration = Duration::from_secs(1);
/// Times that a connection is tried.
const ATTEMPTS: usize = 5;
/// Between two of them.
const PAUSE: Duration = Duration::from_millis(100);

/// The outcome.
pub(crate) struct Connected {
    tally: Tally,
    latency: LatencySummary,
    connects_per_s: f64,
    opened: usize,
    /// Those that stood at the end.
    alive: usize,
    bytes_each: Option<f64>,
    usage: Usage,
    after: Costs,
}

/// Runs the phase: opens so many, then looks on while nothing happens.
///
/// # Errors
/// None of its own; what fails is counted.
pub(crate) async fn measure(stage: &Stage, count: usize) -> anyhow::Result<Connected> {
    let counters = Arc::new(Counters::default());
    let _progress = Progress::start("connecting", counters.clone());
    let before = stage.meter.read().await;
    let started = Instant::now();
    let opening = (0..count).map(|user| open(&stage.nodes, user, &counters));
    let mut opening = stream::iter(opening).buffer_unordered(stage.concurrency);
    let (mut tally, mut open) = (Tally::default(), Vec::with_capacity(count));
    while let Some(opened) = opening.next().await {
        match opened {
            Ok((connection, took)) => {
                tally.latencies.record(took);
                open.push(connection);
            }
            Err(error) => tally.failed(&error),
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    sleep(SETTLE).await;
    let settled = stage.meter.read().await;
    let window = Window::from_now(Duration::ZERO, stage.seconds);
    let (first, last) = window.costs(&stage.meter).await;
    let alive = open.iter().filter(|(connection, _)| connection.close_reason().is_none()).count();
    Ok(Connected {
        latency: tally.latencies.summary(),
        connects_per_s: tenth(open.len() as f64 / seconds),
        opened: open.len(),
        alive,
        bytes_each: growth_each(&before, &settled, open.len() as u64, |node| node.resident),
        usage: Usage::new(&first, &last, window.seconds(), 1),
        after: last,
        tally,
    })
}

/// Opens one connection, if need be with several attempts; how long it took from the first.
async fn open(
    nodes: &Nodes,
    user: usize,
    counters: &Counters,
) -> Result<((Connection, Pushes), Duration), ClientError> {
    let seat = Seat { user, device: "bench-idle", node: user, window: DEFAULT_WINDOW };
    let options = nodes.options(seat).map_err(|error| ClientError::Invalid(error.to_string()))?;
    let started = Instant::now();
    let mut attempt = 1;
    loop {
        match Connection::open(&options).await {
            Ok(opened) => {
                counters.done();
                return Ok((opened, started.elapsed()));
            }
            Err(error) if error.retry() && attempt < ATTEMPTS => {
                attempt += 1;
                sleep(error.retry_after().unwrap_or(PAUSE)).await;
            }
            Err(error) => {
                counters.failed();
                return Err(error);
            }
        }
    }
}

impl Connected {
    /// For machines.
    pub(crate) fn json(&self) -> Value {
        let mut line = json!({
            "connects_per_s": self.connects_per_s,
            "lat": self.latency,
            "opened": self.opened,
            "alive": self.alive,
            "rss_bytes_each": self.bytes_each,
            "rss_mb": mib(&self.after, |node| node.resident),
            "errors": self.tally.errors.total(),
            "errors_by_code": self.tally.errors,
            "first_error": self.tally.first_error,
        });
        extend(&mut line, self.usage.json());
        line
    }

    /// For people.
    pub(crate) fn print(&self, addresses: &[String]) {
        say!(
            "connect: {} connections, {} a second; {} stood at the end",
            number(self.opened as u64),
            number(self.connects_per_s as u64),
            number(self.alive as u64)
        );
        say!("  connected after {}", latency_line(&self.latency));
        print_failures(&self.tally);
        say!("  then, while nothing happens:");
        self.usage.print(addresses, &self.after);
        say!("  a connection: {} bytes of a node's memory", shown(self.bytes_each));
    }
}

//! Sends that are due by the clock: at a fixed rate, whether or not those before are answered.
//!
//! A thread of its own keeps the time. It wakes up every millisecond and hands all sends that have
//! become due to their connections; that they were late counts as theirs. To wake up for each would
//! cost the machine more than sending does, where nodes share it. A task for each send waits for the
//! answer. If the cluster falls so far behind that very many wait, further sends are given up and
//! counted as `not_sent`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use parking_lot::Mutex;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use roost_client::protocol::{OkBody, Operation};
use roost_client::{ClientError, PendingReply};
use tokio::runtime::Handle;
use tokio::time::sleep;

use super::send::Senders;
use super::tally::Tally;
use super::window::Window;

/// Sends that may wait for an answer, over all connections.
const MOST_WAITING: usize = 50_000;
/// Between two looks at what has become due.
const TICK: Duration = Duration::from_millis(1);
/// Between two looks at what still waits at the end.
const LOOK: Duration = Duration::from_millis(5);
/// Beyond this, what waits is left.
const PATIENCE: Duration = Duration::from_secs(35);

/// The sends that are under way, and what became of the others.
struct Waiting {
    count: AtomicUsize,
    /// One for each session, so that they do not wait for each other.
    tallies: Vec<Mutex<Tally>>,
}

/// One send.
#[derive(Clone, Copy)]
struct Due {
    at: Instant,
    place: usize,
    references: u64,
}

impl Senders {
    /// Sends at a rate, so many at a time, until the window ends, and waits for what is under way.
    ///
    /// # Errors
    /// A task has panicked.
    pub(crate) async fn open_loop(
        self: &Arc<Self>,
        rate: f64,
        burst: usize,
        window: Window,
    ) -> anyhow::Result<Tally> {
        let tallies = self.sessions.iter().map(|_| Mutex::default()).collect();
        let waiting = Arc::new(Waiting { count: AtomicUsize::new(0), tallies });
        let pace = {
            let burst = burst as u64;
            let (senders, waiting, runtime) = (self.clone(), waiting.clone(), Handle::current());
            let due = move |count: u64| {
                window.start + Duration::from_secs_f64((count - count % burst) as f64 / rate)
            };
            tokio::task::spawn_blocking(move || senders.pace(due, window, &waiting, &runtime))
        };
        let not_sent = pace.await.context("the clock has stopped")?;
        let deadline = Instant::now() + PATIENCE;
        while waiting.count.load(Ordering::Relaxed) > 0 && Instant::now() < deadline {
            sleep(LOOK).await;
        }
        let mut sum = Tally::default();
        for tally in &waiting.tallies {
            sum.add(std::mem::take(&mut tally.lock()));
        }
        sum.errors.count_as("not_sent", not_sent);
        sum.errors.count_as("no_answer", waiting.count.load(Ordering::Relaxed) as u64);
        Ok(sum)
    }

    /// Keeps the time; returns how many sends it gave up.
    fn pace(
        self: &Arc<Self>,
        due_at: impl Fn(u64) -> Instant,
        window: Window,
        waiting: &Arc<Waiting>,
        runtime: &Handle,
    ) -> u64 {
        let mut rng = SmallRng::from_os_rng();
        let mut not_sent = 0;
        for count in 0_u64.. {
            let at = due_at(count);
            if at >= window.end {
                break;
            }
            if let Some(early) = at.checked_duration_since(Instant::now()) {
                std::thread::sleep(early.max(TICK));
            }
            if waiting.count.load(Ordering::Relaxed) >= MOST_WAITING {
                not_sent += 1;
                self.counters.failed();
                continue;
            }
            let place = count as usize % self.sessions.len();
            let draw = self.plan.draw(place, &mut rng);
            let client_id = self.plan.client_id(place, count);
            let operation = self.message(draw.conversation, client_id, &mut rng);
            let due = Due { at, place, references: draw.references };
            let submitted = self.sessions[place].try_submit(&operation);
            waiting.count.fetch_add(1, Ordering::Relaxed);
            runtime.spawn(self.clone().settle(due, operation, submitted, window, waiting.clone()));
        }
        not_sent
    }

    /// Waits for one send's answer and counts it.
    async fn settle(
        self: Arc<Self>,
        due: Due,
        operation: Operation,
        submitted: Result<Option<PendingReply>, ClientError>,
        window: Window,
        waiting: Arc<Waiting>,
    ) {
        let session = &self.sessions[due.place];
        let answer: Result<OkBody, ClientError> = match submitted {
            Ok(Some(pending)) => pending.wait().await,
            // Not over the connection, or too many are in flight on it: the send waits its turn, and its
            // clock runs.
            Ok(None) => session.ask(&operation).await,
            Err(error) => Err(error),
        };
        let ended = Instant::now();
        if let Err(error) = &answer {
            self.counters.failed();
            waiting.tallies[due.place].lock().failed(error);
            session.recover(error).await;
        } else {
            self.counters.done();
            let mut tally = waiting.tallies[due.place].lock();
            tally.all += 1;
            if window.measures(ended) {
                tally.answered += 1;
                tally.references += due.references;
            }
            if window.measures(due.at) {
                tally.latencies.record(ended - due.at);
            }
        }
        waiting.count.fetch_sub(1, Ordering::Relaxed);
    }
}

//! The phase `push`: from a sender at one node to a session that waits at another.
//!
//! Pairs of users: one sends a message to the other, waits for its acknowledgement and until the
//! other has it, and sends the next. Both ends are in this process, so one clock measures both. With
//! a rate, the pairs together begin so many a second.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use roost_client::protocol::limits::MAX_WINDOW;
use roost_client::protocol::request::{Ack, SendMessage};
use roost_client::protocol::{Body, CompactString, ItemContent, OkBody, Operation, Push, Target};
use roost_client::{ClientError, Pushes};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};

use super::costs::Costs;
use super::prepare::PATIENCE;
use super::progress::Progress;
use super::report::{extend, latency_line, print_failures};
use super::session::{Seat, Session};
use super::stage::Stage;
use super::tally::{Counters, Latencies, LatencySummary, Tally};
use super::usage::{Usage, tenth};
use super::window::Window;
use super::workload::{Workload, user_name};
use crate::cli::output::{number, say};

/// Pairs opened at once.
const OPENING: usize = 32;
/// Items that a receiver takes before it acknowledges them.
const ACK_EVERY: u64 = 256;
/// How long a push may take.
const PUSH_TIMEOUT: Duration = Duration::from_secs(10);

/// A message that reached its receiver.
struct Arrival {
    client_id: CompactString,
    at: Instant,
}

/// A sender and the way to hear of its receiver.
struct Pair {
    index: usize,
    sender: Arc<Session>,
    conversation: CompactString,
    arrivals: mpsc::Receiver<Arrival>,
    plan: Arc<Workload>,
}

/// What one pair counted. The tally's latencies are those of the acknowledgement.
#[derive(Default)]
struct Counted {
    tally: Tally,
    /// From sending to push.
    whole: Latencies,
    /// From acknowledgement to push; 0 if the push was first.
    after_ack: Latencies,
    /// Pushes that came before the sender's acknowledgement.
    before_ack: u64,
}

/// The outcome.
pub(crate) struct Pushed {
    tally: Tally,
    acknowledged: LatencySummary,
    whole: LatencySummary,
    after_ack: LatencySummary,
    before_ack: u64,
    pushes_per_s: f64,
    pairs: usize,
    usage: Usage,
    after: Costs,
}

/// Runs the phase.
///
/// # Errors
/// The pairs cannot be made, or a task has panicked; what fails meanwhile is counted.
pub(crate) async fn measure(stage: &Stage) -> anyhow::Result<Pushed> {
    let pairs = stage.concurrency.min(stage.plan.users / 2);
    if pairs == 0 {
        bail!("--users {}: a push needs two", stage.plan.users);
    }
    let opening = (0..pairs).map(|index| Pair::open(stage, index, pairs));
    let open: Vec<Pair> = stream::iter(opening).buffered(OPENING).try_collect().await?;
    let counters = Arc::new(Counters::default());
    let _progress = Progress::start("pushing", counters.clone());
    let window = stage.window();
    let interval = stage.rate.map(|rate| Duration::from_secs_f64(pairs as f64 / rate));
    let mut tasks = JoinSet::new();
    for pair in open {
        tasks.spawn(pair.keep_sending(interval, counters.clone(), window));
    }
    let (first, last) = window.costs(&stage.meter).await;
    let mut sum = Counted::default();
    while let Some(ended) = tasks.join_next().await {
        sum.add(ended.context("a pair has stopped")?);
    }
    let seconds = window.seconds();
    Ok(Pushed {
        acknowledged: sum.tally.latencies.summary(),
        whole: sum.whole.summary(),
        after_ack: sum.after_ack.summary(),
        before_ack: sum.before_ack,
        pushes_per_s: tenth(sum.tally.answered as f64 / seconds),
        pairs,
        usage: Usage::new(&first, &last, seconds, sum.tally.answered),
        after: last,
        tally: sum.tally,
    })
}

impl Counted {
    fn add(&mut self, other: Self) {
        self.tally.add(other.tally);
        self.whole.add(&other.whole);
        self.after_ack.add(&other.after_ack);
        self.before_ack += other.before_ack;
    }
}

impl Pair {
    /// Connects both, the receiver at the node after the sender's, and makes their conversation.
    async fn open(stage: &Stage, index: usize, pairs: usize) -> anyhow::Result<Self> {
        let seat = Seat { user: index, device: "bench-push", node: index, window: 0 };
        let (sender, _pushes) = Session::open(&stage.nodes, seat).await?;
        let receiver = pairs + index;
        let to = Target::User(user_name(receiver));
        let client_id = stage.plan.client_id_for("push", index, 0);
        let first = send(to, client_id, "bench".into());
        let answer = sender.insist(&first, PATIENCE).await;
        let OkBody::Sent(sent) = answer.context("a conversation could not be made")? else {
            bail!("an answer to another operation");
        };
        let seat =
            Seat { user: receiver, device: "bench-push", node: index + 1, window: MAX_WINDOW };
        let (receiver, pushes) = Session::open(&stage.nodes, seat).await?;
        let (sent_on, arrivals) = mpsc::channel(16);
        tokio::spawn(receive(receiver, pushes, sent_on));
        Ok(Self {
            index,
            sender: Arc::new(sender),
            conversation: sent.conversation,
            arrivals,
            plan: stage.plan.clone(),
        })
    }

    async fn keep_sending(
        mut self,
        interval: Option<Duration>,
        counters: Arc<Counters>,
        window: Window,
    ) -> Counted {
        let mut counted = Counted::default();
        let mut rng = SmallRng::from_os_rng();
        // The pairs begin at different moments.
        let offset = self.index as f64 * 0.618 % 1.0;
        let mut due = Instant::now() + interval.unwrap_or_default().mul_f64(offset);
        for count in 1.. {
            if let Some(interval) = interval {
                sleep_until(due.into()).await;
                due = (due + interval).max(Instant::now());
            }
            let started = Instant::now();
            if started >= window.end {
                break;
            }
            let client_id = self.plan.client_id_for("push", self.index, count);
            let target = Target::Conversation(self.conversation.clone());
            let message = send(target, client_id.clone(), self.plan.body(&mut rng));
            let acknowledged = self.sender.ask(&message).await.map(|_| Instant::now());
            let outcome = match acknowledged {
                Ok(acknowledged) => self.arrival(&client_id).await.map(|at| (acknowledged, at)),
                Err(error) => Err(error),
            };
            match outcome {
                Ok((acknowledged, arrived)) => {
                    counters.done();
                    counted.tally.all += 1;
                    if window.measures(arrived) {
                        counted.tally.answered += 1;
                        counted.tally.latencies.record(acknowledged - started);
                        counted.whole.record(arrived - started);
                        counted.after_ack.record(arrived.saturating_duration_since(acknowledged));
                        counted.before_ack += u64::from(arrived < acknowledged);
                    }
                }
                Err(error) => {
                    counters.failed();
                    counted.tally.failed(&error);
                    self.sender.recover(&error).await;
                }
            }
        }
        counted
    }

    /// When a message reached the receiver; those of failed sends are passed over.
    async fn arrival(&mut self, client_id: &CompactString) -> Result<Instant, ClientError> {
        let found = async {
            while let Some(arrival) = self.arrivals.recv().await {
                if arrival.client_id == client_id {
                    return Some(arrival.at);
                }
            }
            None
        };
        match timeout(PUSH_TIMEOUT, found).await {
            Ok(Some(at)) => Ok(at),
            Ok(None) => Err(ClientError::Protocol("the receiver's connection has ended".into())),
            Err(_) => Err(ClientError::DeadlineExceeded),
        }
    }
}

fn send(target: Target, client_id: CompactString, body: Body) -> Operation {
    Operation::Send(SendMessage { target, client_id, body, content_type: None, ttl_ms: None })
}

/// Takes what is pushed, says when it came, and acknowledges it now and then.
async fn receive(session: Session, mut pushes: Pushes, arrivals: mpsc::Sender<Arrival>) {
    let session = Arc::new(session);
    let mut acknowledged = 0;
    while let Some(push) = pushes.next().await {
        let at = Instant::now();
        let Push::Items(items) = push else { continue };
        let Some(newest) = items.items.last().map(|item| item.seq) else { continue };
        for item in items.items {
            let ItemContent::Message { message, .. } = item.content else { continue };
            if arrivals.send(Arrival { client_id: message.client_id, at }).await.is_err() {
                return;
            }
        }
        if newest >= acknowledged + ACK_EVERY {
            acknowledged = newest;
            let session = session.clone();
            // A later one says the same if this one fails.
            tokio::spawn(
                async move { drop(session.ask(&Operation::Ack(Ack { seq: newest })).await) },
            );
        }
    }
}

impl Pushed {
    /// For machines.
    pub(crate) fn json(&self) -> Value {
        let mut line = json!({
            "pushes_per_s": self.pushes_per_s,
            "ack_to_push": self.after_ack,
            "send_to_push": self.whole,
            "lat": self.acknowledged,
            "before_ack": self.before_ack,
            "pairs": self.pairs,
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
            "push: {} pushes/s to {} sessions, each at another node than its sender",
            number(self.pushes_per_s as u64),
            self.pairs
        );
        say!("  acknowledged after   {}", latency_line(&self.acknowledged));
        say!("  pushed after sending {}", latency_line(&self.whole));
        say!("  pushed after the ack {}", latency_line(&self.after_ack));
        say!(
            "  {} of {} came before the sender's acknowledgement",
            number(self.before_ack),
            number(self.whole.count)
        );
        print_failures(&self.tally);
        self.usage.print(addresses, &self.after);
    }
}

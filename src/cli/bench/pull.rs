//! The phase `pull`: the newest items of random users, each with its message.
//!
//! First some users get messages through groups of ten among themselves, so that each has the same
//! number of newest items. Then readers pull them, one pull in flight each.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use rand::rngs::SmallRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use roost_client::ClientError;
use roost_client::protocol::request::{Pull, SendMessage};
use roost_client::protocol::{ItemContent, OkBody, Operation, Target};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::costs::Costs;
use super::prepare::{PATIENCE, group_of, make, open_sessions};
use super::progress::Progress;
use super::report::{extend, latency_line, print_failures};
use super::session::Session;
use super::stage::Stage;
use super::tally::{Counters, LatencySummary, Tally};
use super::usage::{Usage, shown, tenth};
use super::window::Window;
use super::workload::Workload;
use crate::cli::output::{number, say};

/// Users whose queues are read.
const USERS: usize = 200;
/// Members of each of their groups.
const GROUP: usize = 10;
/// Groups that each of them is in.
const ROUNDS: usize = 10;
/// Messages of each group.
const MESSAGES: usize = 5;
/// Items that a pull asks for: exactly those that the groups brought.
const ITEMS: usize = ROUNDS * MESSAGES;
/// Groups filled at once.
const FILLING: usize = 64;

/// A user whose queue is read.
struct Queue {
    session: Arc<Session>,
    /// Its newest sequence.
    tail: u64,
}

/// The outcome.
pub(crate) struct Pulled {
    tally: Tally,
    latency: LatencySummary,
    pulls_per_s: f64,
    messages_per_s: f64,
    /// Pulls that brought fewer messages than there are.
    short: u64,
    readers: usize,
    usage: Usage,
    after: Costs,
}

/// Runs the phase.
///
/// # Errors
/// The queues cannot be filled, or a task has panicked; what is refused meanwhile is counted.
pub(crate) async fn measure(stage: &Stage, readers: usize) -> anyhow::Result<Pulled> {
    let users = USERS.min(stage.plan.users / GROUP * GROUP);
    let sessions = open_sessions(&stage.nodes, users, "bench-pull").await?;
    fill(&stage.plan, &sessions).await?;
    let queues = Arc::new(find_tails(sessions).await?);
    let counters = Arc::new(Counters::default());
    let _progress = Progress::start("pulling", counters.clone());
    let window = stage.window();
    let mut tasks = JoinSet::new();
    for _ in 0..readers {
        tasks.spawn(keep_pulling(queues.clone(), counters.clone(), window));
    }
    let (first, last) = window.costs(&stage.meter).await;
    let (mut tally, mut short) = (Tally::default(), 0);
    while let Some(ended) = tasks.join_next().await {
        let (one, missing) = ended.context("a reader has stopped")?;
        tally.add(one);
        short += missing;
    }
    let seconds = window.seconds();
    Ok(Pulled {
        latency: tally.latencies.summary(),
        pulls_per_s: tenth(tally.answered as f64 / seconds),
        messages_per_s: tenth(tally.references as f64 / seconds),
        short,
        readers,
        usage: Usage::new(&first, &last, seconds, tally.answered),
        after: last,
        tally,
    })
}

/// Gives each user as many newest items as a pull asks for.
async fn fill(plan: &Workload, sessions: &[Arc<Session>]) -> anyhow::Result<()> {
    let mut users: Vec<usize> = (0..sessions.len()).collect();
    let mut rng = SmallRng::seed_from_u64(2);
    let mut groups = Vec::new();
    for _ in 0..ROUNDS {
        users.shuffle(&mut rng);
        groups.extend(users.chunks(GROUP).map(<[usize]>::to_vec));
    }
    let making = groups.iter().enumerate().map(|(index, members)| async move {
        let client_id = plan.client_id_for("fill", index, 0);
        make(&sessions[members[0]], &group_of(&members[1..], client_id)).await
    });
    let ids: Vec<_> = stream::iter(making).buffered(FILLING).try_collect().await?;
    let sending = ids.iter().zip(&groups).enumerate().map(|(index, (id, members))| async move {
        for count in 1..=MESSAGES {
            let send = Operation::Send(SendMessage {
                target: Target::Conversation(id.clone()),
                client_id: plan.client_id_for("fill", index, count as u64),
                body: plan.body(&mut SmallRng::seed_from_u64(count as u64)),
                content_type: None,
                ttl_ms: None,
            });
            let sent = sessions[members[0]].insist(&send, PATIENCE).await;
            sent.context("a queue could not be filled")?;
        }
        Ok::<_, anyhow::Error>(())
    });
    stream::iter(sending).buffer_unordered(FILLING).try_collect().await
}

/// Where each queue ends, as a linearizable look says.
async fn find_tails(sessions: Vec<Arc<Session>>) -> anyhow::Result<Vec<Queue>> {
    let looking = sessions.into_iter().map(|session| async move {
        let pull = Pull { limit: Some(1), linearizable: true, ..Pull::default() };
        match session.insist(&Operation::Pull(pull), PATIENCE).await? {
            OkBody::Page(page) => Ok(Queue { session, tail: page.tail }),
            _ => Err(ClientError::Protocol("an answer to another operation".into()).into()),
        }
    });
    stream::iter(looking).buffered(FILLING).try_collect().await
}

async fn keep_pulling(
    queues: Arc<Vec<Queue>>,
    counters: Arc<Counters>,
    window: Window,
) -> (Tally, u64) {
    let mut rng = SmallRng::from_os_rng();
    let (mut tally, mut short) = (Tally::default(), 0);
    loop {
        let started = Instant::now();
        if started >= window.end {
            return (tally, short);
        }
        let queue = &queues[rng.random_range(0..queues.len())];
        let after = queue.tail.saturating_sub(ITEMS as u64);
        let pull = Pull { after, limit: Some(ITEMS as u32), ..Pull::default() };
        match queue.session.ask(&Operation::Pull(pull)).await {
            Ok(answer) => {
                let ended = Instant::now();
                tally.all += 1;
                counters.done();
                if window.measures(ended) {
                    let messages = messages(&answer);
                    tally.answered += 1;
                    tally.references += messages as u64;
                    short += u64::from(messages < ITEMS);
                    tally.latencies.record(ended - started);
                }
            }
            Err(error) => {
                tally.failed(&error);
                counters.failed();
                queue.session.recover(&error).await;
            }
        }
    }
}

fn messages(answer: &OkBody) -> usize {
    let OkBody::Page(page) = answer else { return 0 };
    page.items.iter().filter(|item| matches!(item.content, ItemContent::Message { .. })).count()
}

impl Pulled {
    /// For machines.
    pub(crate) fn json(&self) -> Value {
        let mut line = json!({
            "pulls_per_s": self.pulls_per_s,
            "msgs_per_s": self.messages_per_s,
            "lat": self.latency,
            "n": ITEMS,
            "concurrency": self.readers,
            "short": self.short,
            "errors": self.tally.errors.total(),
            "errors_by_code": self.tally.errors,
            "first_error": self.tally.first_error,
            "server_cpu_us_per_pull": self.usage.node_us_each,
        });
        extend(&mut line, self.usage.json());
        line
    }

    /// For people.
    pub(crate) fn print(&self, addresses: &[String]) {
        say!(
            "pull: {} pulls/s of {ITEMS} items, {} messages/s, {} readers",
            number(self.pulls_per_s as u64),
            number(self.messages_per_s as u64),
            self.readers
        );
        say!("  answered after {}", latency_line(&self.latency));
        if self.short > 0 {
            say!("  {} brought fewer messages than there are", number(self.short));
        }
        print_failures(&self.tally);
        self.usage.print(addresses, &self.after);
        say!("  a pull, all nodes together: {} µs of processor", shown(self.usage.node_us_each));
    }
}

//! `roost bench`: load on a cluster, and what it bears.
//!
//! [`workload`] says who talks to whom, [`session`] connects, [`prepare`] makes the conversations.
//! [`stage`] is what the phases stand on; then they come: [`send`] (by the clock in [`open_loop`]),
//! [`push`], [`pull`], [`connect`]. [`window`] says when they measure, [`tally`] what they count,
//! [`costs`] and [`usage`] what it cost; [`progress`] shows it while it runs, [`report`] at the end.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use clap::{Args, ValueEnum};
use roost_client::protocol::limits::MAX_BODY_BYTES;
use roost_client::{Endpoint, Transport, Trust};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::output::say;
use super::target::{Link, Target};

mod workload;
mod tally;
mod session;
mod costs;
mod progress;
mod window;
mod usage;
mod stage;
mod prepare;
mod send;
mod open_loop;
mod push;
mod pull;
mod back_end;
mod connect;
mod report;

use back_end::BackEnd;
use costs::Meter;
use report::{Outcome, Setting};
use session::{CALL_TIMEOUT, Nodes, Session};
use stage::Stage;
use workload::{Group, Workload};

/// Most senders, connections and users that are accepted: beyond, it is a typing error.
const MOST: usize = 10_000_000;
/// Connections that send if nothing else is said, unless there are fewer senders.
const DEFAULT_SENDING: usize = 64;
/// How long nodes may take to come to rest after the conversations are made.
const REST: Duration = Duration::from_secs(20);
/// Connections that the phase `connect` opens if nothing else is said.
const DEFAULT_IDLE: usize = 1_000;

/// Put load on a cluster and measure it
///
/// Makes conversations among many users, then runs the phases, and says how much the cluster did,
/// how fast, and what it cost each node. The nodes' data stays: use a cluster made for it.
///
/// The connections are spread over all nodes, each one user's. WebSocket connections speak
/// MessagePack.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  roost bench --seconds 5
  roost bench --phase send,push,pull --group 10 --json
  roost bench --rate 5000 --seconds 30               sends that are due by the clock
  roost bench --rate 5000 --burst 2500 --skew 1      all at once, twice a second, most of them to a few
  roost bench --http --phase send,pull               as an application's back end
  roost bench --phase connect --connections 20000 --websocket --nodes 1
  roost bench --addr 10.0.0.1:7070,10.0.0.2:7070 --keys ./keys")]
pub(crate) struct Bench {
    /// What to measure, in this order
    #[arg(long, value_enum, value_name = "PHASE,…", value_delimiter = ',', default_value = "send")]
    phase: Vec<Phase>,
    /// How many users there are
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = count)]
    users: usize,
    /// Bytes of a message
    #[arg(long, value_name = "BYTES", default_value_t = 200, value_parser = body)]
    body: usize,
    /// Members of a conversation; mix: half the sends to 2, half to 10
    #[arg(long, value_name = "N|mix", default_value = "mix")]
    group: Group,
    /// Conversations of each size, at least one for each connection [default: so many that each user
    /// is in five of them]
    #[arg(long, value_name = "N", value_parser = count)]
    conversations: Option<usize>,
    /// Senders, each with one send in flight; in other phases pairs, or connections opened at a time
    #[arg(short, long, value_name = "N", default_value_t = 64, value_parser = count)]
    concurrency: usize,
    /// Connections that send, each one user's [default: one for each sender, at most 64]; where they are
    /// more than senders, each send takes any of its sender's. Or those that `connect` opens [default:
    /// 1000]
    #[arg(long, value_name = "N", value_parser = count)]
    connections: Option<usize>,
    /// Sends a second, due by the clock; latency counts from when each was due [default: each sender
    /// sends when its last is acknowledged]
    #[arg(long, value_name = "N", value_parser = rate)]
    rate: Option<f64>,
    /// With --rate, so many sends become due at the same moment, and then none until as many more are
    #[arg(long, value_name = "N", default_value_t = 1, requires = "rate", value_parser = count)]
    burst: usize,
    /// How much likelier some users and conversations are than others: the exponent of Zipf's law; 1 is
    /// about what people do
    #[arg(long, value_name = "S", default_value_t = 0.0, value_parser = skew)]
    skew: f64,
    /// Readers of `pull`, each with one pull in flight
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = count)]
    readers: usize,
    /// Which of the nodes to connect to, by their place in the list of addresses, from 1 [default: all]
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    nodes: Vec<usize>,
    /// How long each phase measures
    #[arg(long, value_name = "S", default_value_t = 10.0, value_parser = seconds)]
    seconds: f64,
    /// How long each phase runs before it measures
    #[arg(long, value_name = "S", default_value_t = 2.0, value_parser = seconds)]
    warmup: f64,
    /// A name for this run in the JSON
    #[arg(long, value_name = "TEXT", default_value = "")]
    label: String,
    /// Print the outcome as one line of JSON
    #[arg(long)]
    json: bool,
    /// Send and pull as an application's back end does: by HTTP, on behalf of the users. Each request in
    /// flight has a connection of its own
    #[arg(long, conflicts_with = "websocket")]
    http: bool,
    #[command(flatten)]
    link: Link,
    #[command(flatten)]
    target: Target,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Phase {
    /// Messages, from sending to acknowledgement
    Send,
    /// Messages, from acknowledgement to a session at another node
    Push,
    /// Reading the newest 50 items of a queue
    Pull,
    /// Connections that do nothing
    Connect,
}

fn count(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=MOST).contains(number));
    number.ok_or_else(|| format!("not a number from 1 to {MOST}"))
}

fn body(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=MAX_BODY_BYTES).contains(number));
    number.ok_or_else(|| format!("not a number from 1 to {MAX_BODY_BYTES}"))
}

fn skew(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| (0.0..=4.0).contains(number));
    number.ok_or_else(|| "not a number from 0 to 4".into())
}

fn rate(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| (0.01..=1e7).contains(number));
    number.ok_or_else(|| "not a number of sends a second".into())
}

fn seconds(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| (0.0..=1e6).contains(number));
    number.ok_or_else(|| "not a number of seconds".into())
}

impl Bench {
    /// Prepares, measures, reports.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let connections = self.connections.unwrap_or(self.concurrency.min(DEFAULT_SENDING));
        self.check(connections)?;
        let addresses = self.target.addresses()?;
        let nodes = Arc::new(self.nodes(&addresses).await?);
        raise_file_limit();
        let mut plan = Workload::new(
            self.users,
            connections,
            self.group,
            self.conversations,
            self.body,
            self.skew,
        );
        let meter = Meter::new(&addresses)?;
        let mut sessions = None;
        if self.phase.contains(&Phase::Send) {
            let open = prepare::open_sessions(&nodes, connections, "bench").await?;
            prepare::make_conversations(&mut plan, &open).await?;
            meter.settle(REST).await;
            sessions = Some(open);
        }
        let stage = Stage {
            nodes,
            meter,
            plan: Arc::new(plan),
            concurrency: self.concurrency,
            rate: self.rate,
            burst: self.burst,
            warmup: Duration::from_secs_f64(self.warmup),
            seconds: Duration::from_secs_f64(self.seconds),
        };
        let setting = self.setting(connections, addresses);
        if !self.json {
            report::print_setting(&setting);
        }
        let mut outcomes = Vec::new();
        for phase in &self.phase {
            let sessions = sessions.as_deref().unwrap_or_default();
            let outcome = self.measure(*phase, &stage, sessions).await?;
            if !self.json {
                report::print(&setting, &outcome);
            }
            outcomes.push(outcome);
        }
        if self.json {
            say!("{}", report::line(&setting, &outcomes));
        }
        Ok(())
    }

    async fn measure(
        &self,
        phase: Phase,
        stage: &Stage,
        sessions: &[Arc<Session>],
    ) -> anyhow::Result<Outcome> {
        Ok(match phase {
            Phase::Send => Outcome::Send(send::measure(stage, sessions.to_vec()).await?),
            Phase::Push => Outcome::Push(push::measure(stage).await?),
            Phase::Pull => Outcome::Pull(pull::measure(stage, self.readers).await?),
            Phase::Connect => {
                let count = self.connections.unwrap_or(DEFAULT_IDLE);
                Outcome::Connect(connect::measure(stage, count).await?)
            }
        })
    }

    /// What flags alone do not say.
    fn check(&self, connections: usize) -> anyhow::Result<()> {
        if self.phase.contains(&Phase::Send) {
            let largest = self.group.sizes().into_iter().max().unwrap_or_default();
            let needed = largest.max(connections);
            if self.users < needed {
                bail!(
                    "--users {}: at least {needed} are needed for --group and --connections",
                    self.users
                );
            }
        }
        if self.seconds < 0.1 {
            bail!("--seconds {}: nothing can be measured in it", self.seconds);
        }
        Ok(())
    }

    async fn nodes(&self, addresses: &[String]) -> anyhow::Result<Nodes> {
        let mut endpoints = Vec::new();
        for place in self
            .nodes
            .iter()
            .copied()
            .chain((1..=addresses.len()).take_while(|_| self.nodes.is_empty()))
        {
            let Some(address) = place.checked_sub(1).and_then(|index| addresses.get(index)) else {
                bail!("--nodes {place}: there are {} nodes", addresses.len());
            };
            endpoints.push(address.parse::<Endpoint>()?);
        }
        let (transport, trust) = match self.link.websocket {
            // A WebSocket has no certificate to check.
            true => (Transport::WebSocketMessagePack, Trust::Insecure),
            false => (Transport::Quic, self.target.trust(&self.link)?),
        };
        let back_end = match self.http {
            true => Some(BackEnd::new(self.target.admin_token()?, CALL_TIMEOUT)?),
            false => None,
        };
        Nodes::new(endpoints, trust, transport, self.target.minter()?, back_end).await
    }

    fn setting(&self, connections: usize, addresses: Vec<String>) -> Setting {
        Setting {
            label: self.label.clone(),
            group: self.group,
            concurrency: self.concurrency,
            rate: self.rate,
            burst: self.burst,
            skew: self.skew,
            users: self.users,
            body: self.body,
            seconds: self.seconds,
            connections,
            transport: match (self.http, self.link.websocket) {
                (true, _) => "http",
                (false, true) => "websocket",
                (false, false) => "quic",
            },
            addresses,
        }
    }
}

/// Lets this process open as many connections as the system allows it.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Where that is refused, the connections that are too many fail and say why.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

//! `roost bench`: load on a cluster, and what it bears.
//!
//! [`workload`] says who talks to whom, [`session`] connects, [`prepare`] makes the conversations.
//! Then come the phases: [`send`]. [`window`] says when they measure, [`tally`] what they count,
//! [`costs`] what it cost the nodes; [`progress`] shows it while it runs, [`report`] at the end.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use clap::{Args, ValueEnum};
use roost_client::protocol::limits::MAX_BODY_BYTES;
use roost_client::{Endpoint, Transport, Trust};
use tokio::time::sleep;

use super::output::say;
use super::target::{Link, Target};

mod workload;
mod tally;
mod session;
mod costs;
mod progress;
mod window;
mod prepare;
mod send;
mod report;

use costs::Meter;
use progress::Progress;
use report::{Report, SendReport, Setting};
use send::Senders;
use session::Nodes;
use tally::Counters;
use window::Window;
use workload::{Group, Workload};

/// Most senders, connections and users that are accepted: beyond, it is a typing error.
const MOST: usize = 10_000_000;
/// What is written behind gets this long to reach the disk before space is looked at.
const SETTLE: Duration = Duration::from_millis(1_200);

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
  roost bench --group 100 --concurrency 256 --websocket --json
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
    /// Sends in flight at a time, or readers
    #[arg(short, long, value_name = "N", default_value_t = 64, value_parser = count)]
    concurrency: usize,
    /// Connections that send, each one user's [default: one for each sender, at most 64]
    #[arg(long, value_name = "N", value_parser = count)]
    connections: Option<usize>,
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
}

fn count(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=MOST).contains(number));
    number.ok_or_else(|| format!("not a number from 1 to {MOST}"))
}

fn body(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=MAX_BODY_BYTES).contains(number));
    number.ok_or_else(|| format!("not a number from 1 to {MAX_BODY_BYTES}"))
}

fn seconds(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| (0.0..=1e6).contains(number));
    number.ok_or_else(|| "not a number of seconds".into())
}

impl Bench {
    /// Prepares, measures, reports.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let connections = self.connections.unwrap_or(self.concurrency.min(64));
        self.check(connections)?;
        let addresses = self.target.addresses()?;
        let nodes = Arc::new(self.nodes(&addresses)?);
        let meter = Meter::new(&addresses)?;
        let mut plan = Workload::new(self.users, connections, self.group, self.body);
        let sessions = prepare::open_sessions(&nodes, connections).await?;
        prepare::make_conversations(&mut plan, &sessions).await?;
        let senders = Arc::new(Senders {
            plan: Arc::new(plan),
            sessions,
            counters: Arc::new(Counters::default()),
        });
        let mut report = Report::new(self.setting(connections, addresses));
        for phase in &self.phase {
            match phase {
                Phase::Send => report.send = Some(self.send(&senders, &meter).await?),
            }
        }
        if self.json {
            say!("{}", report.json());
        } else {
            report.print();
        }
        Ok(())
    }

    /// What flags alone do not say.
    fn check(&self, connections: usize) -> anyhow::Result<()> {
        let largest = self.group.sizes().into_iter().max().unwrap_or_default();
        let needed = largest.max(connections);
        if self.users < needed {
            bail!(
                "--users {}: at least {needed} are needed for --group and --connections",
                self.users
            );
        }
        if self.concurrency < connections {
            bail!(
                "--concurrency {} is less than --connections {connections}: some would be idle",
                self.concurrency
            );
        }
        if self.seconds < 0.1 {
            bail!("--seconds {}: nothing can be measured in it", self.seconds);
        }
        Ok(())
    }

    fn nodes(&self, addresses: &[String]) -> anyhow::Result<Nodes> {
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
        Ok(Nodes { endpoints, trust, transport, minter: self.target.minter()? })
    }

    fn setting(&self, connections: usize, addresses: Vec<String>) -> Setting {
        Setting {
            label: self.label.clone(),
            group: self.group,
            concurrency: self.concurrency,
            users: self.users,
            body: self.body,
            seconds: self.seconds,
            connections,
            transport: if self.link.websocket { "websocket" } else { "quic" },
            addresses,
        }
    }

    fn window(&self) -> Window {
        Window::from_now(
            Duration::from_secs_f64(self.warmup),
            Duration::from_secs_f64(self.seconds),
        )
    }

    async fn send(&self, senders: &Arc<Senders>, meter: &Meter) -> anyhow::Result<SendReport> {
        let _progress = Progress::start("sending", senders.counters.clone());
        let before = meter.read().await;
        let window = self.window();
        let costs = window.costs(meter);
        let (tally, (first, last)) =
            tokio::join!(senders.closed_loop(self.concurrency, window), costs);
        sleep(SETTLE).await;
        let after = meter.read().await;
        Ok(SendReport::new(tally?, window.seconds(), &before, (&first, &last), &after))
    }
}

//! Each fault: how it begins and how it ends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{Rng as _, SeedableRng as _};
use tokio::task::JoinHandle;

use super::Kind;
use crate::cluster::Cluster;
use crate::links::{self, Weather};

/// Clients, as somebody whom a node may not hear.
const CLIENTS: u64 = 0;

/// Who does not hear whom.
type Cuts = BTreeMap<u64, BTreeSet<u64>>;

/// A fault that is under way.
pub(crate) struct Fault {
    pub(crate) name: String,
    pub(crate) nodes: Vec<u64>,
    end: End,
}

/// What ends it.
enum End {
    Start,
    GoOn,
    Join(u64),
    Flapping(u64, JoinHandle<anyhow::Result<()>>),
    Restarting(JoinHandle<anyhow::Result<()>>),
    Direct,
    Clock,
    Mend,
    /// The node must have ended by itself, unless another fault kept it from syncing.
    MustHaveEnded {
        alone: bool,
    },
}

impl Fault {
    /// Begins a fault; `id` tells it from others that are under way, unless it is `alone`. `None` if there is nothing to
    /// do it to.
    pub(crate) async fn begin(
        kind: Kind,
        id: u64,
        cluster: &Arc<Cluster>,
        rng: &mut StdRng,
        alone: bool,
    ) -> anyhow::Result<Option<Self>> {
        let mut nodes = cluster.numbers();
        nodes.shuffle(rng);
        let one = nodes[0];
        let fault = |name: &str, nodes: Vec<u64>, end| Self { name: name.to_owned(), nodes, end };
        Ok(Some(match kind {
            Kind::Kill => {
                cluster.hold_down(one).await?;
                fault("kill", vec![one], End::Start)
            }
            Kind::KillLeader => {
                let Some(leader) = cluster.leader().await else { return Ok(None) };
                cluster.hold_down(leader).await?;
                fault("kill the leader", vec![leader], End::Start)
            }
            Kind::KillAll => {
                for &node in &nodes {
                    cluster.hold_down(node).await?;
                }
                fault("kill all", nodes, End::Start)
            }
            Kind::Pause => {
                cluster.pause(one)?;
                fault("pause", vec![one], End::GoOn)
            }
            Kind::PauseLeader => {
                let Some(leader) = cluster.leader().await else { return Ok(None) };
                cluster.pause(leader)?;
                fault("pause the leader", vec![leader], End::GoOn)
            }
            Kind::Partition => Self::partition(id, cluster, rng, nodes).await?,
            Kind::Restart => {
                let task = tokio::spawn(restart_in_turn(cluster.clone(), nodes.clone()));
                fault("restart in turn", nodes, End::Restarting(task))
            }
            Kind::Slow => {
                let slow = if rng.random_bool(0.3) { nodes.clone() } else { vec![one] };
                for &node in &slow {
                    links::detour(node, &nodes, true).await?;
                }
                let weather = weather(rng);
                cluster.links.set(weather);
                fault(&format!("slow links: {}", describe(&weather)), slow, End::Direct)
            }
            Kind::Clock => {
                let far = rng.random_bool(0.5);
                let offset_ms = rng.random_range(-90_000..90_000) / if far { 1 } else { 100 };
                cluster.set_clock(one, offset_ms)?;
                fault(if far { "clock, far" } else { "clock, near" }, vec![one], End::Clock)
            }
            Kind::PowerLoss => {
                cut_power(cluster, &[one], rng).await?;
                fault("power loss", vec![one], End::Start)
            }
            Kind::PowerLossAll => {
                cut_power(cluster, &nodes, rng).await?;
                fault("power loss of all", nodes, End::Start)
            }
            Kind::FullDisk => {
                cluster.may_end(one, true);
                cluster.disk(one).fill(rng.random_range(0..200_000));
                fault("full disk", vec![one], End::Mend)
            }
            Kind::SlowDisk => {
                let each = Duration::from_millis(rng.random_range(20..600));
                cluster.disk(one).slow_syncs(each);
                fault("slow disk", vec![one], End::Mend)
            }
            Kind::FailedSync => {
                cluster.may_end(one, true);
                cluster.disk(one).fail_syncs();
                fault("failed sync", vec![one], End::MustHaveEnded { alone })
            }
        }))
    }

    async fn partition(
        id: u64,
        cluster: &Arc<Cluster>,
        rng: &mut StdRng,
        nodes: Vec<u64>,
    ) -> anyhow::Result<Self> {
        let (name, cuts) = shape(rng, &nodes);
        let nodes: Vec<u64> = cuts.keys().copied().collect();
        if rng.random_bool(0.2) {
            let period = Duration::from_millis(rng.random_range(150..1_200));
            let task = tokio::spawn(flap(id, cluster.clone(), cuts, period));
            let end = End::Flapping(id, task);
            return Ok(Self { name: format!("partition: {name}, flapping"), nodes, end });
        }
        cut(id, cluster, &cuts).await?;
        Ok(Self { name: format!("partition: {name}"), nodes, end: End::Join(id) })
    }

    /// Ends it: nodes that it took down are started, and are on their way when this returns.
    pub(crate) async fn end(self, cluster: &Arc<Cluster>) -> anyhow::Result<()> {
        match self.end {
            End::Start => {
                for node in self.nodes {
                    cluster.release(node)?;
                }
            }
            End::GoOn => {
                for node in self.nodes {
                    cluster.go_on(node)?;
                }
            }
            End::Join(id) => join(id, cluster).await?,
            End::Flapping(id, task) => {
                task.abort();
                // It was stopped on purpose.
                let _ = task.await;
                join(id, cluster).await?;
            }
            End::Restarting(task) => task.await??,
            End::Direct => {
                cluster.links.set(Weather::default());
                for node in self.nodes {
                    links::detour(node, &cluster.numbers(), false).await?;
                }
            }
            End::Clock => {
                for node in self.nodes {
                    cluster.set_clock(node, 0)?;
                }
            }
            End::Mend => {
                for node in self.nodes {
                    cluster.disk(node).mend();
                    cluster.may_end(node, false);
                    cluster.launch(node)?;
                }
            }
            End::MustHaveEnded { alone } => {
                for node in self.nodes {
                    if alone {
                        cluster.must_have_ended(node);
                    }
                    cluster.hold_down(node).await?;
                    // What a failed sync left is anybody's guess.
                    cluster.disk(node).lose_power(&mut StdRng::from_os_rng());
                    cluster.disk(node).mend();
                    cluster.may_end(node, false);
                    cluster.release(node)?;
                }
            }
        }
        Ok(())
    }
}

/// A partition's shape, over nodes in a random order.
fn shape(rng: &mut StdRng, nodes: &[u64]) -> (&'static str, Cuts) {
    let count = nodes.len();
    let mut cuts = Cuts::new();
    let mut deaf = |node: u64, to: u64| {
        cuts.entry(node).or_default().insert(to);
    };
    let name = match rng.random_range(0..6) {
        0 => {
            // One alone, with its clients: what it says, nobody may believe too long.
            for &other in &nodes[1..] {
                deaf(nodes[0], other);
                deaf(other, nodes[0]);
            }
            "one alone"
        }
        1 => {
            for &other in nodes.iter().skip(1).chain([&CLIENTS]) {
                deaf(nodes[0], other);
            }
            "one hears nobody"
        }
        2 => {
            let (few, many) = nodes.split_at(count / 2);
            for &one in few {
                for &other in many {
                    deaf(one, other);
                    deaf(other, one);
                }
            }
            "minority and majority"
        }
        3 => {
            // Everybody hears its two neighbours only; of three nodes, each loses one direction.
            for (at, &node) in nodes.iter().enumerate() {
                let next = nodes[(at + 1) % count];
                let before = nodes[(at + count - 1) % count];
                for &other in nodes.iter().filter(|&&other| other != node && other != next) {
                    if count == 3 || other != before {
                        deaf(node, other);
                    }
                }
            }
            "ring"
        }
        4 => {
            for &other in &nodes[1..] {
                deaf(other, nodes[0]);
            }
            "nobody hears one"
        }
        _ => {
            // Two halves that only the first node hears, and that both hear it.
            let half = 1 + (count - 1) / 2;
            for &one in &nodes[1..half.max(2)] {
                for &other in &nodes[half.max(2)..] {
                    deaf(one, other);
                    deaf(other, one);
                }
            }
            "bridge"
        }
    };
    (name, cuts)
}

async fn cut(id: u64, cluster: &Cluster, cuts: &Cuts) -> anyhow::Result<()> {
    for (&node, to) in cuts {
        cluster.deafen(id, node, to.clone()).await?;
    }
    Ok(())
}

async fn join(id: u64, cluster: &Cluster) -> anyhow::Result<()> {
    for node in cluster.numbers() {
        cluster.deafen(id, node, BTreeSet::new()).await?;
    }
    Ok(())
}

async fn flap(id: u64, cluster: Arc<Cluster>, cuts: Cuts, period: Duration) -> anyhow::Result<()> {
    loop {
        cut(id, &cluster, &cuts).await?;
        tokio::time::sleep(period).await;
        join(id, &cluster).await?;
        tokio::time::sleep(period).await;
    }
}

async fn restart_in_turn(cluster: Arc<Cluster>, nodes: Vec<u64>) -> anyhow::Result<()> {
    for node in nodes {
        cluster.stop(node).await?;
        cluster.launch(node)?;
        // With another fault about, it may not get ready; then it is left to the end.
        let _ = tokio::time::timeout(Duration::from_secs(15), cluster.await_ready(node)).await;
    }
    Ok(())
}

/// All of them at once: first every process, then what their disks had not synced.
async fn cut_power(cluster: &Cluster, nodes: &[u64], rng: &mut StdRng) -> anyhow::Result<()> {
    for &node in nodes {
        cluster.hold_down(node).await?;
    }
    for &node in nodes {
        cluster.disk(node).lose_power(rng);
    }
    Ok(())
}

fn weather(rng: &mut StdRng) -> Weather {
    Weather {
        delay: Duration::from_millis(rng.random_range(0..150)),
        jitter: Duration::from_millis(rng.random_range(0..100)),
        loss: *[0.0, 0.01, 0.1].choose(rng).unwrap_or(&0.0),
        doubled: *[0.0, 0.05].choose(rng).unwrap_or(&0.0),
    }
}

fn describe(weather: &Weather) -> &'static str {
    match (weather.loss > 0.0, weather.doubled > 0.0) {
        (false, false) => "delay, reordering",
        (true, false) => "delay, reordering, loss",
        (false, true) => "delay, reordering, doubling",
        (true, true) => "delay, reordering, loss, doubling",
    }
}

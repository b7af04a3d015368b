//! When faults come and go, and what is measured of it.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use roost_checker::{Answer, Op};
use tokio::time::Instant;

use super::{Fault, Kind, RECOVERY_BOUND};
use crate::clients::Clients;
use crate::options::Options;
use crate::recorder::Ticket;

/// How long a fault lasts.
const LASTS: std::ops::Range<f64> = 2.0..7.0;
/// The calm after a recovery, before the next fault.
const CALM: std::ops::Range<f64> = 0.5..2.5;
/// Faults at a time, at most.
const AT_A_TIME: usize = 3;

/// What a run measured of its faults.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// How many there were of each.
    pub(crate) faults: BTreeMap<String, usize>,
    /// From the SIGKILL of the leader to the first write begun and acknowledged after it.
    pub(crate) after_leader_kill: Vec<Duration>,
    /// From the end of all faults to the first write on the last node.
    pub(crate) after_end: Vec<Duration>,
    /// Recoveries that took too long, in words.
    pub(crate) too_slow: Vec<String>,
}

/// A fault under way, with its place in the history.
struct Running {
    fault: Fault,
    ticket: Ticket,
}

/// Makes faults for as long as the options say; all have ended when it returns.
pub(crate) async fn run(
    options: &Options,
    clients: &Clients,
    rng: &mut StdRng,
) -> anyhow::Result<Figures> {
    let mut figures = Figures::default();
    let cluster = &clients.shared.cluster;
    let until = Instant::now() + options.time;
    let mut id = 0;
    let mut turn = 0;
    while Instant::now() < until {
        tokio::time::sleep(seconds(rng, CALM)).await;
        let kinds = kinds(options, rng, &mut turn);
        let mut running = Vec::new();
        for kind in kinds {
            id += 1;
            let Some(fault) = Fault::begin(kind, id, cluster, rng, !options.together).await? else {
                continue;
            };
            // A probe that began after this cannot have been taken by the node that was killed.
            let begun = Instant::now();
            *figures.faults.entry(fault.name.clone()).or_default() += 1;
            let op = Op::Fault { name: fault.name.clone(), nodes: fault.nodes.clone() };
            let ticket = clients.shared.recorder.invoke(0, 0, op);
            if kind == Kind::KillLeader && running.is_empty() && !options.together {
                let killed = fault.nodes.clone();
                figures.after_leader_kill.extend(leader_gap(clients, begun, &killed).await);
            }
            running.push(Running { fault, ticket });
            if options.together {
                tokio::time::sleep(seconds(rng, 0.0..2.0)).await;
            }
        }
        tokio::time::sleep(seconds(rng, LASTS)).await;
        let names: Vec<String> = running.iter().map(|one| one.fault.name.clone()).collect();
        for one in running.into_iter().rev() {
            one.fault.end(cluster).await?;
            clients.shared.recorder.ok(one.ticket, Answer::Ended {});
        }
        cluster.look_for_ends();
        for node in cluster.numbers() {
            cluster.launch(node)?;
        }
        measure_recovery(clients, &names.join(" + "), &mut figures).await;
    }
    Ok(figures)
}

fn seconds(rng: &mut StdRng, range: std::ops::Range<f64>) -> Duration {
    Duration::from_secs_f64(rng.random_range(range))
}

/// The next faults: one after the other in turn, or some at a time.
fn kinds(options: &Options, rng: &mut StdRng, turn: &mut usize) -> Vec<Kind> {
    if options.together {
        let count = rng.random_range(1..=AT_A_TIME);
        let kinds = options.kinds();
        return (0..count).filter_map(|_| kinds.choose(rng).copied()).collect();
    }
    *turn += 1;
    let kinds = options.kinds();
    kinds.get((*turn - 1) % kinds.len().max(1)).copied().into_iter().collect()
}

/// The time from a leader's death until a write through any other node.
async fn leader_gap(clients: &Clients, before: Instant, killed: &[u64]) -> Option<Duration> {
    let others: Vec<u64> =
        clients.shared.cluster.numbers().into_iter().filter(|n| !killed.contains(n)).collect();
    let deadline = before + 2 * RECOVERY_BOUND;
    loop {
        if let Some(resumed) = clients.probes.first_after(&others, before) {
            return Some(resumed - before);
        }
        if Instant::now() > deadline {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until every node has acknowledged a write that began after the faults' end.
async fn measure_recovery(clients: &Clients, name: &str, figures: &mut Figures) {
    let ended = Instant::now();
    let nodes = clients.shared.cluster.numbers();
    let deadline = ended + 3 * RECOVERY_BOUND;
    let mut stand = None;
    loop {
        // Where the nodes stand when it takes long: what whoever looks for the reason asks first.
        if stand.is_none() && ended.elapsed() > RECOVERY_BOUND / 2 {
            stand = Some(clients.shared.cluster.stand().await);
        }
        let stand = stand.as_deref().unwrap_or_default();
        let resumed: Vec<_> =
            nodes.iter().map(|&node| clients.probes.first_after(&[node], ended)).collect();
        if let Some(last) = resumed.iter().copied().collect::<Option<Vec<_>>>() {
            let took = last.into_iter().max().unwrap_or(ended) - ended;
            if took > RECOVERY_BOUND {
                figures.too_slow.push(format!("{took:.1?} after {name}; half way: {stand}"));
            }
            figures.after_end.push(took);
            return;
        }
        if Instant::now() > deadline {
            let without: Vec<u64> = nodes
                .iter()
                .zip(&resumed)
                .filter(|(_, at)| at.is_none())
                .map(|(node, _)| *node)
                .collect();
            figures.too_slow.push(format!(
                "nodes {without:?} do not write {:?} after {name}; at first: {stand}",
                deadline - ended
            ));
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

//! What a phase cost: processors within its measured time, and memory and space that it took.

use serde_json::{Value, json};

use super::costs::{Costs, NodeCosts};
use crate::cli::output::say;

const MIB: f64 = 1024.0 * 1024.0;

/// Processors within the measured time, in percent of one.
#[derive(Debug)]
pub(crate) struct Usage {
    nodes: Vec<Option<f64>>,
    driver: f64,
    idle: Option<f64>,
    /// What neither nodes nor this process nor nobody used, if all nodes are on this machine: other
    /// programs, and the system's own work. Where it is much, the figures are of a busy machine.
    other: Option<f64>,
    /// Processor time of all nodes for each answer, in microseconds.
    pub(crate) node_us_each: Option<f64>,
}

impl Usage {
    /// Between two looks, while so many requests were answered.
    pub(crate) fn new(first: &Costs, last: &Costs, seconds: f64, answers: u64) -> Self {
        let percent = |before: f64, after: f64| tenth((after - before) / seconds * 100.0);
        let nodes: Vec<_> = first
            .nodes
            .iter()
            .zip(&last.nodes)
            .map(|(first, last)| Some(percent(first.cpu_s?, last.cpu_s?)))
            .collect();
        let all: Option<f64> = nodes.iter().copied().sum();
        let driver = percent(first.driver_cpu_s, last.driver_cpu_s);
        let idle = first.idle_s.zip(last.idle_s).map(|(before, after)| percent(before, after));
        let other = first.here.then_some(()).and_then(|()| {
            let processors = std::thread::available_parallelism().ok()?.get() as f64;
            Some(tenth((processors * 100.0 - idle? - driver - all?).max(0.0)))
        });
        Self {
            node_us_each: all.map(|all| tenth(all / 100.0 * seconds * 1e6 / answers.max(1) as f64)),
            nodes,
            driver,
            idle,
            other,
        }
    }

    /// For machines.
    pub(crate) fn json(&self) -> Value {
        json!({
            "cpu_driver_pct": self.driver,
            "cpu_servers_pct": self.nodes,
            "cpu_idle_pct": self.idle,
            "cpu_other_pct": self.other,
        })
    }

    /// A node a line, with what it holds.
    pub(crate) fn print(&self, addresses: &[String], now: &Costs) {
        say!(
            "  {:<24} {:>8} {:>9} {:>9} {:>9}",
            "node",
            "CPU %",
            "RSS MiB",
            "peak MiB",
            "disk MiB"
        );
        for ((address, node), cpu) in addresses.iter().zip(&now.nodes).zip(&self.nodes) {
            let mib = |bytes: Option<f64>| shown(bytes.map(|bytes| bytes / MIB));
            let role = if node.leads == Some(1.0) { " leads" } else { "" };
            say!(
                "  {:<24} {:>8} {:>9} {:>9} {:>9}",
                format!("{address}{role}"),
                shown(*cpu),
                mib(node.resident),
                mib(node.peak),
                mib(node.data)
            );
        }
        say!("  {:<24} {:>8}", "this driver", shown(Some(self.driver)));
        if self.other.is_some() {
            say!("  {:<24} {:>8}", "other work here", shown(self.other));
            say!("  {:<24} {:>8}", "idle here", shown(self.idle));
        }
    }
}

/// A figure of all nodes together, in MiB.
pub(crate) fn mib(costs: &Costs, figure: fn(&NodeCosts) -> Option<f64>) -> Option<f64> {
    costs.nodes.iter().map(figure).sum::<Option<f64>>().map(|bytes| tenth(bytes / MIB))
}

/// What the cluster stores, as the node says that has applied most; for machines.
pub(crate) fn stored(costs: &Costs) -> Value {
    let most = |figure: fn(&NodeCosts) -> Option<f64>| {
        costs.nodes.iter().filter_map(figure).reduce(f64::max)
    };
    json!({
        "users": most(|node| node.users),
        "messages": most(|node| node.messages),
        "references": most(|node| node.references),
    })
}

/// How much a figure of all nodes grew, for each of so many.
pub(crate) fn growth_each(
    before: &Costs,
    after: &Costs,
    count: u64,
    figure: fn(&NodeCosts) -> Option<f64>,
) -> Option<f64> {
    let nodes = before.nodes.iter().zip(&after.nodes);
    let grown = nodes.map(|(before, after)| Some(figure(after)? - figure(before)?));
    let sum: f64 = grown.sum::<Option<f64>>()?;
    Some(tenth(sum.max(0.0) / count.max(1) as f64))
}

/// A figure that may be missing, for people.
pub(crate) fn shown(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"))
}

/// Rounded to a tenth.
pub(crate) fn tenth(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn costs(cpu_s: Option<f64>, data: f64) -> Costs {
        let node = NodeCosts { cpu_s, data: Some(data), ..NodeCosts::default() };
        Costs { nodes: vec![node; 3], driver_cpu_s: 0.0, idle_s: None, here: false }
    }

    #[test]
    fn a_send_bears_its_share_of_all_nodes() {
        let (first, last) = (costs(Some(1.0), 100.0), costs(Some(2.0), 400.0));
        let usage = Usage::new(&first, &last, 2.0, 1_000);
        assert_eq!(usage.nodes, [Some(50.0); 3]);
        assert_eq!(usage.node_us_each, Some(3_000.0));
        assert_eq!(growth_each(&first, &last, 9, |node| node.data), Some(100.0));
        assert_eq!(growth_each(&first, &last, 9, |node| node.peak), None);
    }

    #[test]
    fn a_node_that_tells_nothing_leaves_the_sum_open() {
        let usage = Usage::new(&costs(None, 0.0), &costs(Some(2.0), 0.0), 2.0, 1_000);
        assert_eq!((usage.nodes[0], usage.node_us_each), (None, None));
    }
}

//! What a run says at its end: a table, or one line of JSON.
//!
//! The names in the JSON are those of the drivers that Roost is compared with, where they measure
//! the same.

use serde_json::{Value, json};

use super::costs::{Costs, NodeCosts};
use super::tally::{LatencySummary, Tally};
use super::workload::Group;
use crate::cli::output::{number, say};
use roost_cluster::host::unix_ms;

const MIB: f64 = 1024.0 * 1024.0;

/// How a run was set up.
#[derive(Debug)]
pub(crate) struct Setting {
    pub(crate) label: String,
    pub(crate) group: Group,
    pub(crate) concurrency: usize,
    pub(crate) users: usize,
    pub(crate) body: usize,
    pub(crate) seconds: f64,
    pub(crate) connections: usize,
    pub(crate) transport: &'static str,
    pub(crate) addresses: Vec<String>,
}

/// The outcome of a run, phase by phase.
#[derive(Debug)]
pub(crate) struct Report {
    setting: Setting,
    pub(crate) send: Option<SendReport>,
}

/// The outcome of the phase `send`.
#[derive(Debug)]
pub(crate) struct SendReport {
    tally: Tally,
    latency: LatencySummary,
    sends_per_s: f64,
    references_per_s: f64,
    use_: Use,
    space: Space,
}

/// Processors within the measured time, in percent of one.
#[derive(Debug)]
pub(crate) struct Use {
    nodes: Vec<Option<f64>>,
    driver: f64,
    idle: Option<f64>,
    /// Processor time of all nodes for each answer, in microseconds.
    node_us_each: Option<f64>,
}

/// What each node holds after a phase, and what the phase added.
#[derive(Debug)]
pub(crate) struct Space {
    after: Vec<NodeCosts>,
    /// Growth of all data folders for each send.
    disk_bytes_each: Option<f64>,
    /// Bytes that all nodes wrote for each send.
    written_bytes_each: Option<f64>,
}

impl Use {
    fn new(first: &Costs, last: &Costs, seconds: f64, answers: u64) -> Self {
        let percent = |before: f64, after: f64| tenth((after - before) / seconds * 100.0);
        let nodes: Vec<_> = first
            .nodes
            .iter()
            .zip(&last.nodes)
            .map(|(first, last)| Some(percent(first.cpu_s?, last.cpu_s?)))
            .collect();
        let all: Option<f64> = nodes.iter().copied().sum();
        Self {
            node_us_each: all.map(|all| tenth(all / 100.0 * seconds * 1e6 / answers.max(1) as f64)),
            nodes,
            driver: percent(first.driver_cpu_s, last.driver_cpu_s),
            idle: first.idle_s.zip(last.idle_s).map(|(before, after)| percent(before, after)),
        }
    }
}

impl Space {
    fn new(before: &Costs, after: &Costs, sends: u64) -> Self {
        let growth = |figure: fn(&NodeCosts) -> Option<f64>| {
            let nodes = before.nodes.iter().zip(&after.nodes);
            let grown = nodes.map(|(before, after)| Some(figure(after)? - figure(before)?));
            let sum: f64 = grown.sum::<Option<f64>>()?;
            Some(tenth(sum.max(0.0) / sends.max(1) as f64))
        };
        Self {
            disk_bytes_each: growth(|node| node.data),
            written_bytes_each: growth(|node| node.written),
            after: after.nodes.clone(),
        }
    }

    /// A figure of all nodes together, in MiB.
    fn mib(&self, figure: fn(&NodeCosts) -> Option<f64>) -> Option<f64> {
        self.after.iter().map(figure).sum::<Option<f64>>().map(|bytes| tenth(bytes / MIB))
    }
}

impl SendReport {
    /// From what was counted and what it cost: before, at both ends of the measured time, after.
    pub(crate) fn new(
        tally: Tally,
        seconds: f64,
        before: &Costs,
        (first, last): (&Costs, &Costs),
        after: &Costs,
    ) -> Self {
        let latency = tally.latencies.summary();
        Self {
            sends_per_s: tenth(latency.count as f64 / seconds),
            references_per_s: tenth(tally.references as f64 / seconds),
            use_: Use::new(first, last, seconds, latency.count),
            space: Space::new(before, after, tally.all),
            latency,
            tally,
        }
    }

    fn json(&self) -> Value {
        let (use_, space) = (&self.use_, &self.space);
        json!({
            "sends_per_s": self.sends_per_s,
            "refs_per_s": self.references_per_s,
            "lat": self.latency,
            "errors": self.tally.errors.total(),
            "errors_by_code": self.tally.errors,
            "first_error": self.tally.first_error,
            "all_sends": self.tally.all,
            "cpu_driver_pct": use_.driver,
            "cpu_servers_pct": use_.nodes,
            "cpu_idle_pct": use_.idle,
            "server_cpu_us_per_send": use_.node_us_each,
            "disk_bytes_per_send": space.disk_bytes_each,
            "written_bytes_per_send": space.written_bytes_each,
            "rss_mb": space.mib(|node| node.resident),
            "rss_peak_mb": space.mib(|node| node.peak),
        })
    }

    fn print(&self, addresses: &[String]) {
        say!("");
        say!("send      sends/s   references/s   p50 ms   p99 ms   p99.9 ms   max ms");
        let LatencySummary { p50_us, p99_us, p999_us, max_us, .. } = self.latency;
        say!(
            "      {:>11} {:>14} {:>8} {:>8} {:>10} {:>8}",
            number(self.sends_per_s as u64),
            number(self.references_per_s as u64),
            ms(p50_us),
            ms(p99_us),
            ms(p999_us),
            ms(max_us)
        );
        print_errors(&self.tally);
        print_nodes(addresses, &self.use_, &self.space);
    }
}

impl Report {
    /// Nothing measured yet.
    pub(crate) fn new(setting: Setting) -> Self {
        Self { setting, send: None }
    }

    /// One line for machines.
    pub(crate) fn json(&self) -> Value {
        let setting = &self.setting;
        let mut line = json!({
            "backend": "roost",
            "label": setting.label,
            "group": setting.group.to_string(),
            "c": setting.concurrency,
            "users": setting.users,
            "body": setting.body,
            "secs": setting.seconds,
            "conns": setting.connections,
            "transport": setting.transport,
            "addresses": setting.addresses,
            "at": unix_ms() / 1_000,
        });
        let send = self.send.as_ref().map(SendReport::json);
        if let (Some(line), Some(Value::Object(send))) = (line.as_object_mut(), send) {
            line.extend(send);
        }
        line
    }

    /// A table for people.
    pub(crate) fn print(&self) {
        let setting = &self.setting;
        say!(
            "{} users, group {}, {} bytes, {} in flight over {} connections ({}) to {} nodes, {} s",
            number(setting.users as u64),
            setting.group,
            setting.body,
            setting.concurrency,
            setting.connections,
            setting.transport,
            setting.addresses.len(),
            setting.seconds
        );
        if let Some(send) = &self.send {
            send.print(&setting.addresses);
        }
    }
}

fn print_errors(tally: &Tally) {
    if tally.errors.total() > 0 {
        say!("errors: {}", tally.errors.in_words());
    }
    if let Some(error) = &tally.first_error {
        say!("the first: {error}");
    }
}

fn print_nodes(addresses: &[String], use_: &Use, space: &Space) {
    say!("");
    say!("{:<24} {:>8} {:>9} {:>9} {:>9}", "node", "CPU %", "RSS MiB", "peak MiB", "disk MiB");
    for ((address, node), cpu) in addresses.iter().zip(&space.after).zip(&use_.nodes) {
        let mib = |bytes: Option<f64>| shown(bytes.map(|bytes| bytes / MIB));
        let role = if node.leads == Some(1.0) { " leads" } else { "" };
        say!(
            "{:<24} {:>8} {:>9} {:>9} {:>9}",
            format!("{address}{role}"),
            shown(*cpu),
            mib(node.resident),
            mib(node.peak),
            mib(node.data)
        );
    }
    say!("this driver {:>21} (idle {})", shown(Some(use_.driver)), shown(use_.idle));
    say!(
        "a send, all nodes together: {} µs of processor, {} bytes more on disk, {} bytes written",
        shown(use_.node_us_each),
        shown(space.disk_bytes_each),
        shown(space.written_bytes_each)
    );
}

fn shown(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"))
}

fn ms(us: u64) -> String {
    format!("{:.2}", us as f64 / 1_000.0)
}

fn tenth(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

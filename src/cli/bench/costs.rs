//! What a run costs: the nodes, by their `/metrics`, and this process.
//!
//! Asking over the network works for nodes anywhere. A node that does not answer, or does not tell
//! a figure, has none.

use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use reqwest::Method;
use tokio::time::{Instant, sleep};

use crate::cli::api::Api;
use crate::config::host_of;
use crate::edge::cpu_seconds;

/// How long a node may take to tell.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks at whether the nodes rest.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Ticks of `/proc/stat` in a second, on every Linux of today.
const TICKS_PER_SECOND: f64 = 100.0;

/// One node's figures at a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct NodeCosts {
    /// Processor time so far, in seconds.
    pub(crate) cpu_s: Option<f64>,
    /// Resident memory, in bytes.
    pub(crate) resident: Option<f64>,
    /// The most that it ever was, in bytes.
    pub(crate) peak: Option<f64>,
    /// Bytes written to disks so far.
    pub(crate) written: Option<f64>,
    /// Space of the data folder, in bytes.
    pub(crate) data: Option<f64>,
    /// Whether it leads.
    pub(crate) leads: Option<f64>,
    /// What it stores.
    pub(crate) messages: Option<f64>,
    pub(crate) references: Option<f64>,
    pub(crate) users: Option<f64>,
}

/// All figures at a moment.
#[derive(Debug, Clone)]
pub(crate) struct Costs {
    pub(crate) nodes: Vec<NodeCosts>,
    /// This process's processor time so far, in seconds.
    pub(crate) driver_cpu_s: f64,
    /// This machine's idle time so far, all processors together, in seconds.
    pub(crate) idle_s: Option<f64>,
    /// Whether all nodes are on this machine, as far as their addresses say.
    pub(crate) here: bool,
}

/// Asks the nodes.
pub(crate) struct Meter {
    apis: Vec<Api>,
    here: bool,
}

impl Meter {
    /// For these nodes, `host:port`.
    pub(crate) fn new(addresses: &[String]) -> anyhow::Result<Self> {
        let apis = addresses.iter().map(|address| Api::new(std::slice::from_ref(address), ""));
        let loopback = |host: &str| {
            host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
        };
        let here = addresses.iter().all(|address| host_of(address).is_some_and(loopback));
        Ok(Self { apis: apis.collect::<Result<_, _>>()?, here })
    }

    /// Waits until the nodes have come to rest, together under a third of a processor, at most
    /// `patience` long: what the preparation left to do is no part of what is measured.
    pub(crate) async fn settle(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let busy = |costs: Costs| costs.nodes.iter().map(|node| node.cpu_s).sum::<Option<f64>>();
        let mut before = busy(self.read().await);
        while Instant::now() < deadline {
            sleep(LOOK_INTERVAL).await;
            let now = busy(self.read().await);
            // Nodes that do not tell cannot be waited for.
            let Some(used) = before.zip(now).map(|(before, now)| now - before) else { return };
            if used < LOOK_INTERVAL.as_secs_f64() / 3.0 {
                return;
            }
            before = now;
        }
    }

    /// Looks now.
    pub(crate) async fn read(&self) -> Costs {
        let driver_cpu_s = cpu_seconds();
        let idle_s = idle_seconds();
        let deadline = Instant::now() + PATIENCE;
        let asked =
            self.apis.iter().map(|api| api.call(0, Method::GET, "/metrics", None, deadline));
        let nodes = join_all(asked).await.into_iter().map(|answer| match answer {
            Ok(answer) => parse(&answer.body),
            Err(_) => NodeCosts::default(),
        });
        Costs { nodes: nodes.collect(), driver_cpu_s, idle_s, here: self.here }
    }
}

fn parse(body: &Bytes) -> NodeCosts {
    let text = String::from_utf8_lossy(body);
    let value = |name: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        found.and_then(|value| value.trim().parse().ok())
    };
    NodeCosts {
        cpu_s: value("process_cpu_seconds_total"),
        resident: value("process_resident_memory_bytes"),
        peak: value("process_resident_memory_peak_bytes"),
        written: value("process_written_bytes"),
        data: value("roost_data_bytes"),
        leads: value("roost_is_leader"),
        messages: value(r#"roost_stored{kind="messages"}"#),
        references: value(r#"roost_stored{kind="references"}"#),
        users: value(r#"roost_stored{kind="users"}"#),
    }
}

/// This machine's idle time; none where the system does not tell it.
fn idle_seconds() -> Option<f64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let mut fields = text.lines().next()?.split_whitespace().skip(4);
    let idle: f64 = fields.next()?.parse().ok()?;
    let waiting: f64 = fields.next()?.parse().ok()?;
    Some((idle + waiting) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_does_not_tell_is_absent() {
        let text = "# HELP x y\nprocess_cpu_seconds_total 1.5\nroost_is_leader 1\nroost_data 7\n";
        let costs = parse(&Bytes::from_static(text.as_bytes()));
        assert_eq!((costs.cpu_s, costs.leads, costs.data), (Some(1.5), Some(1.0), None));
    }
}

//! Roost and peers in turn, on the same workload and machine, within one sitting.
//!
//! A peer is a configuration that `run.sh` in the peers' folder knows; it starts on empty data, is
//! driven, and stops. Roost's configurations are `roost-N` with N nodes. Each round runs every
//! configuration once with every group, so that a slow minute of the machine does not fall on one.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Value, json};

use super::cluster::{Roost, line_of};
use super::lines::append;

/// What to run.
#[derive(Debug, Args)]
pub(crate) struct Compare {
    /// The folder that has the peers' `run.sh`
    #[arg(long, value_name = "DIR")]
    peers: Option<PathBuf>,
    /// Configurations: `roost-N` and what `run.sh` knows
    #[arg(value_delimiter = ',', default_values_t = ["roost-3", "roost-1", "redis-always", "redis-everysec", "valkey-waitaof1"].map(String::from))]
    configurations: Vec<String>,
    /// The groups
    #[arg(long, value_delimiter = ',', default_values_t = ["2", "10", "100", "mix"].map(String::from))]
    groups: Vec<String>,
    /// How often each is run
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Sends in flight
    #[arg(long, default_value_t = 64)]
    concurrency: usize,
    /// Connections of Roost's driver [default: one for each sender, at most 64]
    #[arg(long)]
    connections: Option<usize>,
    /// Connections of the peers' driver, where its client multiplexes
    #[arg(long, default_value_t = 1)]
    peer_connections: usize,
    /// Seconds that are measured
    #[arg(long, default_value_t = 2.5)]
    seconds: f64,
    /// Seconds before
    #[arg(long, default_value_t = 0.7)]
    warmup: f64,
    /// Seconds of pulls after; 0 for none
    #[arg(long, default_value_t = 0.0)]
    pull_seconds: f64,
    /// Where the lines go; they are added to what is there
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    roost: Roost,
}

impl Compare {
    /// Runs everything. A run that fails is said and left out.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        for round in 1..=self.rounds {
            for group in &self.groups {
                for configuration in &self.configurations {
                    match self.one(configuration, group) {
                        Ok(mut line) => {
                            eprintln!(
                                "{round} {group:>4} {configuration}: {}/s",
                                line["sends_per_s"]
                            );
                            line["configuration"] = json!(configuration);
                            append(&self.out, &line)?;
                        }
                        Err(error) => eprintln!("{round} {group:>4} {configuration}: {error:#}"),
                    }
                }
            }
        }
        Ok(())
    }

    fn one(&self, configuration: &str, group: &str) -> anyhow::Result<Value> {
        match configuration.strip_prefix("roost-") {
            Some(nodes) => self.roost(nodes.parse().context("roost-N: not a number")?, group),
            None => self.peer(configuration, group),
        }
    }

    fn roost(&self, nodes: usize, group: &str) -> anyhow::Result<Value> {
        let cluster = self.roost.start(nodes)?;
        let (concurrency, seconds) = (self.concurrency, self.seconds);
        let mut arguments = vec![
            format!("--group={group}"),
            format!("--concurrency={concurrency}"),
            format!("--seconds={seconds}"),
            format!("--warmup={}", self.warmup),
        ];
        arguments.extend(self.connections.map(|number| format!("--connections={number}")));
        let mut line = cluster.bench(&arguments)?;
        if self.pull_seconds > 0.0 {
            let seconds = self.pull_seconds;
            let pull = [
                "--phase=pull".to_owned(),
                format!("--seconds={seconds}"),
                format!("--warmup={}", (seconds / 4.0).min(1.0)),
            ];
            line["pull"] = cluster.bench(&pull)?["pull"].take();
        }
        Ok(line)
    }

    fn peer(&self, configuration: &str, group: &str) -> anyhow::Result<Value> {
        let Some(peers) = &self.peers else { bail!("--peers says where its run.sh is") };
        let mut command = Command::new(peers.join("run.sh"));
        command.arg(configuration).args(["--group", group]);
        for (flag, value) in [
            ("-c", self.concurrency as f64),
            ("--conns", self.peer_connections as f64),
            ("--secs", self.seconds),
            ("--warmup", self.warmup),
            ("--pull-secs", self.pull_seconds),
        ] {
            command.arg(flag).arg(value.to_string());
        }
        line_of(command)
    }
}

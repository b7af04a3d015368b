//! Throughput, latency and memory against each thing that may grow, one at a time.
//!
//! A point is a run with fresh nodes, or, where the store's content is what grows, one of several
//! runs against the same nodes. Each line has the series' name and its `x`.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::cluster::{Cluster, Roost};
use super::lines::{append, figure};

/// What to run.
#[derive(Debug, Args)]
pub(crate) struct Sweep {
    /// Which series [default: all]
    #[arg(value_delimiter = ',')]
    series: Vec<String>,
    /// The values of x [default: the series' own]; for what is stored, the number of runs
    #[arg(long, value_delimiter = ',')]
    at: Vec<usize>,
    /// Nodes of each cluster
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Seconds that each run measures
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Seconds before
    #[arg(long, default_value_t = 1.0)]
    warmup: f64,
    /// Where the lines go; they are added to what is there
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    roost: Roost,
}

/// One thing that grows.
struct Series {
    name: &'static str,
    /// Where it is measured.
    at: &'static [usize],
    /// The arguments of a run at `x`.
    arguments: fn(usize) -> Vec<String>,
    /// Where the x of a run stands in its line, if runs follow each other on the same nodes.
    grows: Option<fn(&Value) -> Option<f64>>,
}

const SERIES: [Series; 7] = [
    Series {
        name: "users",
        at: &[1_000, 10_000, 100_000, 1_000_000],
        arguments: |users| {
            // As many groups for each user everywhere, but few enough to be made in a minute.
            vec![
                "--group=10".into(),
                format!("--users={users}"),
                format!("--conversations={}", users / 10),
            ]
        },
        grows: None,
    },
    Series {
        name: "group",
        at: &[2, 5, 10, 20, 50, 100, 200, 500, 1_000],
        arguments: |size| vec![format!("--group={size}")],
        grows: None,
    },
    Series {
        name: "body",
        at: &[100, 400, 1_000, 4_000, 16_000, 65_000],
        arguments: |bytes| vec!["--group=10".into(), format!("--body={bytes}")],
        grows: None,
    },
    Series {
        name: "connections",
        at: &[1, 4, 16, 64, 256, 1_024],
        arguments: |connections| {
            vec![
                "--group=10".into(),
                format!("--connections={connections}"),
                format!("--concurrency={}", connections.max(256)),
            ]
        },
        grows: None,
    },
    Series {
        name: "idle",
        at: &[100, 1_000, 5_000, 10_000],
        arguments: |connections| {
            vec![
                "--phase=connect,push".into(),
                format!("--connections={connections}"),
                "--rate=500".into(),
                "--users=30000".into(),
            ]
        },
        grows: None,
    },
    Series {
        name: "queue",
        at: &[8],
        // Two hundred users: their queues are long soon.
        arguments: |_| vec!["--group=10".into(), "--users=200".into(), "--phase=send,pull".into()],
        grows: Some(|line| {
            Some(figure(line, "/stored/references")? / figure(line, "/stored/users")?)
        }),
    },
    Series {
        name: "stored",
        at: &[8],
        arguments: |_| vec!["--group=10".into(), "--phase=send,pull".into()],
        grows: Some(|line| figure(line, "/stored/messages")),
    },
];

impl Sweep {
    /// Runs the series.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        for series in &SERIES {
            if !self.series.is_empty() && !self.series.iter().any(|name| name == series.name) {
                continue;
            }
            let at = if self.at.is_empty() { series.at } else { &self.at };
            match series.grows {
                None => {
                    for x in at {
                        let cluster = self.roost.start(self.nodes)?;
                        self.point(series, *x, Some(*x as f64), &cluster)?;
                    }
                }
                Some(_) => {
                    let cluster = self.roost.start(self.nodes)?;
                    for _ in 0..at[0] {
                        self.point(series, 0, None, &cluster)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn point(
        &self,
        series: &Series,
        argument: usize,
        x: Option<f64>,
        cluster: &Cluster,
    ) -> anyhow::Result<()> {
        let mut arguments = (series.arguments)(argument);
        arguments.push(format!("--seconds={}", self.seconds));
        arguments.push(format!("--warmup={}", self.warmup));
        match cluster.bench(&arguments) {
            Ok(mut line) => {
                let x = x.or_else(|| series.grows.and_then(|grows| grows(&line)));
                line["series"] = json!(series.name);
                line["x"] = json!(x);
                line["nodes"] = json!(self.nodes);
                eprintln!("{} {:?}: {}/s", series.name, x, line["sends_per_s"]);
                append(&self.out, &line)
            }
            Err(error) => {
                eprintln!("{} {argument}: {error:#}", series.name);
                Ok(())
            }
        }
    }
}

//! A whole Roost cluster on one thread, from one seed.
//!
//! Nodes run as they are: sessions, forwarding, openraft, log and store. What is simulated is below
//! and around them: the disks ([`node`], over the storage crate's disk that knows what was synced),
//! the clocks, the network ([`net`], [`link`], [`sessions`]) and the clients ([`client`]). Each node
//! has a tokio runtime of its own with virtual time, and all take turns on one thread in an order
//! that the seed decides. Random numbers, `select!` and hash maps get theirs from the seed too, since
//! the process's source of randomness is replaced before anything else runs; so a seed needs a
//! process of its own, and gives the same trace, byte for byte.
//!
//! A run: a [`mod@plan`] is drawn, faults come and go ([`world`]) while clients work and [`invariants`]
//! are looked at after each turn; then faults end, every node must serve and agree, everything is
//! read ([`finale`]), and the history that clients recorded ([`record`]) goes through the checker.
//!
//! A seed that fails is run again in smaller forms ([`shrink`]), to show what its failure needs.
//!
//! Left to others: QUIC, WebSocket, sled and the operating system, which real processes test.

mod random;
mod trace;

mod plan;

mod net;
mod link;
mod sessions;

mod damage;
mod node;

mod record;
mod connection;
mod client;

mod invariants;
mod world;
mod finale;
mod run;
mod shrink;
mod many;
mod planted;

use std::path::PathBuf;
use std::process::ExitCode;

use crate::run::{Settings, plan, run};
use clap::Parser;

/// Runs a simulated Roost cluster.
#[derive(Debug, Parser)]
#[command(name = "roost-sim")]
struct Arguments {
    /// The seed to run; the first one with `--seeds`.
    seed: Option<u64>,
    /// Runs so many seeds, each in a process of its own, and stops at the first violation.
    #[arg(long)]
    seeds: Option<u64>,
    /// Processes at a time, with `--seeds`.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Goes on after a violation, with `--seeds`.
    #[arg(long)]
    go_on: bool,
    /// Does not look for a smaller run that fails, with `--seeds`.
    #[arg(long)]
    no_shrink: bool,
    /// Only these faults of the plan, by number; `none` for none.
    #[arg(long)]
    keep: Option<String>,
    /// So many clients.
    #[arg(long)]
    clients: Option<u64>,
    /// Faults end here, in milliseconds.
    #[arg(long)]
    until_ms: Option<u64>,
    /// Writes every line of what happened.
    #[arg(long)]
    trace: Option<PathBuf>,
    /// Writes what clients saw, for `roost-checker`.
    #[arg(long)]
    history: Option<PathBuf>,
    /// Shows the nodes' own log on stderr, by `RUST_LOG`'s rules.
    #[arg(long)]
    log: Option<String>,
    /// Plants this bug, in a build with the feature `planted`.
    #[arg(long)]
    planted: Option<String>,
    /// Runs every planted bug until it is caught, at most so many seeds each, and writes the table.
    #[arg(long)]
    all_planted: Option<u64>,
    /// Shows the plan and runs nothing.
    #[arg(long)]
    plan: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match go(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            say(&format!("roost-sim: {error:#}"));
            ExitCode::from(2)
        }
    }
}

/// A line for people; nobody hears it if stdout is gone.
fn say(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Whether all is well.
fn go(arguments: &Arguments) -> anyhow::Result<bool> {
    let seed = arguments.seed.unwrap_or(1);
    if let Some(seeds) = arguments.all_planted {
        return planted::run_all(seed, seeds, arguments.jobs);
    }
    if let Some(name) = &arguments.planted {
        planted::choose(name)?;
    }
    if let Some(seeds) = arguments.seeds {
        return many::run(arguments, seed, seeds);
    }
    if let Some(filter) = &arguments.log {
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
    let settings = Settings {
        seed,
        keep: arguments.keep.as_deref().map(parse_keep).transpose()?,
        clients: arguments.clients,
        until_ms: arguments.until_ms,
        trace: arguments.trace.clone(),
        history: arguments.history.clone(),
    };
    if arguments.plan {
        say(&format!("{:#?}", plan(&settings)));
        return Ok(true);
    }
    let outcome = run(&settings)?;
    say(&format!("seed {seed}: {outcome}"));
    if outcome.violation.is_some() {
        say(&outcome.evidence);
    }
    Ok(outcome.violation.is_none())
}

fn parse_keep(text: &str) -> anyhow::Result<Vec<usize>> {
    if text == "none" {
        return Ok(Vec::new());
    }
    text.split(',').map(|number| Ok(number.trim().parse()?)).collect()
}

//! What a run is told.

use std::path::{Path, PathBuf};
use std::process::Command as Process;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Parser, Subcommand, ValueEnum as _};

use crate::lives;
use crate::nemesis::Kind;

/// Drive real Roost nodes through faults and check what clients saw
#[derive(Debug, Parser)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a cluster through faults, then check its history; needs root
    Run(Box<Options>),
    /// Write to an engine alone, take its disk's power, and check what it kept; needs root
    Engines(lives::Options),
    /// Write to an engine until killed, for `engines`
    #[command(hide = true)]
    EngineWriter(lives::Part),
    /// Show what an engine holds, for `engines`
    #[command(hide = true)]
    EngineReader(lives::Part),
    /// Apply to a store alone, take its disk's power, and check where it stands; needs root
    Stores(lives::Options),
    /// Apply to a store until killed, for `stores`
    #[command(hide = true)]
    StoreWriter(lives::Part),
    /// Show where a store stands, for `stores`
    #[command(hide = true)]
    StoreReader(lives::Part),
    /// Remove what killed runs left behind
    Clean,
}

/// A run.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// The server to test; built in release mode if none is named
    #[arg(long, env = "ROOST_JEPSEN_BINARY")]
    pub(crate) binary: Option<PathBuf>,
    /// How many nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=9))]
    pub(crate) nodes: u64,
    /// How long faults are made, for each round
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    pub(crate) time: Duration,
    /// How many clusters are tried, one after the other
    #[arg(long, default_value_t = 1)]
    pub(crate) rounds: u64,
    /// The faults, each alone in its time
    #[arg(long, value_delimiter = ',', default_value = "kill,pause,partition")]
    pub(crate) faults: Vec<Kind>,
    /// All faults that there are
    #[arg(long)]
    pub(crate) all: bool,
    /// Faults that are left out
    #[arg(long, value_delimiter = ',')]
    pub(crate) except: Vec<Kind>,
    /// Make several faults at a time
    #[arg(long)]
    pub(crate) together: bool,
    /// Where chance begins; the rounds after the first count on from it
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// The engine of the cold tier
    #[arg(long, default_value = "fjall")]
    pub(crate) engine: String,
    /// State that a node may hold in memory before a checkpoint: little, so that there are many
    #[arg(long, default_value = "16MiB")]
    pub(crate) dirty_bytes: String,
    /// Log entries kept for nodes that were away: few, so that snapshots are sent
    #[arg(long, default_value_t = 1_000)]
    pub(crate) log_keep_entries: u64,
    /// Keep histories, pictures and the nodes' logs here
    #[arg(long, default_value = "target/jepsen")]
    pub(crate) out: PathBuf,
    /// Users that send and read
    #[arg(long, default_value_t = 9)]
    pub(crate) users: usize,
    /// Mean pause of each client between two calls, in milliseconds
    #[arg(long, default_value_t = 60)]
    pub(crate) think_ms: u64,
}

impl Options {
    /// The faults that are to be made.
    pub(crate) fn kinds(&self) -> Vec<Kind> {
        let kinds = if self.all { Kind::value_variants() } else { &self.faults };
        kinds.iter().copied().filter(|kind| !self.except.contains(kind)).collect()
    }

    /// The server's path; builds it where none was named.
    pub(crate) fn binary(&self) -> anyhow::Result<PathBuf> {
        if let Some(binary) = &self.binary {
            return binary.canonicalize().with_context(|| format!("no {}", binary.display()));
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let status = Process::new("cargo")
            .args(["build", "--release", "--locked", "--bin", "roost"])
            .current_dir(&root)
            .status()
            .context("cannot run cargo")?;
        if !status.success() {
            bail!("building the server failed");
        }
        let target =
            std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
        Ok(target.join("release/roost").canonicalize()?)
    }
}

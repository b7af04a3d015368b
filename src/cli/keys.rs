//! `roost keys`: a cluster's keys, made before any node starts.

use std::path::PathBuf;

use anyhow::bail;
use clap::{Args, Subcommand};

use super::output::say;
use crate::config::{DEFAULT_DATA, Peers, host_of};
use crate::keys::ClusterKeys;

/// Make the keys of a cluster ahead of its first start
///
/// They can then be copied to several machines.
#[derive(Debug, Args)]
#[command(after_help = INIT_EXAMPLES)]
pub(crate) struct Keys {
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Make a key folder, or complete the one that is there; existing keys are kept
    Init(Init),
}

const INIT_EXAMPLES: &str = "\
Examples:
  roost keys init --out ./keys
  roost keys init --out ./keys --nodes 1=10.0.0.1:7071,2=10.0.0.2:7071,3=10.0.0.3:7071

Each node then starts with `--keys` naming its copy of the folder. With --nodes, every node's
certificate is made now, and ca.key can be kept away from the machines.";

#[derive(Debug, Args)]
#[command(after_help = INIT_EXAMPLES)]
struct Init {
    /// The key folder [default: DATA/keys]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The data folder
    #[arg(long, env = "ROOST_DATA", value_name = "DIR", default_value = DEFAULT_DATA)]
    data: PathBuf,
    /// Nodes to issue certificates for, with their addresses
    #[arg(long, value_name = "ID=HOST:PORT,…", default_value = "")]
    nodes: Peers,
}

impl Keys {
    /// Makes the folder.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let KeysCommand::Init(init) = self.command;
        let folder = init.out.unwrap_or_else(|| init.data.join("keys"));
        if folder.exists() && !folder.is_dir() {
            bail!("{} is no folder", folder.display());
        }
        let keys = ClusterKeys::open_or_create(&folder)?;
        for (id, address) in &init.nodes.0 {
            keys.issue_node(
                *id,
                &host_of(address).map(str::to_owned).into_iter().collect::<Vec<_>>(),
            )?;
        }
        say!("keys: {}", folder.display());
        say!("token key: {}", keys.token().kid);
        Ok(())
    }
}

//! `roost serve`: one node, until it is told to stop.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{SignalKind, signal};

use super::folder::{Description, NODE_FILE, NodeEntry, refuse_cluster_folder};
use super::output::{announce, invocation, note};
use super::target::reachable;
use crate::config::{NodeConfig, Settings};
use crate::keys::ClusterKeys;
use crate::node::Node;
use crate::open_files;

/// All that a supervised node says on stdout, once it is ready.
pub(super) const READY: &str = "ready";
/// A limit of open files that is worth a warning.
const FEW_FILES: usize = 16_384;
/// How often a starting node looks whether it knows a leader.
const READY_INTERVAL: Duration = Duration::from_millis(20);

/// Run a node
///
/// The first start makes its keys and certificate, and a cluster of this node alone
/// unless --peers names more. Every setting is a flag, a ROOST_* variable, or a key in roost.toml
/// (with _ for -); flags go before variables, variables before the file.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  roost serve
  roost serve --data /var/lib/roost --listen 0.0.0.0:7070 --advertise chat.example.org:7070
  roost serve --node-id 1 --listen 10.0.0.1:7070 --peer-listen 10.0.0.1:7071 \
--keys ./keys --peers 1=10.0.0.1:7071,2=10.0.0.2:7071,3=10.0.0.3:7071")]
pub(crate) struct Serve {
    /// The file with settings [default: ./roost.toml, then DATA/roost.toml, if they are there]
    #[arg(long, env = "ROOST_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
    /// Stop at the end of stdin: how `roost dev` keeps its nodes from outliving it
    #[arg(long, hide = true)]
    stop_on_stdin_eof: bool,
}

impl Serve {
    /// Runs the node until a signal stops it or it fails.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let config = self.settings.load(self.config.as_deref())?;
        start_logging(&config.log)?;
        let files = open_files::raise_limit();
        if files < FEW_FILES {
            tracing::warn!(
                "at most {files} files may be open, and each WebSocket is one; raise it (ulimit -n)"
            );
        }
        refuse_cluster_folder(&config.data)?;
        let mut stop = std::pin::pin!(stop_requested(self.stop_on_stdin_eof)?);
        let keys = ClusterKeys::open_or_create(&config.keys_folder())?
            .issue_node(config.node_id, &config.hosts())?;
        // Recovery may take a while, and may be broken off: it can always begin again.
        let node = tokio::select! {
            node = Node::start(&config, keys) => node?,
            () = &mut stop => return Ok(()),
        };
        describe(&config, &node)?;
        let supervised = self.stop_on_stdin_eof;
        let ready = async {
            while !node.cluster().is_ready() {
                tokio::time::sleep(READY_INTERVAL).await;
            }
            if supervised {
                announce!("{READY}");
            } else {
                welcome(&config, &node);
            }
            std::future::pending::<()>().await;
        };
        let failure = tokio::select! {
            () = &mut stop => None,
            reason = node.failed() => Some(reason),
            () = ready => None,
        };
        node.shutdown().await;
        match failure {
            Some(reason) => bail!("the node stopped: {reason}"),
            None => Ok(()),
        }
    }
}

/// Sends log lines to stderr.
fn start_logging(filter: &str) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(filter).with_context(|| {
        format!("log: {filter:?} is no filter; write info, or warn,roost=debug")
    })?;
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(ansi)
        .init();
    Ok(())
}

/// Resolves at SIGINT or SIGTERM, and at the end of stdin if that is asked for. The handlers are in
/// place when this returns.
fn stop_requested(on_stdin_eof: bool) -> anyhow::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let stdin_ends = async move {
        if !on_stdin_eof {
            return std::future::pending().await;
        }
        let mut ignored = [0; 64];
        let mut stdin = tokio::io::stdin();
        while matches!(stdin.read(&mut ignored).await, Ok(read) if read > 0) {}
    };
    Ok(async move {
        tokio::select! {
            // A supervisor's terminal sends its signal to the nodes as well; the supervisor decides.
            _ = interrupt.recv(), if !on_stdin_eof => {}
            _ = terminate.recv() => {}
            () = stdin_ends => {}
        }
    })
}

/// Leaves in the data folder what the other commands need to find this node.
fn describe(config: &NodeConfig, node: &Node) -> anyhow::Result<()> {
    let keys = match &config.keys {
        None => "keys".into(),
        Some(keys) => std::path::absolute(keys)?,
    };
    let entry = NodeEntry {
        id: config.node_id,
        client: reachable(node.client_addr()).to_string(),
        peer: config.peer_listen.to_string(),
    };
    Description { keys, nodes: vec![entry] }.write(&config.data.join(NODE_FILE))
}

/// Says where the node is and what to try next.
fn welcome(config: &NodeConfig, node: &Node) {
    let address = reachable(node.client_addr());
    announce!("roost {} is ready: node {}", env!("CARGO_PKG_VERSION"), config.node_id);
    announce!(
        "  clients  http://{address} and ws://{address}/v1/ws (TCP), QUIC on {address} (UDP)"
    );
    announce!("  peers    {} (UDP)", config.peer_listen);
    announce!("  data     {}", config.data.display());
    announce!("");
    let data = data_flag(&config.data);
    announce!("Try next, in another terminal:");
    let roost = invocation();
    announce!("  {roost} tail --as bob{data}");
    announce!("  {roost} send --as alice --to bob \"hi\"{data}");
    announce!("  {roost} token alice{data}");
    announce!("  {roost} status{data}");
    announce!("  curl http://{address}/healthz");
    if !address.ip().is_loopback() {
        note!(
            "note: HTTP and WebSocket are not encrypted; put a TLS proxy before them on open networks"
        );
    }
}

/// `--data DIR` for the hints, where it is needed.
pub(crate) fn data_flag(data: &Path) -> String {
    let default = std::path::absolute(crate::config::DEFAULT_DATA).ok();
    if std::path::absolute(data).ok() == default {
        return String::new();
    }
    let text = data.display().to_string();
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte));
    if plain {
        format!(" --data {text}")
    } else {
        format!(" --data '{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_name_the_data_folder_only_where_it_is_needed() {
        assert_eq!(data_flag(Path::new("./roost-data")), "");
        assert_eq!(data_flag(Path::new("/srv/roost")), " --data /srv/roost");
        assert_eq!(data_flag(Path::new("/a b's")), r" --data '/a b'\''s'");
    }
}

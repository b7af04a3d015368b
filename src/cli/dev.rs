//! `roost dev`: a whole cluster on this machine, one process a node.
//!
//! ```text
//! DATA/
//!   cluster.toml   the nodes' addresses, for the other commands
//!   keys/          shared by all nodes
//!   node-1/ …      a data folder each
//! ```
//!
//! The supervisor holds the writing end of every node's stdin. A node stops when that pipe ends, so
//! none outlives the supervisor, however that ends. A node that ends by itself is started again,
//! after a pause that grows while it fails before it was ready.

use std::fs::{File, TryLockError};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use super::folder::{CLUSTER_FILE, Description, NODE_FILE, NodeEntry};
use super::output::{announce, invocation, note};
use super::serve::{READY, data_flag};
use crate::config::{DEFAULT_DATA, DEFAULT_LISTEN};
use crate::keys::ClusterKeys;
use crate::node::LOCK_FILE;

/// How many nodes a new cluster has if nothing else is said.
const DEFAULT_NODES: u16 = 3;
/// Between one node's client port and the next one's.
const PORT_STEP: u16 = 10;
/// How long a node may take to stop by itself.
const GRACE: Duration = Duration::from_secs(15);
/// Between two looks at a node's lock.
const LOCK_INTERVAL: Duration = Duration::from_millis(50);
/// The first pause before a node is started again; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(16);

/// Run a whole cluster on this machine, to try things out
///
/// One process a node, on loopback: clients on --port, --port + 10, … with the peer
/// port after each. Ctrl-C stops all nodes; the next start goes on with the same data.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  roost dev --nodes 3
  roost dev --nodes 5 --port 8000 --data /tmp/five")]
pub(crate) struct Dev {
    /// How many nodes [default: as many as the folder has, else 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=9))]
    nodes: Option<u16>,
    /// The first node's client port [default: the folder's, else 7070]
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// The folder for keys and data
    #[arg(long, env = "ROOST_DATA", value_name = "DIR", default_value = DEFAULT_DATA)]
    data: PathBuf,
    /// The cold tier's engine of new nodes; existing ones keep theirs [default: fjall]
    #[arg(long, env = "ROOST_ENGINE", value_name = "NAME", value_parser = ["fjall", "sled"])]
    engine: Option<String>,
    /// Which log lines the nodes write
    #[arg(long, env = "ROOST_LOG", value_name = "FILTER", default_value = "warn,openraft=off")]
    log: String,
}

/// What the supervisor learns from a node's keeper.
enum Event {
    /// The node is ready.
    Ready(u64),
    /// The node gave up before it was ever ready, and why.
    Failed(u64, String),
    /// The node has ended for good.
    Ended,
}

impl Dev {
    /// Runs the cluster until a signal stops it.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let description = self.prepare()?;
        let _lock = self.lock()?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let (stop, stopped) = watch::channel(false);
        let (events, mut received) = mpsc::channel(16);
        for node in &description.nodes {
            let command = self.node_command(node, &description)?;
            let (id, stopped, events) = (node.id, stopped.clone(), events.clone());
            let folder = folder_of(&self.data, id);
            tokio::spawn(async move {
                predecessor_ends(&folder).await;
                keep(id, command, stopped, events).await;
            });
        }
        drop(events);
        let mut waiting: std::collections::BTreeSet<u64> =
            description.nodes.iter().map(|node| node.id).collect();
        let mut keepers = description.nodes.len();
        let mut failure = None;
        while keepers > 0 {
            tokio::select! {
                _ = interrupt.recv(), if !*stop.borrow() => begin_stop(&stop),
                _ = terminate.recv(), if !*stop.borrow() => begin_stop(&stop),
                event = received.recv() => match event {
                    Some(Event::Ready(node)) => {
                        if waiting.remove(&node) && waiting.is_empty() {
                            self.welcome(&description);
                        }
                    }
                    Some(Event::Failed(node, end)) => {
                        failure.get_or_insert(format!("node {node} {end}; its last lines say why"));
                        stop.send_replace(true);
                    }
                    Some(Event::Ended) => keepers -= 1,
                    None => break,
                },
            }
        }
        match failure {
            Some(failure) => bail!(failure),
            None => Ok(()),
        }
    }

    /// Makes the folder and its keys, or checks that the folder fits.
    fn prepare(&self) -> anyhow::Result<Description> {
        let path = self.data.join(CLUSTER_FILE);
        if self.data.join(NODE_FILE).exists() {
            bail!(
                "{} holds a node of `roost serve`; name another folder with --data",
                self.data.display()
            );
        }
        let description = match Description::read(&path)? {
            Some(found) => self.check(found)?,
            None => describe(
                self.nodes.unwrap_or(DEFAULT_NODES),
                self.port.unwrap_or(DEFAULT_LISTEN.port()),
            )?,
        };
        ClusterKeys::open_or_create(&self.data.join("keys"))?;
        description.write(&path)?;
        Ok(description)
    }

    /// Checks that the folder's cluster is the one that is asked for: its members and their
    /// addresses are in its log.
    fn check(&self, found: Description) -> anyhow::Result<Description> {
        let (count, folder) = (found.nodes.len(), self.data.display());
        let hint = "or name another folder with --data";
        if self.nodes.is_some_and(|nodes| usize::from(nodes) != count) {
            bail!(
                "{folder} holds a cluster of {count} nodes; start it with --nodes {count}, {hint}"
            );
        }
        let first = found.nodes.first().and_then(|node| node.client.parse::<SocketAddr>().ok());
        let port = first.with_context(|| format!("{folder}/{CLUSTER_FILE} names no node"))?.port();
        if self.port.is_some_and(|wanted| wanted != port) {
            bail!("{folder} holds a cluster on port {port}; start it with --port {port}, {hint}");
        }
        Ok(Description { keys: "keys".into(), ..found })
    }

    /// Keeps a second supervisor off the folder for as long as the file lives.
    fn lock(&self) -> anyhow::Result<File> {
        let path = self.data.join(LOCK_FILE);
        let file =
            File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => {
                bail!(
                    "a cluster runs on {} already; stop it first, or use another --data",
                    self.data.display()
                )
            }
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot lock {}", path.display()))
            }
        }
    }

    fn node_command(&self, node: &NodeEntry, description: &Description) -> anyhow::Result<Command> {
        let peers: Vec<_> =
            description.nodes.iter().map(|node| format!("{}={}", node.id, node.peer)).collect();
        let data = std::path::absolute(&self.data)?;
        let folder = data.join(format!("node-{}", node.id));
        let mut command =
            Command::new(std::env::current_exe().context("cannot find the roost binary")?);
        // Only what is said here counts: the supervisor's own variables and ./roost.toml are not the nodes'.
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ROOST_"))
        {
            command.env_remove(name);
        }
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        command
            .arg("serve")
            .arg("--stop-on-stdin-eof")
            .args(["--node-id", &node.id.to_string()])
            .args(["--listen", &node.client, "--peer-listen", &node.peer])
            .args(["--peers", &peers.join(",")])
            .args(["--log", &self.log])
            .args(self.engine.iter().flat_map(|engine| ["--engine", engine]))
            .arg("--keys")
            .arg(data.join("keys"))
            .arg("--data")
            .arg(&folder)
            .current_dir(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        Ok(command)
    }

    fn welcome(&self, description: &Description) {
        announce!("A cluster of {} is ready:", description.nodes.len());
        for node in &description.nodes {
            announce!(
                "  node {}  http://{1}, ws://{1}/v1/ws and QUIC; data in {2}",
                node.id,
                node.client,
                folder_of(&self.data, node.id).display()
            );
        }
        let data = data_flag(&self.data);
        announce!("");
        announce!("Try next, in another terminal:");
        let roost = invocation();
        announce!("  {roost} tail --as bob{data}");
        announce!("  {roost} send --as alice --to bob \"hi\"{data}");
        announce!("  {roost} status{data}");
        if let Some(node) = description.nodes.first() {
            announce!("  curl http://{}/healthz", node.client);
        }
        announce!("Ctrl-C stops all nodes; the next `roost dev` goes on with the same data.");
    }
}

/// The nodes of a new cluster.
fn describe(nodes: u16, port: u16) -> anyhow::Result<Description> {
    let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)).to_string();
    let nodes = (0..nodes).map(|index| {
        let client =
            port.checked_add(index * PORT_STEP).filter(|port| *port > 0 && *port < u16::MAX);
        let client = client.with_context(|| format!("--port {port}: no room for {nodes} nodes"))?;
        Ok(NodeEntry {
            id: u64::from(index) + 1,
            client: address(client),
            peer: address(client + 1),
        })
    });
    Ok(Description { keys: "keys".into(), nodes: nodes.collect::<anyhow::Result<_>>()? })
}

fn folder_of(data: &Path, node: u64) -> PathBuf {
    data.join(format!("node-{node}"))
}

fn begin_stop(stop: &watch::Sender<bool>) {
    announce!("Stopping …");
    stop.send_replace(true);
}

/// Waits while a node of an earlier supervisor, which was killed, is still about to end. One that
/// does not end in time is left to the new node, which says so.
async fn predecessor_ends(folder: &Path) {
    let deadline = Instant::now() + GRACE;
    while Instant::now() < deadline {
        match File::open(folder.join(LOCK_FILE)).map(|file| file.try_lock()) {
            Ok(Err(TryLockError::WouldBlock)) => sleep(LOCK_INTERVAL).await,
            _ => return,
        }
    }
}

/// How one life of a node went.
struct Life {
    /// Whether it was ready.
    ready: bool,
    /// Whether it ended by its own decision, rather than by a signal.
    gave_up: bool,
    /// How it ended, in words.
    end: String,
}

/// Keeps one node running until it is told to stop. A node that gives up before it was ever ready
/// (its port is taken, its folder unusable) is not tried again: somebody must look at it.
async fn keep(
    id: u64,
    mut command: Command,
    mut stop: watch::Receiver<bool>,
    events: mpsc::Sender<Event>,
) {
    let mut pause = FIRST_PAUSE;
    let mut proven = false;
    while !*stop.borrow() {
        let life = match command.spawn() {
            Ok(child) => live(id, child, &mut stop, &events).await,
            Err(error) => Life { ready: false, gave_up: true, end: format!("cannot run: {error}") },
        };
        proven |= life.ready;
        if *stop.borrow() {
            break;
        }
        if life.gave_up && !proven {
            let _ = events.send(Event::Failed(id, life.end)).await;
            break;
        }
        pause = if life.ready { FIRST_PAUSE } else { pause };
        note!("node-{id} | {}; starting it again in {} s", life.end, pause.as_secs());
        tokio::select! {
            () = sleep(pause) => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    // The supervisor ends only after every keeper: it listens until then.
    let _ = events.send(Event::Ended).await;
}

/// One life of a node: passes its lines on, and stops it when told.
async fn live(
    id: u64,
    mut child: Child,
    stop: &mut watch::Receiver<bool>,
    events: &mpsc::Sender<Event>,
) -> Life {
    let stdin = child.stdin.take();
    let stdout =
        child.stdout.take().map(|pipe| tokio::spawn(report_ready(id, pipe, events.clone())));
    let stderr = child.stderr.take().map(|pipe| tokio::spawn(pass_on(id, pipe)));
    let ended = tokio::select! {
        ended = child.wait() => Some(ended),
        _ = stop.wait_for(|stop| *stop) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            drop(stdin);
            end_in_grace(id, &mut child).await
        }
    };
    let ready = match stdout {
        Some(task) => task.await.unwrap_or(false),
        None => false,
    };
    if let Some(task) = stderr {
        let _ = task.await;
    }
    let (gave_up, end) = match ended {
        Ok(status) => (status.code().is_some(), format!("ended unexpectedly ({status})")),
        Err(error) => (false, format!("cannot be waited for: {error}")),
    };
    Life { ready, gave_up, end }
}

/// Waits for a node that was told to stop; kills it if it takes too long.
async fn end_in_grace(id: u64, child: &mut Child) -> std::io::Result<ExitStatus> {
    if let Ok(ended) = timeout(GRACE, child.wait()).await {
        return ended;
    }
    note!("node-{id} | did not stop in {} s; killing it", GRACE.as_secs());
    child.start_kill()?;
    child.wait().await
}

/// Reads a node's stdout to its end, and tells when it says that it is ready; returns whether it did.
async fn report_ready(id: u64, pipe: impl AsyncRead + Unpin, events: mpsc::Sender<Event>) -> bool {
    let mut lines = BufReader::new(pipe).lines();
    let mut ready = false;
    while let Ok(Some(line)) = lines.next_line().await {
        if line == READY {
            ready = true;
            let _ = events.send(Event::Ready(id)).await;
        } else {
            note!("node-{id} | {line}");
        }
    }
    ready
}

/// Passes a node's lines on with its name before them.
async fn pass_on(id: u64, pipe: impl AsyncRead + Unpin) {
    let mut lines = BufReader::new(pipe).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        note!("node-{id} | {line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dev(nodes: impl Into<Option<u16>>, port: impl Into<Option<u16>>, data: &Path) -> Dev {
        let (nodes, port) = (nodes.into(), port.into());
        Dev { nodes, port, data: data.into(), engine: None, log: "warn".into() }
    }

    #[test]
    fn nodes_stand_ten_ports_apart_with_the_peer_port_after_each() {
        let temp = tempfile::tempdir().unwrap();
        let nodes = dev(None, None, temp.path()).prepare().unwrap().nodes;
        let ports: Vec<_> =
            nodes.iter().map(|node| (node.id, node.client.as_str(), node.peer.as_str())).collect();
        let expected = [
            (1, "127.0.0.1:7070", "127.0.0.1:7071"),
            (2, "127.0.0.1:7080", "127.0.0.1:7081"),
            (3, "127.0.0.1:7090", "127.0.0.1:7091"),
        ];
        assert_eq!(ports, expected);
        assert!(dev(3, 65_530, &temp.path().join("other")).prepare().is_err());
    }

    #[test]
    fn a_second_start_goes_on_with_the_same_nodes() {
        let temp = tempfile::tempdir().unwrap();
        let first = dev(5, 8000, temp.path()).prepare().unwrap();
        assert_eq!(dev(None, None, temp.path()).prepare().unwrap(), first);
        assert_eq!(dev(5, 8000, temp.path()).prepare().unwrap(), first);
    }

    #[test]
    fn a_folder_of_another_kind_size_or_place_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        dev(3, 7070, temp.path()).prepare().unwrap();
        let refusal = |dev: Dev| dev.prepare().unwrap_err().to_string();
        assert!(refusal(dev(5, None, temp.path())).contains("3 nodes"));
        assert!(refusal(dev(3, 8080, temp.path())).contains("port 7070"));
        std::fs::write(temp.path().join(NODE_FILE), "").unwrap();
        assert!(refusal(dev(3, 7070, temp.path())).contains("roost serve"));
    }
}
